//! A store, a key ring in memory, thirty handsets, and what is known of them from outside.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sekisho::binding::{AccountId, BindingId, BindingKey, Candidates, KeyId, KeyRing, LiveKeys, Stretcher};
use sekisho::carrier::RawIdentifier;
use sekisho::clock::Timestamp;
use sekisho::entropy::SeededEntropy;
use sekisho::secret::SecretBytes;
use sekisho::store::{
    EmbeddedStore, KeyDates, KeyPurpose, KeyRecord, KeyState, KeyStore as _, ReceiptStore as _, Scanned, SchemeRecord,
    StoredKeys,
};

pub(crate) const IDENTIFIERS: usize = 30;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_795_530_117_042)
}

/// What was known of a handset when its sign-in began.
pub(crate) struct Begun {
    before: Option<(u32, BindingId)>,
    made_before: u32,
}

pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) store: EmbeddedStore,
    pub(crate) ring: KeyRing,
    pub(crate) entropy: SeededEntropy,
    /// Bound handsets: how often they were bound, and the binding.
    bound: RefCell<BTreeMap<usize, (u32, BindingId)>>,
    bindings_made: Cell<u32>,
    /// The last binding of each handset that ever had one.
    last: RefCell<BTreeMap<usize, u32>>,
    /// Sign-ins that failed and should not have.
    pub(crate) lost: RefCell<Vec<String>>,
    /// Whose digest it is, under every chain that the key ring in memory probes.
    probed: RefCell<HashMap<[u8; 32], usize>>,
    probed_under: Cell<Option<u64>>,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        // Where nothing has to reach a disk: what is tested is order, and there are thousands of commits.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let entropy = SeededEntropy::new(seed);
        let (store, _) = EmbeddedStore::open(&folder.path().join("store"), now(), &entropy).ok().unwrap();
        let scheme = SchemeRecord { id: "v1".into(), stretch: None, salt: [3; 16], pin_secret: vec![4; 60] };
        let stretcher = Stretcher::new(&scheme).unwrap();
        let first = KeyPurpose::ALL.map(|purpose| key(purpose, 1, KeyState::Active));
        store.initialise(first.into(), scheme).await.unwrap();
        let ring = KeyRing::new(live(&store.keys().await.unwrap()), stretcher);
        Self {
            folder,
            store,
            ring,
            entropy,
            bound: RefCell::default(),
            bindings_made: Cell::new(0),
            last: RefCell::default(),
            lost: RefCell::default(),
            probed: RefCell::default(),
            probed_under: Cell::new(None),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The keys in memory follow those of the store.
    pub(crate) async fn reload(&self) {
        self.ring.replace(live(&self.store.keys().await.unwrap()));
    }

    pub(crate) async fn digest(&self, handset: usize) -> Candidates {
        let candidates = self.ring.digest(identifier(handset)).await.ok().unwrap();
        // Invariant 7: work depends on the keys alone.
        let stranger = self.ring.digest(identifier(IDENTIFIERS + handset)).await.ok().unwrap();
        assert!(stranger.generation != candidates.generation || stranger.probes.len() == candidates.probes.len());
        candidates
    }

    /// Which binding of the handset stands: a number that tells it from those before.
    pub(crate) fn bound(&self, handset: usize) -> Option<(u32, BindingId)> {
        self.bound.borrow().get(&handset).copied()
    }

    pub(crate) fn was_bound(&self, handset: usize, binding: BindingId) {
        if let Some((_, stands)) = self.bound(handset) {
            assert_eq!(stands, binding, "handset {handset} is bound twice");
        } else {
            self.bindings_made.set(self.bindings_made.get() + 1);
            self.bound.borrow_mut().insert(handset, (self.bindings_made.get(), binding));
            self.last.borrow_mut().insert(handset, self.bindings_made.get());
        }
    }

    pub(crate) fn was_revoked(&self, handset: usize) {
        self.bound.borrow_mut().remove(&handset);
    }

    /// What is known of a handset as its sign-in begins.
    pub(crate) fn begun(&self, handset: usize) -> Begun {
        Begun { before: self.bound(handset), made_before: self.bindings_made.get() }
    }

    /// A handset that was bound in one and the same way from the beginning to the end of its sign-in must be found.
    pub(crate) fn judge(&self, handset: usize, begun: &Begun, found: Option<BindingId>, how: &str) {
        let Begun { before, made_before } = *begun;
        let stood = before.filter(|before| self.bound(handset) == Some(*before));
        match (stood, found) {
            (Some((_, binding)), Some(found)) => assert_eq!(binding, found, "{how}: handset {handset}"),
            (Some(_), None) => self.lost.borrow_mut().push(format!("{how}: handset {handset}")),
            (None, Some(_)) => {
                let meanwhile = self.last.borrow().get(&handset).is_some_and(|last| *last > made_before);
                assert!(before.is_some() || meanwhile, "{how}: stranger {handset} was found");
            }
            (None, None) => {}
        }
    }

    pub(crate) async fn records(&self) -> Vec<Scanned> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seeing = Arc::clone(&seen);
        let visit = move |record: &Scanned| {
            let Scanned { position, id, chain, digest } = record;
            let copy = Scanned { position: *position, id: *id, chain: chain.clone(), digest: digest.clone() };
            seeing.lock().unwrap().push(copy);
        };
        self.store.survey(Box::new(visit)).await.unwrap();
        std::mem::take(&mut *seen.lock().unwrap())
    }

    /// Invariants 1 to 4, at this instant: one active key; of each bound handset exactly one record that a sign-in
    /// would find now, and it is its binding; no record of anybody else.
    pub(crate) async fn check(&self) {
        let keys = self.store.keys().await.unwrap().keys;
        let active = keys.iter().filter(|key| key.purpose == KeyPurpose::Binding && key.state == KeyState::Active);
        assert_eq!(active.count(), 1);
        let any = self.ring.digest(identifier(0)).await.ok().unwrap();
        if self.probed_under.get() != Some(any.generation) {
            let mut probed = HashMap::new();
            for handset in 0..IDENTIFIERS {
                let candidates = self.ring.digest(identifier(handset)).await.ok().unwrap();
                probed.extend(candidates.probes.iter().map(|probe| (*probe.digest.as_bytes(), handset)));
            }
            self.probed.replace(probed);
            self.probed_under.set(Some(any.generation));
        }
        let mut found = BTreeMap::new();
        for record in self.records().await {
            let whose = self.probed.borrow().get(record.digest.as_bytes()).copied();
            let whose = whose.unwrap_or_else(|| panic!("{} of {} is nobody's", record.id, record.chain));
            assert_eq!(found.insert(whose, record.id), None, "handset {whose} has two records");
        }
        let bound: BTreeMap<_, _> = self.bound.borrow().iter().map(|(handset, (_, id))| (*handset, *id)).collect();
        assert_eq!(found, bound);
    }
}

pub(crate) fn account(handset: usize) -> AccountId {
    AccountId::parse(&format!("a{handset}")).unwrap()
}

/// The bytes of a canary are as good as those of any handset.
pub(crate) fn identifier(handset: usize) -> RawIdentifier {
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&u64::try_from(handset).unwrap().to_be_bytes());
    RawIdentifier::canary(&octets)
}

pub(crate) fn key(purpose: KeyPurpose, number: u32, state: KeyState) -> KeyRecord {
    KeyRecord {
        id: format!("{}{number}", purpose.letter()),
        purpose,
        state,
        suspended: false,
        compromised: false,
        wrapped: vec![7; 60],
        commitment: [8; 32],
        public: None,
        created_at: now(),
        dates: KeyDates::default(),
    }
}

fn live(stored: &StoredKeys) -> LiveKeys {
    let of_bindings = stored.keys.iter().filter(|key| key.purpose == KeyPurpose::Binding).map(|key| {
        let id = KeyId::parse(&key.id).unwrap();
        let number: u8 = key.id[1..].parse().unwrap();
        BindingKey { id, state: key.state, suspended: false, material: SecretBytes::new(vec![number; 32]) }
    });
    LiveKeys::new(of_bindings.collect(), stored.generation).unwrap()
}

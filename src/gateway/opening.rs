//! The keys at start-up: the KEK, the next one where the operator is about to change it, and whatever they open.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::{Config, Finding, KekSource, Severity};
use crate::entropy::Entropy;
use crate::keys::{Kek, KeySet, KeysError, Lifecycle, overdue};
use crate::store::{EmbeddedStore, KeyStore, RotationStore};

/// The KEK of the configuration, and what is doubtful about it.
pub(super) async fn open_kek(config: &Config, entropy: &dyn Entropy) -> Result<(Kek, Vec<Finding>), Finding> {
    open_kek_at(config, "keys.kek", &config.keys.kek, entropy).await
}

/// The KEK that `keys rewrap` changes to, if there is one.
async fn open_next_kek(config: &Config, entropy: &dyn Entropy) -> Result<Option<(Kek, Vec<Finding>)>, Finding> {
    match &config.keys.kek_next {
        Some(source) => open_kek_at(config, "keys.kek_next", source, entropy).await.map(Some),
        None => Ok(None),
    }
}

/// Both KEKs of the configuration, as far as there are two.
pub(super) async fn both_keks(config: &Config, entropy: &dyn Entropy) -> Result<(Kek, Option<Kek>), Finding> {
    let (kek, _) = open_kek(config, entropy).await?;
    Ok((kek, open_next_kek(config, entropy).await?.map(|(next, _)| next)))
}

async fn open_kek_at(
    config: &Config,
    key: &str,
    source: &KekSource,
    entropy: &dyn Entropy,
) -> Result<(Kek, Vec<Finding>), Finding> {
    let (kek, doubts) = Kek::open(source, entropy).await.map_err(|error| config.finding(key, error.to_string()))?;
    Ok((kek, doubts.into_iter().map(|doubt| warning(config, key, doubt)).collect()))
}

pub(super) fn warning(config: &Config, key: &str, problem: String) -> Finding {
    Finding { severity: Severity::Warning, ..config.finding(key, problem) }
}

/// Opens the keys under whichever of the two KEKs they are wrapped: a start may come before or after the rewrap.
pub(super) async fn open_keys(
    config: &Config,
    store: &Arc<EmbeddedStore>,
    kek: Kek,
    entropy: &Arc<dyn Entropy>,
    now: Timestamp,
) -> Result<(Arc<KeySet>, Arc<Lifecycle>), Finding> {
    let stretch = config.binding.stretch;
    let open = async |kek: &Kek| KeySet::open(&**store, kek, stretch, &**entropy, now).await;
    let mut kek = kek;
    let mut opened = open(&kek).await;
    if let Err(KeysError::WrongKek) = opened
        && let Some((next, _)) = open_next_kek(config, &**entropy).await?
    {
        opened = open(&next).await;
        if opened.is_ok() {
            tracing::warn!("{AFTER_REWRAP}");
        }
        kek = next;
    }
    let set = Arc::new(opened.map_err(|error| config.finding(setting_of(&error), error.to_string()))?);
    let (stored, rotations) = (Arc::clone(store) as Arc<dyn KeyStore>, Arc::clone(store) as Arc<dyn RotationStore>);
    let lifecycle = Lifecycle::new(Arc::clone(&set), stored, rotations, kek, Arc::clone(entropy), config.keys.periods);
    // From here on, what becomes of a key needs no KEK unless another is made.
    lifecycle.refresh().await.map_err(|error| config.finding("keys.kek", error.to_string()))?;
    Ok((set, Arc::new(lifecycle)))
}

/// The setting that an operator has to look at.
const fn setting_of(error: &KeysError) -> &'static str {
    match error {
        KeysError::WrongKek | KeysError::Kek(_) => "keys.kek",
        KeysError::StretchChanged { .. } | KeysError::StretchOutOfRange(_) => "binding.stretch",
        KeysError::UnknownScheme(_) | KeysError::Corrupt(_) | KeysError::Store(_) => "store.path",
    }
}

const AFTER_REWRAP: &str = "the store's keys are wrapped under keys.kek_next; write that one as keys.kek, remove \
                            keys.kek_next and put the old KEK away";

/// What start-up would find of the KEKs; those that open.
pub(super) async fn inspect_keks(
    config: &Config,
    entropy: &dyn Entropy,
    findings: &mut Vec<Finding>,
) -> Option<(Kek, Option<Kek>)> {
    let mut keep = |opened: Result<(Kek, Vec<Finding>), Finding>| match opened {
        Ok((kek, doubts)) => {
            findings.extend(doubts);
            Some(kek)
        }
        Err(finding) => {
            findings.push(finding);
            None
        }
    };
    let kek = keep(open_kek(config, entropy).await);
    let next = open_next_kek(config, entropy).await.transpose().and_then(keep);
    Some((kek?, next))
}

/// What start-up would find of the keys, and those that are older than they should become.
pub(super) async fn inspect_keys(
    config: &Config,
    store: &EmbeddedStore,
    (kek, next): &(Kek, Option<Kek>),
    now: Timestamp,
) -> Vec<Finding> {
    let stretch = config.binding.stretch;
    let mut findings = Vec::new();
    let mut inspected = KeySet::inspect(store, kek, stretch).await.map(drop);
    if let (Err(KeysError::WrongKek), Some(next)) = (&inspected, next) {
        inspected = KeySet::inspect(store, next, stretch).await.map(drop);
        if inspected.is_ok() {
            findings.push(warning(config, "keys.kek_next", AFTER_REWRAP.to_owned()));
        }
    }
    if let Err(error) = inspected {
        findings.push(config.finding(setting_of(&error), error.to_string()));
    }
    match store.keys().await {
        Ok(stored) => {
            let old = stored.keys.iter().filter_map(|key| overdue(key, &config.keys.periods, now));
            findings.extend(old.map(|problem| warning(config, "keys", problem)));
        }
        Err(error) => findings.push(config.finding("store.path", error.to_string())),
    }
    findings
}

//! PKCS#11 modules (OASIS PKCS #11 2.40 and 3.x). The only file that names cryptoki.
//!
//! Initialisation and login are of the whole process (§5.4, §5.6 there), and a call takes as long as the token likes. So each
//! module has one thread, which makes all calls to it, one at a time. A call that never returns holds that thread
//! and nothing else: no thread of a runtime waits for it, and the process can end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;

use super::{NONCE_BYTES, TokenFault};
use crate::config::TokenKey;
use crate::secret::SecretBytes;

/// Calls that wait for a module at most; more than operators make at once.
const WAITING: usize = 16;
/// Bytes of a GCM tag.
const TAG_BYTES: usize = 16;
/// Bytes of a KEK.
const KEK_BYTES: u64 = 32;

/// Before a call that failed is tried again by a module that starts anew.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// What a module's thread is given to do.
pub(super) type Job = Box<dyn FnOnce(&mut Module) + Send>;

/// A module as its thread holds it.
pub(super) struct Module {
    path: PathBuf,
    /// Initialised; none before the first call and after a failure.
    context: Option<Pkcs11>,
    /// The PIN that a token refused last, by its label.
    refused: BTreeMap<String, SecretBytes>,
}

/// A key found in a token to which the user is logged in, for one call.
pub(super) struct KeyInToken<'a> {
    session: &'a Session,
    handle: ObjectHandle,
}

/// Hands `job` to the thread of the module at `path`, which starts with its first job and lives as long as the process.
pub(super) fn ask(path: &Path, mut job: Job) -> Result<(), TokenFault> {
    static THREADS: Mutex<BTreeMap<PathBuf, SyncSender<Job>>> = Mutex::new(BTreeMap::new());
    // Two names of one file are one library.
    let path = path.canonicalize().map_err(|error| TokenFault::Module(error.to_string()))?;
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(thread) = threads.get(&path) {
        match thread.try_send(job) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_)) => return Err(TokenFault::Busy),
            // A panic ended it.
            Err(TrySendError::Disconnected(back)) => job = back,
        }
    }
    let (thread, jobs) = sync_channel(WAITING);
    let module = Module { path: path.clone(), context: None, refused: BTreeMap::new() };
    std::thread::Builder::new()
        .name("kek-token".to_owned())
        .spawn(move || module.serve(&jobs))
        .map_err(|error| TokenFault::Failed(error.to_string()))?;
    // There is room in a queue that is new.
    let _ = thread.try_send(job);
    threads.insert(path, thread);
    Ok(())
}

impl Module {
    fn serve(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            job(&mut self);
        }
    }

    /// Logs in, finds the key and does `work` with it.
    pub(super) fn with_key<T>(
        &mut self,
        key: &TokenKey,
        work: &dyn Fn(&KeyInToken<'_>) -> Result<T, TokenFault>,
    ) -> Result<T, TokenFault> {
        // What went wrong is to be told before nobody waits for it any more.
        let until = Instant::now() + key.timeout / 2;
        let mut outcome = self.attempt(key, work);
        for pause in PAUSES {
            if !outcome.as_ref().is_err_and(may_heal) || Instant::now() + pause > until {
                break;
            }
            // The module may remember a token that was taken away since, or have read one while another process wrote it
            // (SoftHSM then finds none, or none of its flags). It starts anew.
            self.forget();
            std::thread::sleep(pause);
            outcome = self.attempt(key, work);
        }
        if outcome.as_ref().is_err_and(may_heal) {
            self.forget();
        }
        outcome
    }

    fn attempt<T>(
        &mut self,
        key: &TokenKey,
        work: &dyn Fn(&KeyInToken<'_>) -> Result<T, TokenFault>,
    ) -> Result<T, TokenFault> {
        let context = self.context()?.clone();
        let slot = slot_of(&context, &key.token)?;
        // Closed when dropped; with the last session goes the login.
        let session = context.open_ro_session(slot).map_err(failed)?;
        self.log_in(&context, slot, &session, key)?;
        let handle = find(&session, &key.key)?;
        let key = KeyInToken { session: &session, handle };
        key.check()?;
        work(&key)
    }

    fn context(&mut self) -> Result<&Pkcs11, TokenFault> {
        if self.context.is_none() {
            let context = Pkcs11::new(&self.path).map_err(|error| TokenFault::Module(one_line(&error)))?;
            match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                // The thread before this one did.
                Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
                Err(error) => return Err(TokenFault::Module(one_line(&error))),
            }
            self.context = Some(context);
        }
        self.context.as_ref().ok_or(TokenFault::Busy)
    }

    fn forget(&mut self) {
        if let Some(context) = self.context.take() {
            // A module that cannot end is started again all the same.
            let _ = context.finalize();
        }
    }

    /// Never spends the last try: wrong PINs must not lock others out of their token.
    fn log_in(&mut self, context: &Pkcs11, slot: Slot, session: &Session, key: &TokenKey) -> Result<(), TokenFault> {
        let token = context.get_token_info(slot).map_err(failed)?;
        if token.user_pin_locked() {
            return Err(TokenFault::PinLocked);
        }
        if !token.user_pin_initialized() || token.user_pin_to_be_changed() {
            return Err(TokenFault::PinNotSet);
        }
        if token.user_pin_final_try() {
            return Err(TokenFault::PinFinalTry);
        }
        let pin = key.pin.read()?;
        if self.refused.get(&key.token).is_some_and(|refused| refused.expose() == pin.expose()) {
            return Err(TokenFault::PinRefusedBefore);
        }
        // Wiped when dropped, as ours is.
        let raw = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        match session.login_with_raw(UserType::User, &raw) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.refused.remove(&key.token);
                Ok(())
            }
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                self.refused.insert(key.token.clone(), pin);
                Err(TokenFault::PinWrong)
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenFault::PinLocked),
            Err(Error::Pkcs11(RvError::PinExpired | RvError::UserPinNotInitialized, _)) => Err(TokenFault::PinNotSet),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Whether a module that starts anew may see it otherwise. Nothing among it that spent a try of a PIN.
fn may_heal(fault: &TokenFault) -> bool {
    matches!(fault, TokenFault::NoToken | TokenFault::NoKey | TokenFault::PinNotSet | TokenFault::Failed(_))
}

fn slot_of(context: &Pkcs11, label: &str) -> Result<Slot, TokenFault> {
    let slots = context.get_slots_with_token().map_err(failed)?;
    let mut ours = Vec::new();
    let mut unknown = None;
    for slot in slots {
        match context.get_token_info(slot) {
            Ok(token) if token.token_initialized() && token.label() == label => ours.push(slot),
            Ok(_) => {}
            // Another token's trouble, unless ours is not found.
            Err(error) => unknown = Some(failed(error)),
        }
    }
    match ours.as_slice() {
        [] => Err(unknown.unwrap_or(TokenFault::NoToken)),
        [slot] => Ok(*slot),
        _ => Err(TokenFault::ManyTokens),
    }
}

fn find(session: &Session, label: &str) -> Result<ObjectHandle, TokenFault> {
    let named = [Attribute::Token(true), Attribute::Label(label.as_bytes().to_vec())];
    let secret = [named.as_slice(), &[Attribute::Class(ObjectClass::SECRET_KEY)]].concat();
    match session.find_objects(&secret).map_err(failed)?.as_slice() {
        [key] => Ok(*key),
        [] if session.find_objects(&named).map_err(failed)?.is_empty() => Err(TokenFault::NoKey),
        [] => Err(TokenFault::NotAes256),
        _ => Err(TokenFault::ManyKeys),
    }
}

impl KeyInToken<'_> {
    /// An AES-256 key that may encrypt and decrypt.
    fn check(&self) -> Result<(), TokenFault> {
        let has = |wanted: &[Attribute]| {
            let kinds: Vec<AttributeType> = wanted.iter().map(Attribute::attribute_type).collect();
            let found = self.session.get_attributes(self.handle, &kinds).map_err(failed)?;
            Ok::<bool, TokenFault>(wanted.iter().all(|attribute| found.contains(attribute)))
        };
        if !has(&[Attribute::KeyType(KeyType::AES), Attribute::ValueLen(KEK_BYTES.into())])? {
            return Err(TokenFault::NotAes256);
        }
        if has(&[Attribute::Encrypt(true), Attribute::Decrypt(true)])? {
            Ok(())
        } else {
            Err(TokenFault::MayNotEncrypt)
        }
    }

    /// What makes a token no better than a file.
    pub(super) fn doubts(&self) -> Result<Vec<String>, TokenFault> {
        let asked = [
            AttributeType::Extractable,
            AttributeType::Sensitive,
            AttributeType::NeverExtractable,
            AttributeType::Private,
        ];
        let found = self.session.get_attributes(self.handle, &asked).map_err(failed)?;
        let mut doubts = Vec::new();
        if found.contains(&Attribute::Private(false)) {
            doubts.push(
                "the key can be used without the PIN (CKA_PRIVATE), and some tokens keep such keys in clear; make one that \
                 cannot, as docs/kek.md shows, and rewrap",
            );
        }
        if found.contains(&Attribute::Extractable(true)) || found.contains(&Attribute::Sensitive(false)) {
            doubts.push(
                "the key can be taken out of the token (CKA_EXTRACTABLE, CKA_SENSITIVE); make one that cannot, as docs/kek.md \
                 shows, and rewrap",
            );
        } else if found.contains(&Attribute::NeverExtractable(false)) {
            doubts.push(
                "the key was brought into the token, or could once be taken out (CKA_NEVER_EXTRACTABLE): copies may exist \
                 outside",
            );
        }
        Ok(doubts.into_iter().map(str::to_owned).collect())
    }

    /// Nonce, ciphertext, tag.
    pub(super) fn encrypt(
        &self,
        mut nonce: [u8; NONCE_BYTES],
        bound_to: &[u8],
        clear: &[u8],
    ) -> Result<Vec<u8>, TokenFault> {
        let mechanism = gcm(&mut nonce, bound_to)?;
        let sealed = self.session.encrypt(&mechanism, self.handle, clear).map_err(failed)?;
        if sealed.len() != clear.len() + TAG_BYTES {
            return Err(TokenFault::Untrue);
        }
        // Read after the call: a token that makes its nonces itself puts them where ours was.
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The clear bytes; a failure may mean that these are not what this key encrypted.
    pub(super) fn decrypt(
        &self,
        mut nonce: [u8; NONCE_BYTES],
        bound_to: &[u8],
        sealed: &[u8],
    ) -> Result<SecretBytes, TokenFault> {
        let mechanism = gcm(&mut nonce, bound_to)?;
        let clear = self.session.decrypt(&mechanism, self.handle, sealed).map_err(failed)?;
        Ok(SecretBytes::new(clear))
    }
}

fn gcm<'a>(nonce: &'a mut [u8; NONCE_BYTES], bound_to: &'a [u8]) -> Result<Mechanism<'a>, TokenFault> {
    let bits: u64 = 8 * TAG_BYTES as u64;
    GcmParams::new(nonce, bound_to, bits.into()).map(Mechanism::AesGcm).map_err(failed)
}

/// Names the call and the code, not the standard's long sentence.
#[expect(clippy::needless_pass_by_value, reason = "it ends an error's way, as the argument of map_err")]
fn failed(error: Error) -> TokenFault {
    let Error::Pkcs11(code, call) = &error else { return TokenFault::Failed(one_line(&error)) };
    match (code, call) {
        (RvError::MechanismInvalid, Function::EncryptInit | Function::DecryptInit) => TokenFault::NoMechanism,
        _ => TokenFault::Failed(format!("C_{call:?} answered {code:?}")),
    }
}

fn one_line(error: &Error) -> String {
    error.to_string().replace(char::is_control, " ")
}

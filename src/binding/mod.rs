//! `RawIdentifier` -> [`Candidates`] -> [`BoundAccount`]: the keyed hashes that stand for handsets.
//!
//! [`KeyRing::digest`] takes the clear identifier by value, so nothing after it can read one: [`Candidates`] keep the
//! message that was hashed for the key ring alone, until the look-up is over. [`resolve()`] and the enrolments ask the
//! store; only they make a [`BoundAccount`], which proves that an active account held the
//! binding. The design, its key states and the order of probes are those of `rotation.md` §3. Absent on purpose:
//! SQL, HTTP, and the rotation that moves keys from state to state.

mod account;
mod code;
mod digest;
mod enrol;
mod import;
mod keyring;
mod label;
mod pin;
mod resolve;
mod stretch;

pub use account::{AccountId, AccountIdError, AccountState};
pub use code::EnrolmentCode;
pub use digest::{BindingDigest, BindingId, Chain, ChainError, KeyId};
pub use enrol::{ByConsole, CodeAttempt, EnrolError, enrol_by_code, enrol_by_console, issue_code};
pub use import::{DigestedLine, ImportLine, ImportRefusal};
pub use keyring::{BindingKey, Candidates, DigestError, KeyRing, LiveKeys, LiveKeysError, Wrapping};
pub use label::{Label, LabelError};
pub use pin::{Pin, PinError, PinHasher, RightPin, try_pin};
pub use resolve::{BindingError, BoundAccount, Unproven, Use, resolve};
pub use stretch::{AUTO_STRETCH, StretchOutOfRange, Stretcher};

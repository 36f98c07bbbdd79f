//! One line of an import: `{"account","carrier","identifier"}` with the identifier in clear, as another system kept it.

use std::borrow::Cow;

use serde::Deserialize;
use zeroize::Zeroize as _;

use super::{AccountId, BindingId, Candidates, DigestError, KeyRing};
use crate::carrier::{CarrierName, Carriers, IdentificationRefusal, RawIdentifier};
use crate::entropy::{Entropy, random};
use crate::store::{ImportOutcome, ImportedBinding};

/// A line that was read: a handset, in clear, and whose it is to be.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct ImportLine {
    account: AccountId,
    identifier: RawIdentifier,
}

/// Why a line was not taken. Says nothing of what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportRefusal {
    /// More bytes than a line may have; it was not read.
    LineTooLong,
    /// Not one JSON object that has `account`, `carrier` and `identifier` as texts, and nothing else.
    MalformedLine,
    /// No account id, or one that names a person.
    AccountInvalid,
    /// No profile of that name.
    CarrierUnknown,
    /// The profile does not read it as an identifier that lasts.
    Identifier(IdentificationRefusal),
    /// The handset is bound to another account.
    BoundElsewhere,
    /// The account is suspended.
    AccountSuspended,
    /// The account has its fill of bindings.
    BindingLimit,
    /// The key ring moved at every attempt: run the import again.
    KeyRingMoved,
}

impl ImportRefusal {
    /// The word for JSON and tables, e.g. `malformed-line`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LineTooLong => "line-too-long",
            Self::MalformedLine => "malformed-line",
            Self::AccountInvalid => "account-invalid",
            Self::CarrierUnknown => "carrier-unknown",
            Self::Identifier(refusal) => refusal.reason(),
            Self::BoundElsewhere => "bound-elsewhere",
            Self::AccountSuspended => "account-suspended",
            Self::BindingLimit => "binding-limit",
            Self::KeyRingMoved => "key-ring-moved",
        }
    }

    /// What an outcome says of its line: whether a binding was made, or why the line was not taken.
    ///
    /// # Errors
    /// Every outcome that left the handset unbound to that account.
    pub const fn judge(outcome: ImportOutcome) -> Result<bool, Self> {
        match outcome {
            ImportOutcome::Bound => Ok(true),
            ImportOutcome::AlreadyBound => Ok(false),
            ImportOutcome::BoundElsewhere => Err(Self::BoundElsewhere),
            ImportOutcome::Suspended => Err(Self::AccountSuspended),
            ImportOutcome::BindingLimit => Err(Self::BindingLimit),
            ImportOutcome::Stale => Err(Self::KeyRingMoved),
        }
    }
}

impl ImportLine {
    /// Reads a line. The identifier has to be what the profile's field would hold in a request.
    ///
    /// # Errors
    /// The first [`ImportRefusal`] that applies.
    pub fn read(line: &[u8], carriers: &Carriers) -> Result<Self, ImportRefusal> {
        // An array of three texts would do for the parser.
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err(ImportRefusal::MalformedLine);
        }
        let texts: Texts<'_> = serde_json::from_slice(line).map_err(|_| ImportRefusal::MalformedLine)?;
        let account = AccountId::parse(&texts.account.0).map_err(|_| ImportRefusal::AccountInvalid)?;
        let carrier = CarrierName::parse(&texts.carrier.0).and_then(|name| carriers.profile(&name));
        let profile = carrier.ok_or(ImportRefusal::CarrierUnknown)?;
        let identifier = profile.read_identifier(texts.identifier.0.as_bytes()).map_err(ImportRefusal::Identifier)?;
        Ok(Self { account, identifier })
    }

    /// The handset as the store knows it. By value: from here on only the key ring can read the identifier.
    ///
    /// # Errors
    /// [`DigestError`], for this line as for all that follow.
    pub async fn digest(self, ring: &KeyRing, entropy: &dyn Entropy) -> Result<DigestedLine, DigestError> {
        let candidates = ring.digest_in_bulk(self.identifier).await?;
        Ok(DigestedLine { account: self.account, candidates, id: BindingId::from_random(random(entropy)) })
    }
}

/// A line whose digests were made.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct DigestedLine {
    account: AccountId,
    candidates: Candidates,
    id: BindingId,
}

impl DigestedLine {
    /// The binding to be made.
    #[must_use]
    pub fn binding(&self) -> ImportedBinding {
        let Candidates { carrier, probes, flat: (chain, digest), generation, .. } = &self.candidates;
        ImportedBinding {
            account: self.account.clone(),
            carrier: carrier.clone(),
            probes: probes.clone(),
            digest: digest.clone(),
            chain: chain.clone(),
            generation: *generation,
            id: self.id,
        }
    }

    /// The same line under the keys that came since; as it was where none came.
    ///
    /// # Errors
    /// [`DigestError`], for this line as for all that follow.
    pub async fn again(self, ring: &KeyRing) -> Result<Self, DigestError> {
        let again = ring.again(&self.candidates).await?;
        Ok(Self { candidates: again.unwrap_or(self.candidates), ..self })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts<'l> {
    #[serde(borrow)]
    account: Text<'l>,
    #[serde(borrow)]
    carrier: Text<'l>,
    #[serde(borrow)]
    identifier: Text<'l>,
}

/// A text of the line; one that had escapes is a copy, and wiped. What the parser itself held of it is not, nor are
/// the buffers of the connection.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'l>(#[serde(borrow)] Cow<'l, str>);

impl Drop for Text<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(copy) = &mut self.0 {
            copy.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use static_assertions::assert_not_impl_any;

    use super::*;

    assert_not_impl_any!(ImportLine: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(DigestedLine: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    fn read(line: &[u8]) -> Result<ImportLine, ImportRefusal> {
        ImportLine::read(line, &Carriers::build(&BTreeMap::new()).unwrap().0)
    }

    #[test]
    fn a_line_is_one_object_of_three_texts() {
        for line in [
            r#"{"account":"alice","carrier":"docomo","identifier":"0123abC"}"#,
            "\t{ \"identifier\" : \"0123abC\", \"carrier\":\"docomo\", \"account\":\"alice\" } \r",
            r#"{"account":"al\u0069ce","carrier":"docomo","identifier":"\u00301\u00323abC"}"#,
            r#"{"account":"alice","carrier":"docomo","identifier":" 0123abC "}"#,
        ] {
            let read = read(line.as_bytes()).ok().unwrap();
            assert_eq!(read.account.as_str(), "alice");
            assert_eq!(read.identifier.carrier().as_str(), "docomo");
            assert_eq!(read.identifier.expose(), b"0123abC");
        }
    }

    #[test]
    fn each_wrong_line_has_its_reason() {
        use ImportRefusal::{AccountInvalid, CarrierUnknown, MalformedLine};
        let malformed = ImportRefusal::Identifier(IdentificationRefusal::MalformedIdentifier);
        for (line, expected) in [
            (r#"{"account":"alice","carrier":"docomo"}"#, MalformedLine),
            (r#"{"account":"a","carrier":"docomo","identifier":"0123abC","pin":"1"}"#, MalformedLine),
            (r#"{"account":"a","account":"b","carrier":"docomo","identifier":"0123abC"}"#, MalformedLine),
            (r#"{"account":"a","carrier":"docomo","identifier":1234567}"#, MalformedLine),
            (r#"{"account":"a","carrier":"docomo","identifier":"0123abC"}{}"#, MalformedLine),
            (r#"["a","docomo","0123abC"]"#, MalformedLine),
            ("alice,docomo,0123abC", MalformedLine),
            ("", MalformedLine),
            ("\u{feff}{}", MalformedLine),
            (r#"{"account":"09012345678","carrier":"docomo","identifier":"0123abC"}"#, AccountInvalid),
            (r#"{"account":"","carrier":"docomo","identifier":"0123abC"}"#, AccountInvalid),
            (r#"{"account":"a","carrier":"DoCoMo","identifier":"0123abC"}"#, CarrierUnknown),
            (r#"{"account":"a","carrier":"nobody","identifier":"0123abC"}"#, CarrierUnknown),
            (r#"{"account":"a","carrier":"docomo","identifier":"0123ab"}"#, malformed),
            (r#"{"account":"a","carrier":"docomo","identifier":""}"#, malformed),
            (r#"{"account":"a","carrier":"docomo","identifier":"0123abCx"}"#, malformed),
        ] {
            assert_eq!(read(line.as_bytes()).err(), Some(expected), "{line}");
        }
        assert_eq!(read(b"{\"account\":\"a\xff\"}").err(), Some(MalformedLine));
    }

    #[test]
    fn every_outcome_is_taken_or_has_a_word() {
        use ImportOutcome::{AlreadyBound, Bound, BoundElsewhere, Stale, Suspended};
        let words = [Bound, AlreadyBound, BoundElsewhere, Suspended, ImportOutcome::BindingLimit, Stale]
            .map(|outcome| ImportRefusal::judge(outcome).map_err(ImportRefusal::as_str));
        let refused = ["bound-elsewhere", "account-suspended", "binding-limit", "key-ring-moved"];
        assert_eq!(words[..2], [Ok(true), Ok(false)]);
        assert_eq!(words[2..], refused.map(Err));
    }

    proptest! {
        #[test]
        fn no_line_upsets_the_reader(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line);
        }
    }
}

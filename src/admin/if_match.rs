//! `If-Match` on the revision of the keys: what was looked at is what is changed (RFC 9110 §13.1.1).

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};

use super::refused::Refused;

/// The revision that a caller looked at, where it said one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RevisionMatch {
    /// Nothing was said, or `*`: whatever it is.
    Any,
    /// This one.
    Only(u64),
    /// An entity tag that no revision has.
    Never,
}

impl RevisionMatch {
    /// Reads the field: one entity tag, or `*`. A weak tag matches nothing, as no comparison of `If-Match` is weak.
    pub(super) fn read(fields: &HeaderMap) -> Result<Self, Refused> {
        let mut values = fields.get_all(header::IF_MATCH).iter();
        let Some(value) = values.next() else { return Ok(Self::Any) };
        let text = value.to_str().map_err(|_| Refused::IfMatchInvalid)?.trim();
        if values.next().is_some() {
            return Err(Refused::IfMatchInvalid);
        }
        if text == "*" {
            return Ok(Self::Any);
        }
        let (weak, tag) = text.strip_prefix("W/").map_or((false, text), |tag| (true, tag));
        let opaque = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let opaque = opaque.filter(|opaque| !opaque.contains('"')).ok_or(Refused::IfMatchInvalid)?;
        let revision = opaque.parse().ok().filter(|revision: &u64| !weak && revision.to_string() == opaque);
        Ok(revision.map_or(Self::Never, Self::Only))
    }

    /// The revision that the keys must be at, for whoever compares it in the step that changes them.
    ///
    /// # Errors
    /// [`Refused::RevisionStale`] where none can be.
    pub(super) const fn expected(self) -> Result<Option<u64>, Refused> {
        match self {
            Self::Any => Ok(None),
            Self::Only(revision) => Ok(Some(revision)),
            Self::Never => Err(Refused::RevisionStale),
        }
    }

    /// Whether the keys are still at what the caller looked at.
    ///
    /// # Errors
    /// [`Refused::RevisionStale`] if not.
    pub(super) fn check(self, current: u64) -> Result<(), Refused> {
        match self {
            Self::Any => Ok(()),
            Self::Only(revision) if revision == current => Ok(()),
            Self::Only(_) | Self::Never => Err(Refused::RevisionStale),
        }
    }
}

/// The entity tag of a revision, for `ETag`.
pub(super) fn etag(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or_else(|_| unreachable!("digits in quotes are visible"))
}

impl<S: Sync> FromRequestParts<S> for RevisionMatch {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Self::read(&parts.headers)
    }
}

/// For the description of the API.
impl IntoParams for RevisionMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = ObjectBuilder::new().schema_type(Type::String).examples(["\"12\""]).build();
        let said = "The revision of the keys that was looked at, in quotes; 412 if it is another by now.";
        let field = ParameterBuilder::new().name("If-Match").parameter_in(ParameterIn::Header);
        vec![field.required(Required::False).description(Some(said)).schema(Some(schema)).build()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&[u8]]) -> Option<RevisionMatch> {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(header::IF_MATCH, HeaderValue::from_bytes(value).unwrap());
        }
        RevisionMatch::read(&fields).ok()
    }

    #[test]
    fn one_strong_tag_or_anything_is_read() {
        let most = u64::MAX.to_string();
        for (value, expected) in [
            ("\"0\"", Some(RevisionMatch::Only(0))),
            (" \"12\" ", Some(RevisionMatch::Only(12))),
            (&format!("\"{most}\""), Some(RevisionMatch::Only(u64::MAX))),
            (&format!("\"{most}0\""), Some(RevisionMatch::Never)),
            ("*", Some(RevisionMatch::Any)),
            ("W/\"12\"", Some(RevisionMatch::Never)),
            ("\"012\"", Some(RevisionMatch::Never)),
            ("\"+12\"", Some(RevisionMatch::Never)),
            ("\"\"", Some(RevisionMatch::Never)),
            ("\"abc\"", Some(RevisionMatch::Never)),
            ("12", None),
            ("", None),
            ("\"", None),
            ("\"12", None),
            ("\"1\", \"2\"", None),
            ("w/\"12\"", None),
        ] {
            assert_eq!(read(&[value.as_bytes()]), expected, "{value}");
        }
        assert_eq!(read(&[]), Some(RevisionMatch::Any));
        assert_eq!(read(&[b"\"1\"", b"\"1\""]), None);
        assert_eq!(read(&[b"\"\xff\""]), None);
    }

    #[test]
    fn only_the_revision_that_was_looked_at_passes() {
        assert!(RevisionMatch::Any.check(3).is_ok());
        assert!(RevisionMatch::Only(3).check(3).is_ok());
        assert!(matches!(RevisionMatch::Only(2).check(3), Err(Refused::RevisionStale)));
        assert!(matches!(RevisionMatch::Never.check(3), Err(Refused::RevisionStale)));
        assert_eq!(etag(3), "\"3\"");
    }
}

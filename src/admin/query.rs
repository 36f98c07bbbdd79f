//! Query parameters: each known, and there once.

use std::collections::BTreeMap;

use super::refused::Refused;

/// The parameters of a query, decoded, of those in `names`.
///
/// # Errors
/// [`Refused::ParameterInvalid`] where one is unknown or there twice.
pub(super) fn parameters(
    query: Option<&str>,
    names: &[&'static str],
) -> Result<BTreeMap<&'static str, String>, Refused> {
    let mut found = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let known = names.iter().find(|known| **known == name);
        let known = *known.ok_or(Refused::ParameterInvalid("of this request"))?;
        if found.insert(known, value.into_owned()).is_some() {
            return Err(Refused::ParameterInvalid(known));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_known_and_there_once() {
        let read = |query| parameters(query, &["from", "to"]).ok();
        assert_eq!(read(None), Some(BTreeMap::new()));
        assert_eq!(read(Some("fr%6fm=a+b")), Some(BTreeMap::from([("from", "a b".to_owned())])));
        for query in ["from=a&from=a", "from=a&%66rom=b", "other=1", "From=a"] {
            assert_eq!(read(Some(query)), None, "{query}");
        }
    }
}

//! Forms as a handset sends them: urlencoded in the charset of their page.

use encoding_rs::{Encoding, UTF_8};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

/// `fields` as `application/x-www-form-urlencoded`, in `charset` (UTF-8 if it is not known).
///
/// A character that the charset lacks becomes a numeric reference, as browsers do (WHATWG Encoding §4.2).
pub(super) fn urlencoded(fields: &[(String, String)], charset: &str) -> String {
    let encoding = Encoding::for_label(charset.as_bytes()).unwrap_or(UTF_8);
    let text = |part: &str| percent_encode(&encoding.encode(part).0, NON_ALPHANUMERIC).to_string();
    fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leaves_in_the_charset_of_its_page() {
        let fields = [("code".to_owned(), "１2 3".to_owned()), ("to".to_owned(), "/a&b".to_owned())];
        assert_eq!(urlencoded(&fields, "Shift_JIS"), "code=%82P2%203&to=%2Fa%26b");
        assert_eq!(urlencoded(&fields, "utf-8"), "code=%EF%BC%912%203&to=%2Fa%26b");
        assert_eq!(urlencoded(&fields, ""), urlencoded(&fields, "utf-8"));
    }
}

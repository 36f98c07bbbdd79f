//! Handset and card serials in User-Agent strings: found and cut out.
//!
//! docomo writes `ser` with 15 characters (FOMA) or 11 (mova) and `icc` with 20; SoftBank writes `/SN` with 11 (PDC)
//! or 15 (3GC), its PC-site browser `;SN`. They are cut wherever they stand as whole words, so that a relay's prefix does not carry one past us.

/// The string without serials and their separators; `None` where it has none.
pub(crate) fn without_serials(text: &[u8]) -> Option<Vec<u8>> {
    // Most strings have none, and every request has a string: nothing is copied before one is seen.
    let mut words = text.split(|b| !b.is_ascii_alphanumeric());
    if !words.any(|word| [&b"SN"[..], b"ser", b"icc"].iter().any(|prefix| word.starts_with(prefix))) {
        return None;
    }
    let mut kept: Vec<u8> = Vec::with_capacity(text.len());
    let mut found = false;
    let mut rest = text;
    while !rest.is_empty() {
        let length = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        let serial = kept.last().is_some_and(|before| is_serial(*before, word));
        rest = after;
        if serial {
            found = true;
            if kept.ends_with(b"(") {
                // The first item of a list takes the separator behind it along.
                rest = rest.strip_prefix(b";").unwrap_or(rest);
            } else {
                let separator = if kept.ends_with(b"; ") { 2 } else { 1 };
                kept.truncate(kept.len() - separator);
            }
        } else {
            kept.extend_from_slice(word);
            if let Some((separator, after)) = rest.split_first() {
                kept.push(*separator);
                rest = after;
            }
        }
    }
    found.then_some(kept)
}

fn is_serial(before: u8, word: &[u8]) -> bool {
    let behind = |prefix: &[u8]| word.strip_prefix(prefix).map(<[u8]>::len);
    let docomo = || matches!(behind(b"ser"), Some(11 | 15)) || behind(b"icc") == Some(20);
    match before {
        b'/' => behind(b"SN").is_some_and(|n| n > 0) || docomo(),
        b';' | b'(' => behind(b"SN").is_some_and(|n| n >= 11) || docomo(),
        // Relays write lists with spaces; so do sentences, in which a word of that length has no digit.
        b' ' => docomo() && word.iter().any(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_go_with_one_separator() {
        for (text, redacted) in [
            ("DoCoMo/1.0/P503i/c10/serNMABH200331", "DoCoMo/1.0/P503i/c10"),
            (
                "DoCoMo/2.0 P903i(c100;ser000000000000000;TB;icc0000000000000000000F;W24H12)",
                "DoCoMo/2.0 P903i(c100;TB;W24H12)",
            ),
            ("DoCoMo/2.0 P903i(ser000000000000000;icc0000000000000000000F;c100)", "DoCoMo/2.0 P903i(c100)"),
            ("DoCoMo/2.0 P903i(icc0000000000000000000F)", "DoCoMo/2.0 P903i()"),
            ("J-PHONE/4.0/J-SH51/SN00000000000 SH/0001aa", "J-PHONE/4.0/J-SH51 SH/0001aa"),
            ("x SoftBank/1.0/910T/TJ001/SN000000000000000", "x SoftBank/1.0/910T/TJ001"),
            (
                "Mozilla/4.08 (911T;SoftBank;SN000000000000000) NetFront/3.3",
                "Mozilla/4.08 (911T;SoftBank) NetFront/3.3",
            ),
            ("Mozilla/4.0 (compatible; relay; ser000000000000000)", "Mozilla/4.0 (compatible; relay)"),
            ("Mozilla/4.08 (N905i;FOMA;c300;TB;ser000000000000000)", "Mozilla/4.08 (N905i;FOMA;c300;TB)"),
        ] {
            assert_eq!(without_serials(text.as_bytes()).as_deref(), Some(redacted.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_only_looks_alike_stays() {
        for text in [
            "KDDI-SN26 UP.Browser/6.2.0.6.2 (GUI) MMP/2.0",
            "UP.Browser/3.04-SN11 UP.Link/3.4.4",
            "J-PHONE/4.0/J-SH51/SN SH/0001aa",
            "DoCoMo/2.0 P903i(c100;TB;ser00000000000000;icc0000000000000000000)",
            "Mozilla/5.0 (X11; servercontrols) services of/ser SN000000000000000",
            "",
        ] {
            assert_eq!(without_serials(text.as_bytes()), None, "{text}");
        }
    }
}

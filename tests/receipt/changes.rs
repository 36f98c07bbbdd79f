//! Every byte of a receipt, changed.

use super::{Bench, names, verify};

/// Where each member of the outermost object begins, with its name.
fn members(document: &str) -> Vec<(usize, String)> {
    let (mut depth, mut in_text, mut escaped, mut begins) = (0, false, false, None);
    let mut found = Vec::new();
    for (at, byte) in document.bytes().enumerate() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            if let (false, Some(start)) = (in_text, begins.take_if(|_| !in_text)) {
                found.push((start, document[start + 1..at].to_owned()));
            }
            continue;
        }
        match byte {
            b'"' => {
                in_text = true;
                let after_brace_or_comma = matches!(document.as_bytes()[at - 1], b'{' | b',');
                begins = (depth == 1 && after_brace_or_comma).then_some(at);
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    found
}

#[tokio::test]
async fn every_changed_byte_is_found_and_its_member_named() {
    let bench = Bench::new().await;
    let receipt = bench.receipt().await;
    let members = members(&receipt);
    assert_eq!(members.len(), 15, "{members:?}");
    let mut unnamed = Vec::new();
    for at in 0..receipt.len() {
        // The member that the byte is in, and the one before it: what stands between two belongs to neither.
        let before = members.iter().rposition(|(start, _)| *start <= at).unwrap_or(0);
        let around: Vec<&str> =
            members[before.saturating_sub(1)..=before].iter().map(|(_, name)| name.as_str()).collect();
        let old = receipt.as_bytes()[at];
        // Most bytes are hexadecimal digits, of which one change is as good as another.
        let news: &[u8] =
            if old.is_ascii_alphanumeric() { &[old ^ 1] } else { &[old ^ 1, old ^ 0x10, b'"', b' ', b'0'] };
        for &new in news.iter().filter(|new| **new != old) {
            let mut changed = receipt.clone().into_bytes();
            changed[at] = new;
            let verdict = verify(&changed, &[]);
            let a_brace_of_the_document = at == 0 || at + 1 == receipt.len();
            let named = around.iter().any(|member| names(&verdict, member));
            let named = named || (a_brace_of_the_document && names(&verdict, "the document"));
            if !named {
                let context = &receipt[at.saturating_sub(20)..(at + 20).min(receipt.len())];
                unnamed.push(format!("byte {at} to {new:#x} near {context}: {:?}", verdict.problems));
            }
        }
    }
    assert!(unnamed.is_empty(), "{} changes, such as\n{}", unnamed.len(), unnamed[..unnamed.len().min(20)].join("\n"));
}

#[tokio::test]
async fn no_prefix_and_nothing_more_verifies() {
    let bench = Bench::new().await;
    let receipt = bench.receipt().await;
    for length in 0..receipt.len() {
        assert!(!verify(&receipt.as_bytes()[..length], &[]).ok, "{length} bytes");
    }
    for more in [" ", "\n\n", "{}", "\0", "\r\n"] {
        assert!(!verify(format!("{receipt}{more}").as_bytes(), &[]).ok, "{more:?}");
    }
    for (what, name) in
        [("{\"seal\":1,", "seal"), ("{\"extra\":{\"a\":1},", "extra.a"), ("{\"counts.total\":30,", "counts.total")]
    {
        let verdict = verify(receipt.replacen('{', what, 1).as_bytes(), &[]);
        assert!(names(&verdict, name), "{verdict:?}");
    }
    assert!(!verify(&vec![b' '; 2 << 20], &[]).ok);
}

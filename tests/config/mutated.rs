//! Whatever the text is, the answer is a configuration or findings, never a panic.

use std::path::Path;

use proptest::prelude::*;
use sekisho::config::parts;

const GOOD: &str = include_str!("../data/config/good-everything.toml");

/// Byte offsets at which the text may be cut.
fn boundary(at: usize) -> usize {
    (0..=at.min(GOOD.len())).rev().find(|at| GOOD.is_char_boundary(*at)).unwrap_or(0)
}

fn judge(text: &str) -> Result<(), TestCaseError> {
    let Err(findings) = parts(text, Path::new("x.toml")) else { return Ok(()) };
    prop_assert!(!findings.is_empty());
    for finding in findings {
        prop_assert!((1..=text.lines().count().max(1) + 1).contains(&finding.line), "{}", finding);
        prop_assert!(!finding.to_string().contains('\n'), "{}", finding);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_piece_replaced(at in 0..GOOD.len(), length in 0_usize..60, with in "[ -~\n]{0,20}|true|-1|\"\"|\\[\\]|\\{\\}|1979-05-27") {
        let (start, end) = (boundary(at), boundary(at + length));
        judge(&format!("{}{with}{}", &GOOD[..start], &GOOD[end..]))?;
    }

    #[test]
    fn a_value_replaced(line in 0..GOOD.lines().count(), with in "true|-1|1e9|\"[ -~&&[^\"\\\\]]{0,12}\"|\\[1, \\{\\}\\]|\\{ a = 1 \\}|1979-05-27|99999999999999999999") {
        let replace = |(at, l): (usize, &str)| match l.split_once('=') {
            Some((key, _)) if at == line => format!("{key}= {with}"),
            _ => l.to_owned(),
        };
        let text: Vec<String> = GOOD.lines().enumerate().map(replace).collect();
        judge(&text.join("\n"))?;
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        judge(&text)?;
    }
}

//! The grammar of an identifier: which values are one, which parts of it are hashed, how many there can be.

use std::collections::BTreeMap;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind, Look};
use thiserror::Error;

/// Bytes that a compiled grammar may take.
const COMPILED_BYTES: usize = 1 << 20;

/// Identifier spaces below 2^80 can be tried out by who has the key.
const SMALL_SPACE_BITS: f64 = 80.0;

/// What is wrong with a grammar or its parts. Messages say what to do.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum GrammarError {
    #[error("is not a regular expression of Rust's regex crate, or compiles to more than 1 MiB: simplify it")]
    Expression,
    #[error("must match the whole value: begin it with ^ and end it with $, around a group if it has alternatives")]
    NotAnchored,
    #[error("names {0:?}, which is no named group of the grammar: write (?P<{0}>…) there")]
    UnknownGroup(String),
    #[error("names {0:?} twice")]
    RepeatedPart(String),
    #[error("has more than one part of varying length, so two handsets could join to one identifier: fix the lengths")]
    VaryingParts,
}

/// A compiled grammar.
pub(super) struct Grammar {
    regex: Regex,
    /// Group numbers; empty: the whole value.
    parts: Vec<usize>,
    /// Group number -> the values that make an identifier transient.
    transient: Vec<(usize, Vec<Vec<u8>>)>,
    small_space: bool,
}

/// Why a value is no identifier.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ValueError {
    Malformed,
    Transient,
}

impl Grammar {
    /// Errors come with the key they are about.
    pub(super) fn new(
        expression: &str,
        parts: &[String],
        transient: &BTreeMap<String, Vec<String>>,
    ) -> Result<Self, Vec<(&'static str, GrammarError)>> {
        let compiled = RegexBuilder::new(expression).size_limit(COMPILED_BYTES).build();
        let parsed = regex_syntax::ParserBuilder::new().utf8(false).build().parse(expression);
        let (Ok(regex), Ok(hir)) = (compiled, parsed) else {
            return Err(vec![("grammar", GrammarError::Expression)]);
        };
        let mut errors = Vec::new();
        let properties = hir.properties();
        if !properties.look_set_prefix().contains(Look::Start) || !properties.look_set_suffix().contains(Look::End) {
            errors.push(("grammar", GrammarError::NotAnchored));
        }
        let number = |name: &str| regex.capture_names().position(|group| group == Some(name));
        let mut groups = Vec::new();
        for name in parts {
            match number(name) {
                None => errors.push(("identifier_parts", GrammarError::UnknownGroup(name.clone()))),
                Some(n) if groups.contains(&n) => {
                    errors.push(("identifier_parts", GrammarError::RepeatedPart(name.clone())));
                }
                Some(n) => groups.push(n),
            }
        }
        let part_hirs: Vec<&Hir> = groups.iter().filter_map(|n| group(&hir, *n)).collect();
        if part_hirs.iter().filter(|part| varies(part)).count() > 1 {
            errors.push(("identifier_parts", GrammarError::VaryingParts));
        }
        let mut refused = Vec::new();
        for (name, values) in transient {
            match number(name) {
                None => errors.push(("refuse_parts", GrammarError::UnknownGroup(name.clone()))),
                Some(n) => refused.push((n, values.iter().map(|v| v.clone().into_bytes()).collect())),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let bits: f64 =
            if part_hirs.is_empty() { least_bits(&hir) } else { part_hirs.iter().map(|part| least_bits(part)).sum() };
        Ok(Self { regex, parts: groups, transient: refused, small_space: bits < SMALL_SPACE_BITS })
    }

    /// The parts of a trimmed value that make the identifier.
    pub(super) fn read<'v>(&self, value: &'v [u8]) -> Result<Vec<&'v [u8]>, ValueError> {
        if self.parts.is_empty() && self.transient.is_empty() {
            return if self.regex.is_match(value) { Ok(vec![value]) } else { Err(ValueError::Malformed) };
        }
        let groups = self.regex.captures(value).ok_or(ValueError::Malformed)?;
        let says =
            |n: usize, refused: &[Vec<u8>]| groups.get(n).is_some_and(|g| refused.iter().any(|r| r == g.as_bytes()));
        if self.transient.iter().any(|(n, refused)| says(*n, refused)) {
            return Err(ValueError::Transient);
        }
        if self.parts.is_empty() {
            return Ok(vec![value]);
        }
        // A part that is not there would let two different values join alike.
        let part = |n: &usize| groups.get(*n).map(|g| g.as_bytes()).ok_or(ValueError::Malformed);
        self.parts.iter().map(part).collect()
    }

    /// Whether the identifier space is under 2^80, or may be.
    pub(super) const fn small_space(&self) -> bool {
        self.small_space
    }
}

/// The expression inside the `number`-th group.
fn group(hir: &Hir, number: usize) -> Option<&Hir> {
    match hir.kind() {
        HirKind::Capture(capture) if usize::try_from(capture.index) == Ok(number) => Some(&capture.sub),
        HirKind::Capture(capture) => group(&capture.sub, number),
        HirKind::Repetition(repetition) => group(&repetition.sub, number),
        HirKind::Concat(subs) | HirKind::Alternation(subs) => subs.iter().find_map(|sub| group(sub, number)),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => None,
    }
}

fn varies(part: &Hir) -> bool {
    part.properties().minimum_len() != part.properties().maximum_len() || part.properties().maximum_len().is_none()
}

/// Bits of choice that every value of the language has at least: repetitions at their minimum, the poorest branch,
/// only printable ASCII. In doubt an identifier is stretched for nothing, which costs a moment; the other way round
/// it could be found by trying.
fn least_bits(hir: &Hir) -> f64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Look(_) => 0.0,
        HirKind::Class(class) => f64::from(printable(class).max(1)).log2(),
        HirKind::Repetition(repetition) => f64::from(repetition.min) * least_bits(&repetition.sub),
        HirKind::Capture(capture) => least_bits(&capture.sub),
        HirKind::Concat(subs) => subs.iter().map(least_bits).sum(),
        HirKind::Alternation(subs) => subs.iter().map(least_bits).fold(f64::INFINITY, f64::min),
    }
}

fn printable(class: &Class) -> u32 {
    let within = |from: u32, to: u32| (to.min(0x7e) + 1).saturating_sub(from.max(0x21));
    match class {
        Class::Unicode(class) => class.ranges().iter().map(|r| within(r.start().into(), r.end().into())).sum(),
        Class::Bytes(class) => class.ranges().iter().map(|r| within(r.start().into(), r.end().into())).sum(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grammar(expression: &str, parts: &[&str]) -> Result<Grammar, Vec<(&'static str, GrammarError)>> {
        let parts: Vec<String> = parts.iter().map(|p| (*p).to_owned()).collect();
        Grammar::new(expression, &parts, &BTreeMap::new())
    }

    fn problem(expression: &str, parts: &[&str]) -> Option<GrammarError> {
        grammar(expression, parts).err().and_then(|mut errors| errors.pop()).map(|(_, error)| error)
    }

    #[test]
    fn only_anchored_grammars_of_bounded_size_compile() {
        for ok in ["^[a-z]{4}$", "^(?:a|b)$", r"\A[0-9]+\z", "^(?P<a>x)$"] {
            assert_eq!(problem(ok, &[]), None, "{ok}");
        }
        for loose in ["[a-z]{4}", "^[a-z]{4}", "[a-z]{4}$", "^a|b$", "(?m)^a$", "^a$|b", ""] {
            assert_eq!(problem(loose, &[]), Some(GrammarError::NotAnchored), "{loose}");
        }
        for bad in ["^(", "^[a-z]{1000}{1000}{1000}$", "^(?=a)$", r"^(.)\1$"] {
            assert_eq!(problem(bad, &[]), Some(GrammarError::Expression), "{bad}");
        }
    }

    #[test]
    fn parts_are_named_groups_of_which_at_most_one_varies() {
        let expression = "^(?P<a>[a-z]{2})(?P<b>[a-z]+)(?P<c>[0-9]*)$";
        assert_eq!(problem(expression, &["a", "b"]), None);
        assert_eq!(problem(expression, &["b", "c"]), Some(GrammarError::VaryingParts));
        let bounded = "^(?P<a>[a-z]{1,2})(?P<b>[a-z]{1,2})$";
        assert_eq!(problem(bounded, &["a", "b"]), Some(GrammarError::VaryingParts));
        assert_eq!(problem(expression, &["d"]), Some(GrammarError::UnknownGroup("d".into())));
        assert_eq!(problem(expression, &["a", "a"]), Some(GrammarError::RepeatedPart("a".into())));
        assert_eq!(grammar("^(?P<a>x)?y$", &["a"]).unwrap().read(b"y"), Err(ValueError::Malformed));
    }

    #[test]
    fn spaces_under_80_bits_are_small() {
        for (expression, parts, small) in [
            ("^[0-9A-Za-z]{7}$", &[][..], true),
            (r"^[0-9]{14}_[a-z][a-z0-9]\.ezweb\.ne\.jp$", &[], true),
            ("^[0-9A-Za-z]{13}$", &[], true),
            ("^[0-9A-Za-z]{14}$", &[], false),
            ("^[A-Za-z0-9_-]{22,64}$", &[], false),
            ("^[0-9a-f]{32}$", &[], false),
            ("^.+$", &[], true),
            (r"^\w{13,}$", &[], true),
            ("^(?:[0-9]{11}|[0-9a-f]{64})$", &[], true),
            ("^(?P<t>[0-9]{40})(?P<id>[0-9]{11})$", &["id"], true),
            ("^(?P<t>[0-9]{3})(?P<id>[0-9a-f]{20})$", &["id"], false),
        ] {
            assert_eq!(grammar(expression, parts).unwrap().small_space(), small, "{expression}");
        }
    }

    proptest! {
        #[test]
        fn distinct_parts_join_to_distinct_octets(
            a in ("[0-9]{3}", "[a-z0-9]{0,5}", "[0-9]{2}"),
            b in ("[0-9]{3}", "[a-z0-9]{0,5}", "[0-9]{2}"),
        ) {
            let grammar = grammar("^(?P<a>[0-9]{3})(?P<b>[a-z0-9]*)-(?P<c>[0-9]{2})$", &["a", "b", "c"]).unwrap();
            let join = |(a, b, c): &(String, String, String)| {
                grammar.read(format!("{a}{b}-{c}").as_bytes()).unwrap().concat()
            };
            prop_assert_eq!(join(&a) == join(&b), a == b);
        }
    }
}

//! TOML text -> every key with its line, and the raw shapes, with all their findings at once.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::finding::Report;

/// Wrong keys that are reported at most; beyond that the file is something else.
const MOST_SHAPE_FINDINGS: usize = 100;

/// How alike two keys must be (Jaro-Winkler) for one to be taken as a slip of the other.
const NEAR: f64 = 0.8;

/// A parsed document.
pub(super) struct Document<'i> {
    root: Spanned<DeTable<'i>>,
}

/// Key path -> line, from 1.
#[derive(Clone, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

/// A place in the text that the TOML grammar does not allow.
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) problem: String,
}

impl<'i> Document<'i> {
    /// Reads TOML; in an error, at most one finding a line.
    pub(super) fn parse(text: &'i str) -> Result<(Self, Lines), Vec<SyntaxError>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let document = Self { root };
            let lines = document.lines(text);
            return Ok((document, lines));
        }
        let mut found: Vec<SyntaxError> = Vec::new();
        for error in errors {
            let offset = error.span().map_or(text.len(), |span| span.start);
            let line = line_at(text, offset);
            if found.iter().all(|earlier| earlier.line != line) {
                // The parser's messages are fixed sentences; they quote nothing of the text.
                found.push(SyntaxError { line, key: key_near(text, line), problem: one_line(error.message()) });
            }
        }
        Err(found)
    }

    /// Reads the raw shapes. A key that does not fit is reported and taken out, so that the next one is found too.
    pub(super) fn shape<T: DeserializeOwned + Default>(&self, report: &mut Report) -> T {
        let mut root = self.root.clone();
        for _ in 0..MOST_SHAPE_FINDINGS {
            let error = match serde_path_to_error::deserialize(Deserializer::from(root.clone())) {
                Ok(raw) => return raw,
                Err(error) => error,
            };
            let path = steps(error.path());
            let Some((key, value)) = find(root.get_ref(), &path) else { break };
            report.error(&key, problem(error.inner().message(), &key, value));
            if !remove(root.get_mut(), &path) {
                break;
            }
        }
        T::default()
    }

    /// Calls `visit` for every key and array element: key path, the same with `[]` for every index, value.
    pub(super) fn walk(&self, visit: &mut impl FnMut(&str, &str, &DeValue<'_>)) {
        walk_table(self.root.get_ref(), "", "", &mut |key, pattern, _, value| visit(key, pattern, value.get_ref()));
    }

    fn lines(&self, text: &str) -> Lines {
        let starts: Vec<usize> = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        let mut lines = BTreeMap::new();
        walk_table(self.root.get_ref(), "", "", &mut |key, _, offset, _| {
            lines.insert(key.to_owned(), starts.partition_point(|newline| *newline < offset) + 1);
        });
        Lines(lines)
    }
}

impl Lines {
    /// The line of `key`, else of the nearest table around it, else 1.
    pub(super) fn of(&self, mut key: &str) -> usize {
        loop {
            if let Some(line) = self.0.get(key) {
                return *line;
            }
            match key.rfind(['.', '[']).and_then(|end| key.get(..end)) {
                Some(outer) => key = outer,
                None => return 1,
            }
        }
    }
}

/// `parent.key`; a key that is not bare is quoted and escaped.
pub(super) fn join(parent: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

/// One step down the document.
enum Step {
    Key(String),
    Index(usize),
}

type Visit<'v> = dyn FnMut(&str, &str, usize, &Spanned<DeValue<'_>>) + 'v;

fn walk_table(table: &DeTable<'_>, key: &str, pattern: &str, visit: &mut Visit<'_>) {
    for (name, value) in table {
        let (key, pattern) = (join(key, name.get_ref()), join(pattern, name.get_ref()));
        visit(&key, &pattern, name.span().start, value);
        walk_value(value.get_ref(), &key, &pattern, visit);
    }
}

fn walk_value(value: &DeValue<'_>, key: &str, pattern: &str, visit: &mut Visit<'_>) {
    if let Some(table) = value.as_table() {
        walk_table(table, key, pattern, visit);
    }
    for (index, element) in value.as_array().into_iter().flat_map(|array| array.iter().enumerate()) {
        let (key, pattern) = (format!("{key}[{index}]"), format!("{pattern}[]"));
        visit(&key, &pattern, element.span().start, element);
        walk_value(element.get_ref(), &key, &pattern, visit);
    }
}

fn steps(path: &Path) -> Vec<Step> {
    let step = |segment: &Segment| match segment {
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().map_while(step).collect()
}

/// The key path and value at `path`, or at the deepest step of it that is there; `None` for an empty path.
fn find<'d, 'i>(root: &'d DeTable<'i>, path: &[Step]) -> Option<(String, &'d DeValue<'i>)> {
    let mut found: Option<(String, &DeValue<'i>)> = None;
    for step in path {
        let next = match (step, &found) {
            (Step::Key(name), None) => root.get(name.as_str()).map(|value| (join("", name), value)),
            (Step::Key(name), Some((key, value))) => {
                value.as_table().and_then(|t| t.get(name.as_str())).map(|value| (join(key, name), value))
            }
            (Step::Index(index), Some((key, value))) => {
                value.as_array().and_then(|a| a.get(*index)).map(|value| (format!("{key}[{index}]"), value))
            }
            (Step::Index(_), None) => None,
        };
        match next {
            Some((key, value)) => found = Some((key, value.get_ref())),
            None => break,
        }
    }
    found
}

/// Takes out the innermost key of `path` that is there. An array goes as a whole: the indices of what stays must not move.
fn remove(root: &mut DeTable<'_>, path: &[Step]) -> bool {
    let Some((Step::Key(name), rest)) = path.split_first() else { return false };
    let Some(value) = root.get_mut(name.as_str()) else { return false };
    remove_below(value.get_mut(), rest) || root.remove(name.as_str()).is_some()
}

fn remove_below(value: &mut DeValue<'_>, path: &[Step]) -> bool {
    match (value, path.split_first()) {
        (DeValue::Table(table), Some((Step::Key(_), _))) => remove(table, path),
        (DeValue::Array(array), Some((Step::Index(index), rest))) => {
            array.get_mut(*index).is_some_and(|element| remove_below(element.get_mut(), rest))
        }
        _ => false,
    }
}

/// What to say of a key that does not fit. Built from the kind of value and from what we expected, never from the
/// deserializer's sentence as a whole: that one quotes the value.
fn problem(message: &str, key: &str, value: &DeValue<'_>) -> String {
    let expected = message.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field") {
        let written = key.rsplit('.').next().unwrap_or(key);
        return format!(
            "unknown key; {}",
            near(written, &names).unwrap_or_else(|| format!("known here: {}", names.join(", ")))
        );
    }
    if message.starts_with("unknown variant") {
        let hint = value.as_str().and_then(|written| near(written, &names));
        return hint.map_or_else(
            || format!("must be one of {}", quoted(&names)),
            |hint| format!("must be one of {}; {hint}", quoted(&names)),
        );
    }
    let wanted = match expected {
        // A choice of words says nothing of what it expects.
        "a string" | "" => "text in quotes",
        "i64" if matches!(value, DeValue::Integer(_)) => "a smaller one",
        "i64" => "a whole number",
        "a boolean" => "true or false, without quotes",
        "a sequence" => "a list in [ ]",
        "a map" => "a table",
        other => other,
    };
    format!("is {}, must be {wanted}", kind(value))
}

fn near(written: &str, names: &[&str]) -> Option<String> {
    let scored = names.iter().map(|name| (strsim::jaro_winkler(written, name), name));
    let (score, name) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score >= NEAR).then(|| format!("did you mean {name}?"))
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The line, from 1, of a byte offset.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// The key path of a line that cannot be parsed: the table header above it, and the name before `=` if it looks like one
/// of ours (letters and `_` only; a pasted secret does not).
fn key_near(text: &str, line: usize) -> String {
    let mut table = String::new();
    let mut arrays: BTreeMap<&str, usize> = BTreeMap::new();
    for header in text.lines().take(line).filter_map(|l| l.trim().strip_prefix('[')) {
        let (name, array) = header.strip_prefix('[').map_or((header, false), |inner| (inner, true));
        let name = name.split(']').next().unwrap_or_default().trim();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
            continue;
        }
        name.clone_into(&mut table);
        if array {
            let count = arrays.entry(name).and_modify(|count| *count += 1).or_insert(0);
            table = format!("{name}[{count}]");
        }
    }
    let name =
        text.lines().nth(line.saturating_sub(1)).and_then(|l| l.split_once('=')).map_or("", |(name, _)| name.trim());
    let looks_ours = !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match (table.is_empty(), looks_ours) {
        (_, true) => join(&table, name),
        (false, false) => table,
        (true, false) => "(syntax)".to_owned(),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_line() {
        let text = "a = 1\n[t]\nlist = [\n  1,\n  { x = 2 },\n]\n[[s]]\n[[s]]\n\"o.d\\n\" = 3\n";
        let Ok((_, lines)) = Document::parse(text) else { panic!("this is TOML") };
        for (key, line) in [
            ("a", 1),
            ("t", 2),
            ("t.list", 3),
            ("t.list[0]", 4),
            ("t.list[1].x", 5),
            ("s", 7),
            ("s[1]", 8),
            ("s[1].\"o.d\\n\"", 9),
            ("t.missing.deeper", 2),
            ("s[1].missing", 8),
            ("nowhere.at[0].all", 1),
        ] {
            assert_eq!(lines.of(key), line, "{key}");
        }
    }

    #[test]
    fn the_key_of_a_broken_line_is_guessed_only_from_names() {
        let text = "[[listener]]\nx = 1\n[[listener]]\nserves = y\nc2VjcmV0=y\n [ limits ] # z\nabc\n";
        for (line, key) in [(2, "listener[0].x"), (4, "listener[1].serves"), (5, "listener[1]"), (7, "limits")] {
            assert_eq!(key_near(text, line), key, "{line}");
        }
        assert_eq!(key_near("c2VjcmV0=", 1), "(syntax)");
    }
}

//! Canonical JSON (RFC 8785) of the part of JSON that receipts use, and its strict reading.
//!
//! The part: `null`, booleans, integers that every reader holds exactly (±(2⁵³-1)), texts, lists, objects that have each
//! name once. No fractions, because their text form is the one part of RFC 8785 that readers get wrong.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The largest integer that a double holds exactly with all its neighbours (RFC 8785 §3.2.2.3, RFC 7493 §2.2).
const MOST: u64 = (1 << 53) - 1;

/// A document that is no receipt at all, and where that shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// The members that were being read, or were read last: the outermost first.
    pub(super) path: Vec<String>,
    /// The names at the top, as far as it was read.
    pub(super) seen: Vec<String>,
    /// What is wrong, with line and column.
    pub(super) what: String,
}

/// Reads one object and nothing behind it but a line's end.
pub(super) fn read(document: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    let document = document.strip_suffix(b"\n").unwrap_or(document);
    // White space around it would be the one byte that could change unseen.
    if !matches!(document, [b'{', .., b'}']) {
        let what = "it does not begin and end with a brace".to_owned();
        return Err(Unreadable { path: Vec::new(), seen: Vec::new(), what });
    }
    let place = RefCell::new(Place::default());
    let mut source = serde_json::Deserializer::from_slice(document);
    let outcome = Strict(&place).deserialize(&mut source);
    let failed = |what: String| {
        let Place { path, seen } = place.take();
        Unreadable { path, seen, what }
    };
    match outcome.map_err(|error| failed(error.to_string()))? {
        Value::Object(members) => {
            place.borrow_mut().path.clear();
            source.end().map_err(|error| failed(error.to_string()))?;
            Ok(members)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(failed("this is no JSON object".to_owned()))
        }
    }
}

/// The one text form of `value`.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        // serde_json escapes what RFC 8785 §3.2.2.2 escapes, and in the same way.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            for (at, (name, member)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(&Value::String(name.clone()), out);
                out.push(':');
                write(member, out);
            }
            out.push('}');
        }
    }
}

/// Where the reading is.
#[derive(Default)]
struct Place {
    path: Vec<String>,
    seen: Vec<String>,
}

/// A name that stands in a file which anybody may have written: without what a terminal would obey, and not too long.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

/// Reads a value and keeps the path to what it is reading, or has just read, also when it fails there.
#[derive(Clone, Copy)]
struct Strict<'p>(&'p RefCell<Place>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, an integer, a text, a list or an object")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        if value <= MOST { Ok(value.into()) } else { Err(E::custom("an integer beyond 2^53-1")) }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() <= MOST { Ok(value.into()) } else { Err(E::custom("an integer beyond 2^53-1")) }
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("a number that is no integer"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = source.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        let depth = self.0.borrow().path.len();
        while let Some(name) = source.next_key::<String>()? {
            {
                let mut place = self.0.borrow_mut();
                place.path.truncate(depth);
                place.path.push(name.clone());
                if depth == 0 {
                    place.seen.push(name.clone());
                }
            }
            if members.contains_key(&name) {
                return Err(A::Error::custom("this name stands twice"));
            }
            let member = source.next_value_seed(self)?;
            // What is left of it on the path names it, should the next byte be wrong.
            self.0.borrow_mut().path.truncate(depth + 1);
            members.insert(name, member);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn problem(document: &str) -> (String, String) {
        let Unreadable { path, what, .. } = read(document.as_bytes()).unwrap_err();
        (path.join("."), what)
    }

    #[test]
    fn the_text_form_is_that_of_rfc_8785() {
        // §3.2.3: by UTF-16 code units, so that a surrogate pair comes before U+FB33.
        let names = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        assert_eq!(
            text(&names),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
        // §3.2.2: strings and literals.
        let strings = json!(["\u{20ac}$\u{f}\nA'B\"\\\"/", null, true, false, -1, 9_007_199_254_740_991_u64]);
        assert_eq!(text(&strings), r#"["€$\u000f\nA'B\"\\\"/",null,true,false,-1,9007199254740991]"#);
        assert_eq!(text(&json!({"b": [], "a": {}})), r#"{"a":{},"b":[]}"#);
    }

    #[test]
    fn what_is_no_document_of_the_part_is_refused_at_its_place() {
        for (document, path) in [
            ("", ""),
            ("[]", ""),
            ("1", ""),
            ("{} ", ""),
            (" {}", ""),
            ("{}{}", ""),
            ("{}\n\n", ""),
            ("{}\r\n", ""),
            ("\u{feff}{}", ""),
            (r#"{"a":1.5}"#, "a"),
            (r#"{"a":1e2}"#, "a"),
            (r#"{"a":-0}"#, "a"),
            (r#"{"a":01}"#, "a"),
            (r#"{"a":9007199254740992}"#, "a"),
            (r#"{"a":-9007199254740992}"#, "a"),
            (r#"{"a":{"b":1,"b":1}}"#, "a.b"),
            (r#"{"a":{"b":[1,2,{"c":x}]}}"#, "a.b.c"),
            (r#"{"a":{"b":1#},"c":2}"#, "a.b"),
            (r#"{"a":{"b":1}#"c":2}"#, "a"),
            (r#"{"a":"\ud800"}"#, "a"),
            (r#"{"a\n":x}"#, "a\n"),
        ] {
            assert_eq!(problem(document).0, path, "{document}");
        }
        assert_eq!(read(b"{}\n"), Ok(Map::new()));
        assert!(read(format!(r#"{{"a":{}}}"#, "[".repeat(100_000)).as_bytes()).is_err(), "deep");
        assert!(problem(r#"{"a":{"b":1,"b":1}}"#).1.contains("twice"));
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(names in proptest::collection::vec(".{0,4}", 0..6), number in -MOST_I64..=MOST_I64) {
            let members: Map<String, Value> = names.iter().map(|name| (name.clone(), json!([name, number]))).collect();
            let written = text(&Value::Object(members.clone()));
            prop_assert_eq!(read(written.as_bytes()), Ok(members));
        }
    }

    const MOST_I64: i64 = (1 << 53) - 1;
}

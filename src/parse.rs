//! JSON from outside. A byte-order mark is passed over, each key of an object stands once, and a tree of values is held
//! to a limit of memory while it is read: `{"a":0}` has 7 bytes as text, and 800 as a tree.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::path::Path;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// Memory of the tree of one file.
pub const TREE_BYTES_MAX: usize = 128 << 20;
/// Memory of a tree within a larger file.
pub const SMALL_BYTES_MAX: usize = 8 << 20;

/// What a JSON value is, without quoting all of it.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The text in these bytes, without its byte-order mark, if it is JSON whose objects have no key twice. `key` says in
/// errors what of the source it is.
///
/// # Errors
/// Bytes that are not UTF-8 or not JSON; a key that an object has twice, by its name.
pub fn text<'a>(source: impl AsRef<Path>, key: &str, bytes: &'a [u8]) -> Result<&'a str> {
    let source = source.as_ref();
    checked(bytes).map_err(|fault| match fault {
        Fault::Bytes(reason) => Error::malformed(source, "text", "UTF-8", reason),
        Fault::Twice(key) => Error::invalid(source, key, "this key once in its object", "it twice"),
        Fault::Text(reason) => Error::malformed(source, key, "JSON", reason),
    })
}

/// What serde reads of a line, whose place its reader names.
///
/// # Errors
/// What is wrong with it, in words.
pub fn line<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> std::result::Result<T, String> {
    let text = checked(bytes).map_err(|fault| match fault {
        Fault::Bytes(reason) => reason.to_string(),
        Fault::Twice(key) => format!("the key {key:?} twice"),
        Fault::Text(reason) => reason.to_string(),
    })?;
    serde_json::from_str(text).map_err(|reason| reason.to_string())
}

/// Why bytes are no JSON whose objects have no key twice.
enum Fault {
    Bytes(std::str::Utf8Error),
    Twice(String),
    Text(serde_json::Error),
}

fn checked(bytes: &[u8]) -> std::result::Result<&str, Fault> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = str::from_utf8(bytes).map_err(Fault::Bytes)?;
    let (hasher, twice) = (RandomState::new(), RefCell::new(None));
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Once { hasher: &hasher, twice: &twice }.deserialize(&mut reader).and_then(|()| reader.end());
    match (read, twice.take()) {
        (Ok(()), _) => Ok(text),
        (Err(_), Some(key)) => Err(Fault::Twice(key)),
        (Err(reason), None) => Err(Fault::Text(reason)),
    }
}

/// The values in a [`text`], whose tree takes at most `bytes_max` bytes of memory.
///
/// # Errors
/// A text that is not JSON; a tree that would be larger.
pub fn tree(source: impl AsRef<Path>, key: &str, text: &str, bytes_max: usize) -> Result<Value> {
    let source = source.as_ref();
    let left = Cell::new(Some(bytes_max));
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Tree { left: &left }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|reason| match left.get() {
        None => too_large(source, key, bytes_max),
        Some(_) => Error::malformed(source, key, "JSON", reason),
    })
}

/// A value whose tree takes at most [`SMALL_BYTES_MAX`], within what serde derives a reader for.
pub fn small<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Value, D::Error> {
    let left = Cell::new(Some(SMALL_BYTES_MAX));
    let value = Tree { left: &left }.deserialize(deserializer);
    match left.get() {
        None => Err(D::Error::custom(format_args!("values of more than {SMALL_BYTES_MAX} bytes of memory"))),
        Some(_) => value,
    }
}

/// Gives `take` each element of the array in a [`text`], with its place from 0, before the next one is read. The tree
/// of an element takes at most `bytes_max` bytes of memory.
///
/// # Errors
/// A value other than an array: expected is `expected`. An element that would be larger; whatever `take` returns.
pub fn elements(
    source: impl AsRef<Path>,
    [key, expected]: [&str; 2],
    text: &str,
    bytes_max: usize,
    take: impl FnMut(usize, Value) -> Result<()>,
) -> Result<()> {
    let source = source.as_ref();
    if !text.trim_ascii_start().starts_with('[') {
        return Err(Error::invalid(source, key, expected, kind(&tree(source, key, text, bytes_max)?)));
    }
    let left = Cell::new(Some(bytes_max));
    let mut failed = None;
    let elements = Elements { left: &left, bytes_max, take, failed: &mut failed };
    let read = serde_json::Deserializer::from_str(text).deserialize_seq(elements);
    match (read, failed) {
        (_, Some(error)) => Err(error),
        (Ok(()), None) => Ok(()),
        (Err(_), None) if left.get().is_none() => Err(too_large(source, key, bytes_max)),
        (Err(reason), None) => Err(Error::malformed(source, key, "JSON", reason)),
    }
}

fn too_large(source: &Path, key: &str, bytes_max: usize) -> Error {
    let what = format!("{}: {key}: bytes of memory for its values", source.display());
    Error::limit(what, bytes_max as u64, bytes_max as u64 + 1)
}

/// Passes over a value, and stops at a key that stands twice in its object.
#[derive(Clone, Copy)]
struct Once<'a> {
    hasher: &'a RandomState,
    twice: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> std::result::Result<(), A::Error> {
        while values.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        // Of keys the hashes are kept, by a hasher that no file can know: that two of a million are equal has odds of
        // 10^-7.
        let mut seen = HashSet::new();
        while let Some(is_new) = entries.next_key_seed(Key { all: self, seen: &mut seen })? {
            if !is_new {
                return Err(A::Error::custom("a key twice"));
            }
            entries.next_value_seed(self)?;
        }
        Ok(())
    }
}

/// Whether a key is new in its object.
struct Key<'a> {
    all: Once<'a>,
    seen: &'a mut HashSet<u64>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<bool, E> {
        let is_new = self.seen.insert(self.all.hasher.hash_one(key));
        if !is_new {
            *self.all.twice.borrow_mut() = Some(key.to_owned());
        }
        Ok(is_new)
    }
}

/// Memory of a map, which has room for some entries from the first one on, and of each entry more.
const MAP_BYTES: usize = 640;
const MAP_ENTRIES: usize = 11;
const ENTRY_BYTES: usize = 128;
/// Memory of an array, which has room for some values from the first one on, and of each value more.
const ARRAY_BYTES: usize = 144;
const ARRAY_VALUES: usize = 4;
const VALUE_BYTES: usize = 64;
/// Memory that any text takes beside its bytes.
const TEXT_BYTES: usize = 24;

/// Builds a value. What is left of the memory for it is nothing any more once it was not enough.
#[derive(Clone, Copy)]
struct Tree<'a> {
    left: &'a Cell<Option<usize>>,
}

impl Tree<'_> {
    fn charge<E: serde::de::Error>(self, bytes: usize) -> std::result::Result<(), E> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(bytes)));
        self.left.get().map(drop).ok_or_else(|| E::custom("too large"))
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> std::result::Result<Value, E> {
        self.charge(value.len() + TEXT_BYTES)?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> std::result::Result<Value, A::Error> {
        let mut array = Vec::new();
        self.charge(ARRAY_BYTES)?;
        while let Some(value) = values.next_element_seed(self)? {
            if array.len() >= ARRAY_VALUES {
                self.charge(VALUE_BYTES)?;
            }
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        self.charge(MAP_BYTES)?;
        while let Some(key) = entries.next_key::<String>()? {
            let more = if map.len() >= MAP_ENTRIES { ENTRY_BYTES } else { 0 };
            self.charge(more + key.len() + TEXT_BYTES)?;
            map.insert(key, entries.next_value_seed(self)?);
        }
        Ok(Value::Object(map))
    }
}

/// Gives elements away one by one; each may take all of the memory.
struct Elements<'a, F> {
    left: &'a Cell<Option<usize>>,
    bytes_max: usize,
    take: F,
    failed: &'a mut Option<Error>,
}

impl<'de, F: FnMut(usize, Value) -> Result<()>> Visitor<'de> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> std::result::Result<(), A::Error> {
        for index in 0.. {
            self.left.set(Some(self.bytes_max));
            let Some(value) = values.next_element_seed(Tree { left: self.left })? else { break };
            if let Err(error) = (self.take)(index, value) {
                *self.failed = Some(error);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_passed_over_and_a_key_stands_once() {
        assert_eq!(text("a", "text", b"\xef\xbb\xbf[1]").unwrap(), "[1]");
        assert_eq!(text("a", "text", br#"{"a": {"b": 1}, "b": [{"a": 1}, {"a": 2}]}"#).unwrap().len(), 42);
        for wrong in [r#"{"a": 1, "b": 2, "a": 3}"#, r#"[{"x": {"a": {}, "\u0061": 1}}]"#] {
            let error = text("file.json", "text", wrong.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, "file.json: a: expected this key once in its object, found it twice");
        }
        for wrong in ["", "[1", "[1] 2", "\u{feff}\u{feff}1", &"[".repeat(1000)] {
            let error = text("file.json", "text", wrong.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("file.json: text: expected JSON, found "), "{error}");
        }
        assert_eq!(line::<Vec<u32>>(b"\xef\xbb\xbf[1]"), Ok(vec![1]));
        assert_eq!(line::<Value>(br#"{"a": 1, "a": 1}"#).unwrap_err(), "the key \"a\" twice");
        assert!(text("file.json", "text", b"\"\xff\"").unwrap_err().to_string().contains("expected UTF-8"));
    }

    #[test]
    fn a_tree_is_what_serde_json_makes_of_it_within_its_memory() {
        let text = r#"{"a": [null, true, -1, 2, 1.5, "x\n", {}, []], "b": {"c": 18446744073709551615}}"#;
        assert_eq!(tree("a", "text", text, 4096).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        let large = format!("[{}0]", "{\"a\":0},".repeat(1000));
        let error = tree("a", "text", &large, 100_000).unwrap_err().to_string();
        assert_eq!(error, "a: text: bytes of memory for its values: 100001 is over the limit of 100000");
    }

    #[test]
    fn elements_come_one_by_one_until_one_is_refused() {
        let what = ["prompt", "an array of parts"];
        let mut found = Vec::new();
        let mut keep = |at, value: Value| {
            found.push((at, value.to_string()));
            Ok(())
        };
        elements("a", what, "[1, [2]]", 1000, &mut keep).unwrap();
        assert_eq!(found, [(0, "1".to_owned()), (1, "[2]".to_owned())]);
        let stop = |at, _| if at == 1 { Err(Error::argument("no more")) } else { Ok(()) };
        let error = |text: &str| elements("a", what, text, 1000, stop).unwrap_err().to_string();
        assert_eq!(error("[0, 1, 2]"), "no more");
        assert_eq!(error(" {}"), "a: prompt: expected an array of parts, found an object");
        assert_eq!(error(&format!("[[{}0]]", "{},".repeat(9))), error(&format!("[\"{}\"]", "x".repeat(1000))));
    }
}

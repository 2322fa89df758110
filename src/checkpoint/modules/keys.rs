//! What a configuration says of how weights were quantised, key by key.

use std::fmt::Display;
use std::path::Path;

use serde_json::{Map, Value};

use super::super::kind;
use crate::error::{Error, Result};

/// Keys of an object, which errors name with all that leads to them.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    file: &'a Path,
    at: String,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// The keys of a value, which stands `at` a place in the file.
    pub fn of(file: &'a Path, at: impl Into<String>, value: &'a Value) -> Result<Keys<'a>> {
        let at = at.into();
        match value {
            Value::Object(map) => Ok(Keys { file, at, map }),
            other => Err(Error::invalid(file, at, "an object", kind(other))),
        }
    }

    pub fn invalid(&self, key: &str, expected: impl ToString, found: impl Display) -> Error {
        Error::invalid(self.file, format!("{}.{key}", self.at), expected.to_string(), found)
    }

    /// What is neither absent nor null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.invalid(key, "a string", kind(other))),
        }
    }

    /// The text of a key, if there is any, which must be one of these.
    pub fn one_of(&self, key: &str, known: &[&str]) -> Result<Option<&'a str>> {
        match self.text(key)? {
            Some(found) if !known.contains(&found.to_lowercase().as_str()) => {
                Err(self.invalid(key, format!("one of {}", known.join(", ")), format!("{found:?}")))
            }
            found => Ok(found),
        }
    }

    /// A number that must be this one, if there is any.
    pub fn only(&self, key: &str, number: u64) -> Result<()> {
        match self.get(key) {
            Some(found) if found.as_u64() != Some(number) => Err(self.invalid(key, number, found)),
            _ => Ok(()),
        }
    }

    /// A flag that must be this one, if there is any.
    pub fn flag(&self, key: &str, wanted: bool) -> Result<()> {
        match self.get(key) {
            Some(found) if found.as_bool() != Some(wanted) => Err(self.invalid(key, wanted, found)),
            _ => Ok(()),
        }
    }

    /// What must be absent, null, or empty.
    pub fn nothing(&self, key: &str) -> Result<()> {
        match self.get(key) {
            None => Ok(()),
            Some(Value::Object(map)) if map.is_empty() => Ok(()),
            Some(found) => Err(self.invalid(key, "null", found)),
        }
    }

    pub fn object(&self, key: &str) -> Result<Option<Keys<'a>>> {
        self.get(key).map(|value| Keys::of(self.file, format!("{}.{key}", self.at), value)).transpose()
    }

    /// The objects of an object.
    pub fn objects(&self) -> impl Iterator<Item = Result<Keys<'a>>> {
        self.map.iter().map(|(key, value)| Keys::of(self.file, format!("{}.{key}", self.at), value))
    }

    /// Rows and columns of a block, neither of them nothing.
    pub fn block(&self, key: &str) -> Result<Option<[usize; 2]>> {
        let Some(found) = self.get(key) else { return Ok(None) };
        let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        match found.as_array().map(Vec::as_slice) {
            Some([rows, columns]) => match (number(rows), number(columns)) {
                (Some(rows @ 1..=65536), Some(columns @ 1..=65536)) => Ok(Some([rows, columns])),
                _ => Err(self.invalid(key, "two numbers from 1 to 65536", found)),
            },
            _ => Err(self.invalid(key, "two numbers from 1 to 65536", found)),
        }
    }
}

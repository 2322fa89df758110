//! A component of `tokenizer.json` as it stands there: an object with a `type` and settings, each of them known.

use std::fmt::Display;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::parse::kind;

/// Most components of one kind, those within others included.
const PARTS_MAX: usize = 32;

/// An object with a type.
#[derive(Clone)]
pub struct Component<'a> {
    file: &'a Path,
    /// Where it stands in the file.
    key: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Component<'a> {
    /// The component under a key, unless it is null.
    pub fn read(file: &'a Path, key: &str, value: &'a Value) -> Result<Option<Self>> {
        match value {
            Value::Null => Ok(None),
            Value::Object(fields) => Ok(Some(Component { file, key: key.to_owned(), fields })),
            other => Err(Error::invalid(file, key, "an object or null", kind(other))),
        }
    }

    /// Its type, which must be one of these.
    pub fn kind(&self, known: &[&'static str]) -> Result<&'static str> {
        let found = self.text("type")?;
        let known_one = known.iter().find(|name| **name == found);
        known_one.copied().ok_or_else(|| self.invalid("type", listed(known), format!("{found:?}")))
    }

    /// Refuses settings other than these: what they do is not known.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.fields.keys().find(|key| *key != "type" && !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(other) if known.is_empty() => Err(self.invalid(other, "no settings", "one")),
            Some(other) => Err(self.invalid(other, format!("only {}", listed(known)), "another setting")),
        }
    }

    /// A text, if the setting is one.
    pub fn field(&self, key: &str) -> Option<&'a str> {
        self.fields.get(key)?.as_str()
    }

    /// A text that must be there.
    pub fn text(&self, key: &str) -> Result<&'a str> {
        self.field(key).ok_or_else(|| self.invalid(key, "a string", self.found(key)))
    }

    /// A text of one character.
    pub fn character(&self, key: &str) -> Result<char> {
        let mut characters = self.text(key)?.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(character),
            _ => Err(self.invalid(key, "one character", format!("{:?}", self.text(key)?))),
        }
    }

    /// One of these texts.
    pub fn choice(&self, key: &str, known: &[&'static str]) -> Result<&'static str> {
        let found = self.text(key)?;
        let known_one = known.iter().find(|name| **name == found);
        known_one.copied().ok_or_else(|| self.invalid(key, listed(known), format!("{found:?}")))
    }

    /// True or false; this one if nothing is said.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.fields.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.invalid(key, "true or false", self.found(key))),
        }
    }

    /// A whole number.
    pub fn count(&self, key: &str) -> Result<usize> {
        let number = self.fields.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| self.invalid(key, "a whole number", self.found(key)))
    }

    /// A value of any kind.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key)
    }

    /// The values of an array, each with its key.
    pub fn list(&self, key: &str) -> Result<impl Iterator<Item = (String, &'a Value)>> {
        let values = match self.fields.get(key) {
            Some(Value::Array(values)) => values,
            _ => return Err(self.invalid(key, "an array", self.found(key))),
        };
        let key = format!("{}.{key}", self.key);
        Ok(values.iter().enumerate().map(move |(index, value)| (format!("{key}.{index}"), value)))
    }

    /// The components of a sequence.
    pub fn parts(&self, key: &str) -> Result<Vec<Self>> {
        let mut parts = Vec::new();
        for (key, value) in self.list(key)? {
            match Component::read(self.file, &key, value)? {
                Some(_) if parts.len() == PARTS_MAX => {
                    return Err(Error::invalid(self.file, key, format!("at most {PARTS_MAX} components"), "more"));
                }
                Some(part) => parts.push(part),
                None => return Err(Error::invalid(self.file, key, "an object", "null")),
            }
        }
        Ok(parts)
    }

    /// The texts of a Replace: what is looked for, which is not empty and no expression, and what takes its place.
    pub fn replace(&self) -> Result<(&'a str, &'a str)> {
        self.only(&["pattern", "content"])?;
        match self.pattern()? {
            ("String", text) => Ok((text, self.text("content")?)),
            (_, expression) => Err(self.invalid("pattern", "a String", format!("the Regex {expression:?}"))),
        }
    }

    /// A pattern: whether it is a `String` or a `Regex`, and its text, which is not empty.
    pub fn pattern(&self) -> Result<(&'a str, &'a str)> {
        let one = self.fields.get("pattern").and_then(Value::as_object).filter(|pattern| pattern.len() == 1);
        let one = one.and_then(|pattern| pattern.iter().next());
        let one = one.and_then(|(kind, text)| Some((kind.as_str(), text.as_str()?)));
        match one {
            Some(("String" | "Regex", "")) => Err(self.invalid("pattern", "a text", "an empty one")),
            Some((kind @ ("String" | "Regex"), text)) => Ok((kind, text)),
            _ => Err(self.invalid("pattern", "a String or a Regex", self.found("pattern"))),
        }
    }

    /// The settings of a Metaspace: the character, and where it is put before a word: `first`, `never` or `always`.
    /// `split` may stand beside them.
    pub fn metaspace(&self) -> Result<(char, &'static str)> {
        self.only(&["replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"])?;
        let known = ["always", "first", "never"];
        let scheme = match self.fields.contains_key("prepend_scheme") {
            true => self.choice("prepend_scheme", &known)?,
            false => "always",
        };
        let scheme = match (self.flag("add_prefix_space", scheme != "never")?, scheme) {
            (false, "always") if !self.fields.contains_key("prepend_scheme") => "never",
            (false, "first" | "always") => {
                return Err(self.invalid("add_prefix_space", "true, as prepend_scheme has it", "false"));
            }
            (_, scheme) => scheme,
        };
        Ok((self.character("replacement")?, scheme))
    }

    /// The file that it stands in.
    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// What the file is to have said, and what it says instead.
    pub fn invalid(&self, key: &str, expected: impl Display, found: impl Display) -> Error {
        Error::invalid(self.file, format!("{}.{key}", self.key), expected, found)
    }

    fn found(&self, key: &str) -> &'static str {
        self.fields.get(key).map_or("nothing", kind)
    }
}

/// "A, B or C".
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

//! Bodies as JSON: what every route does with the fields of its object, and problems that name them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::engine::json::{Count, Keys};
use crate::error::{Error, ErrorKind};
use crate::parse;
use crate::serve::call::Given;
use crate::serve::problem::Problem;

/// Bytes of the JSON of one field without images.
const FIELD_BYTES_MAX: usize = 4 << 20;
/// Bytes of a salt.
const SALT_BYTES_MAX: usize = 1024;
/// Characters of something found that a message shows.
const SHOWN_MAX: usize = 60;

/// Fields of OpenAI's that change no answer here.
const IGNORED: [&str; 10] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "modalities",
];

/// The fields of a body that are not read yet. One that is `null` is as if it were not there.
pub struct Body<'a> {
    fields: BTreeMap<String, &'a RawValue>,
    /// All that were read, for messages.
    known: Vec<&'static str>,
}

impl<'a> Body<'a> {
    /// Reads a body, each of whose objects has each key once.
    ///
    /// # Errors
    /// `invalid_json`, with line and column.
    pub fn read(bytes: &'a [u8]) -> Result<Body<'a>, Problem> {
        let invalid = |message: String| Problem::new(super::BAD_REQUEST, "invalid_json", message);
        let text = parse::text("body", "request", bytes).map_err(|error| invalid(error.to_string()))?;
        let Keys(mut fields) = serde_json::from_str(text)
            .map_err(|error| invalid(Error::malformed("body", "request", "a JSON object", error).to_string()))?;
        fields.retain(|_, value| value.get() != "null");
        Ok(Body { fields, known: Vec::new() })
    }

    /// The JSON of a field.
    pub fn raw(&mut self, key: &'static str) -> Option<&'a str> {
        self.known.push(key);
        self.fields.remove(key).map(RawValue::get)
    }

    /// A field, if it is there.
    pub fn take<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        if raw.len() > FIELD_BYTES_MAX {
            return Err(over(key, "bytes", FIELD_BYTES_MAX, raw.len()));
        }
        serde_json::from_str(raw).map(Some).map_err(|_| invalid(key, expected, raw))
    }

    /// A whole number, if it is there.
    pub fn count(&mut self, key: &'static str) -> Result<Option<u64>, Problem> {
        Ok(self.take::<Count>(key, "a whole number, 0 or more")?.map(|Count(count)| count))
    }

    /// A whole number of at most `most`, if it is there.
    pub fn count_to(&mut self, key: &'static str, least: u64, most: u64) -> Result<Option<usize>, Problem> {
        match self.count(key)? {
            Some(count) if !(least..=most).contains(&count) => {
                Err(invalid(key, &format!("a number from {least} to {most}"), &count.to_string()))
            }
            count => Ok(count.map(|count| count as usize)),
        }
    }

    /// A number, if it is there.
    pub fn number(&mut self, key: &'static str) -> Result<Option<f32>, Problem> {
        self.take(key, "a number")
    }

    /// True or false; false if it is not there.
    pub fn flag(&mut self, key: &'static str) -> Result<bool, Problem> {
        Ok(self.take(key, "true or false")?.unwrap_or(false))
    }

    /// A text of at most so many bytes, if it is there.
    pub fn text(&mut self, key: &'static str, most: usize) -> Result<Option<String>, Problem> {
        match self.take::<String>(key, "a string")? {
            Some(text) if text.len() > most => Err(over(key, "bytes", most, text.len())),
            text => Ok(text),
        }
    }

    /// Texts, none of which is empty, if they are there; one may stand without an array.
    pub fn texts(&mut self, key: &'static str, most: usize) -> Result<Option<Vec<String>>, Problem> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        let expected = "a string or an array of strings";
        let found: Vec<String> = match raw.starts_with('"') {
            true => vec![serde_json::from_str(raw).map_err(|_| invalid(key, expected, raw))?],
            false => serde_json::from_str(raw).map_err(|_| invalid(key, expected, raw))?,
        };
        if found.len() > most {
            return Err(over(key, "texts", most, found.len()));
        }
        match found.iter().position(String::is_empty) {
            Some(place) => Err(invalid(&format!("{key}[{place}]"), "a text", "an empty one")),
            None => Ok(Some(found)),
        }
    }

    /// A field with any value of JSON, which takes little memory, if it is there.
    pub fn value(&mut self, key: &'static str) -> Result<Option<Value>, Problem> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        parse::tree("body", key, raw, parse::SMALL_BYTES_MAX).map(Some).map_err(|error| at(key, error))
    }

    /// The model that is meant is the one that is here.
    pub fn model(&mut self, given: &Given) -> Result<(), Problem> {
        match self.take::<String>("model", "a string")? {
            Some(model) if model != given.server.id() => Err(given.server.no_model(&model)),
            _ => Ok(()),
        }
    }

    /// What prompts share of what was computed they share with those of the same salt: of the body, and of the key that
    /// the request came with, if the server is told so.
    pub fn salt(&mut self, given: &Given) -> Result<Option<[u8; 32]>, Problem> {
        let salt = self.text("cache_salt", SALT_BYTES_MAX)?;
        let key = given.key.filter(|_| given.server.settings.salt_by_key);
        if salt.is_none() && key.is_none() {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        // Keys are of one length, so what follows is the rest.
        hasher.update(&[u8::from(key.is_some()), u8::from(salt.is_some())]);
        hasher.update(key.as_ref().map_or(&[][..], |key| key.as_bytes()));
        hasher.update(salt.unwrap_or_default().as_bytes());
        Ok(Some(*hasher.finalize().as_bytes()))
    }

    /// A field that only has values which change nothing.
    pub fn neutral(&mut self, key: &'static str, values: &[Value]) -> Result<(), Problem> {
        match self.value(key)? {
            // However a number is written.
            Some(value)
                if !values.iter().any(|neutral| *neutral == value || value.as_f64() == Some(0.0) && *neutral == 0) =>
            {
                let expected = values.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
                let message = format!("{key}: expected {expected}, found {}", shown(&value.to_string()));
                Err(Problem::new(super::BAD_REQUEST, "unsupported_value", message).param(key))
            }
            _ => Ok(()),
        }
    }

    /// A field that this server does not have in any form.
    pub fn unsupported(&mut self, key: &'static str) -> Result<(), Problem> {
        match self.raw(key) {
            Some(raw) => {
                let message = format!("{key}: expected none, found {}", shown(raw));
                Err(Problem::new(super::BAD_REQUEST, "unsupported_value", message).param(key))
            }
            None => Ok(()),
        }
    }

    /// All fields are read; what is left is none of this route's. A misspelt `num_beam` is not silently greedy.
    pub fn end(mut self, given: &Given) -> Result<(), Problem> {
        self.fields.retain(|key, _| !IGNORED.contains(&&**key));
        let Some(key) = self.fields.keys().next().filter(|_| !given.server.settings.lenient) else { return Ok(()) };
        self.known.sort_unstable();
        self.known.dedup();
        let message = format!("{}: unknown parameter; there are {}", shown(key), self.known.join(", "));
        Err(Problem::new(super::BAD_REQUEST, "unknown_parameter", message).param(&shown(key)))
    }
}

/// A field has a value that it cannot have.
pub fn invalid(key: &str, expected: &str, found: &str) -> Problem {
    let param = key.split(['[', '.', ':']).next().unwrap_or(key);
    Problem::invalid(param, format!("{key}: expected {expected}, found {}", shown(found)))
}

/// A field has more than it may have.
pub fn over(key: &str, what: &str, most: usize, found: usize) -> Problem {
    let message = format!("{key}: expected at most {most} {what}, found {found}");
    Problem::new(super::BAD_REQUEST, "limit", message).param(key)
}

/// What is wrong with a field, as the library says it.
pub fn at(param: &str, error: Error) -> Problem {
    let mut problem = Problem::from(error);
    if problem.status.is_client_error() {
        problem.param.get_or_insert(param.to_owned());
    }
    problem
}

/// What the library says of a prompt in a field.
pub fn of_prompt(param: &str, error: Error) -> Problem {
    let code = match &error {
        Error::Limit { what, .. } if what == "tokens of a sequence" => Some("context_length_exceeded"),
        // What stands there is no image at all.
        Error::Invalid { expected, .. } if expected == "a data URI" => None,
        _ if error.kind() == ErrorKind::InvalidFile => Some("invalid_image"),
        _ => None,
    };
    let mut problem = at(param, error);
    problem.code = code.unwrap_or(problem.code);
    problem
}

/// Something from outside, cut short.
pub fn shown(text: &str) -> String {
    let cut = text.char_indices().nth(SHOWN_MAX).map_or(text, |(end, _)| &text[..end]);
    let escaped: String =
        cut.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    if cut.len() < text.len() { format!("{escaped}... of {} bytes", text.len()) } else { escaped }
}

//! How turns of a conversation become a prompt: a few texts, of each family or from a file.

use std::path::Path;

use serde_json::Value;

use super::{FAMILIES, quoted};
use crate::error::{Error, Result};
use crate::files;
use crate::parse::{self, kind};
use crate::setters::setters;

/// Texts around the turns of a conversation. A user's turn is `user_before`, its parts with `user_text_before` before
/// the first text, and `user_after`, or `user_after_images` if it has no text. An answer is `answer_before`,
/// `answer_text_before`, its text and `answer_after`. The prompt ends with `answer_before`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatTemplate {
    /// What reports call it.
    pub name: String,
    /// Begins the prompt.
    pub begin: String,
    /// Before what the system is told.
    pub system_before: String,
    /// Before that, where a conversation has no image: then there is a system's turn in any case.
    pub system_text_only: String,
    /// After it.
    pub system_after: String,
    /// Before a user's turn.
    pub user_before: String,
    /// Before its first text.
    pub user_text_before: String,
    /// After it.
    pub user_after: String,
    /// After a turn of images alone, in place of that.
    pub user_after_images: String,
    /// Before an answer.
    pub answer_before: String,
    /// Before its text.
    pub answer_text_before: String,
    /// After it.
    pub answer_after: String,
    /// Texts that end an answer beside the tokens that do.
    pub stop: Vec<String>,
    /// Texts of tokens that no turn may hold, since they would forge another.
    pub reserved: Vec<String>,
}

setters!(ChatTemplate {
    name: String,
    begin: String,
    system_before: String,
    system_text_only: String,
    system_after: String,
    user_before: String,
    user_text_before: String,
    user_after: String,
    user_after_images: String,
    answer_before: String,
    answer_text_before: String,
    answer_after: String,
    stop: Vec<String>,
    reserved: Vec<String>,
});

/// Bytes of a template's file, and texts of one list in it.
pub(crate) const BYTES_MAX: usize = 64 << 10;
const LIST_MAX: usize = 32;

/// Keys of texts in a template's file; a `null` is as if it were not there.
const TEXTS: [&str; 12] = [
    "name",
    "begin",
    "system_before",
    "system_text_only",
    "system_after",
    "user_before",
    "user_text_before",
    "user_after",
    "user_after_images",
    "answer_before",
    "answer_text_before",
    "answer_after",
];
const LISTS: [&str; 2] = ["stop", "reserved"];

impl Default for ChatTemplate {
    /// Nothing around anything.
    fn default() -> Self {
        let none = String::new;
        ChatTemplate {
            name: "raw".to_owned(),
            begin: none(),
            system_before: none(),
            system_text_only: none(),
            system_after: none(),
            user_before: none(),
            user_text_before: none(),
            user_after: none(),
            user_after_images: none(),
            answer_before: none(),
            answer_text_before: none(),
            answer_after: none(),
            stop: Vec::new(),
            reserved: Vec::new(),
        }
    }
}

impl ChatTemplate {
    /// What the model in the program reads: symbols and their names, each with a full stop.
    pub(crate) fn demo() -> ChatTemplate {
        ChatTemplate::default().name("demo".to_owned()).answer_after(".".to_owned()).stop(vec![".".to_owned()])
    }

    /// The template of that name: a family's, `demo` or `raw`.
    ///
    /// # Errors
    /// [`Error::Argument`] with the names that there are.
    pub fn named(name: &str) -> Result<ChatTemplate> {
        let of_families = FAMILIES.iter().flat_map(|family| family.chats).map(|chat| chat());
        let mut all: Vec<ChatTemplate> = of_families.chain([ChatTemplate::demo(), ChatTemplate::default()]).collect();
        if let Some(place) = all.iter().position(|template| template.name == name) {
            return Ok(all.swap_remove(place));
        }
        let mut names: Vec<String> = all.into_iter().map(|template| template.name).collect();
        names.sort_unstable();
        names.dedup();
        let expected = format!("chat-template: expected one of {}", names.join(", "));
        Err(Error::argument(format!("{expected}, found {}", quoted(name))))
    }

    /// Reads an object with the fields of this struct; those that are not there are empty. `source` is named in
    /// errors.
    ///
    /// # Errors
    /// Anything else: another key, a value of another type, more than 64 KiB, more than 32 texts of a list.
    pub fn from_json(json: &str, source: &str) -> Result<ChatTemplate> {
        if json.len() > BYTES_MAX {
            let what = format!("{source}: bytes of a chat template");
            return Err(Error::limit(what, BYTES_MAX as u64, json.len() as u64));
        }
        let text = parse::text(source, "chat template", json.as_bytes())?;
        ChatTemplate::from_value(parse::tree(source, "chat template", text, parse::SMALL_BYTES_MAX)?, source)
    }

    /// The template of that name, or the one in the file at that path.
    ///
    /// # Errors
    /// Neither; as for [`ChatTemplate::from_json`].
    pub fn open(name_or_path: &str) -> Result<ChatTemplate> {
        let path = Path::new(name_or_path);
        match ChatTemplate::named(name_or_path) {
            Err(error) if path.components().count() == 1 && path.extension().is_none() && !path.exists() => Err(error),
            Err(_) => {
                let bytes = files::read_input(path, BYTES_MAX as u64)?;
                let text = parse::text(path, "chat template", &bytes)?;
                ChatTemplate::from_json(text, name_or_path)
            }
            found => found,
        }
    }

    /// As [`ChatTemplate::from_json`], of a value that was read.
    pub(crate) fn from_value(value: Value, source: &str) -> Result<ChatTemplate> {
        let Value::Object(fields) = value else {
            return Err(Error::invalid(source, "chat template", "an object", kind(&value)));
        };
        let mut template = ChatTemplate::default().name("custom".to_owned());
        for (key, value) in fields {
            match (template.field(&key), value) {
                (_, Value::Null) if TEXTS.contains(&&*key) || LISTS.contains(&&*key) => {}
                (Some(Field::Text(field)), Value::String(text)) => *field = text,
                (Some(Field::List(field)), Value::Array(values)) => *field = texts(source, &key, values)?,
                (Some(Field::Text(_)), value) => return Err(Error::invalid(source, key, "a string", kind(&value))),
                (Some(Field::List(_)), value) => {
                    return Err(Error::invalid(source, key, "an array of strings", kind(&value)));
                }
                (None, _) => {
                    let expected = format!("{} or {}", TEXTS.join(", "), LISTS.join(", "));
                    return Err(Error::invalid(source, "chat template", expected, quoted(&key)));
                }
            }
        }
        Ok(template)
    }

    /// The same, which keeps for itself what another one keeps too.
    pub(crate) fn reserving(mut self, other: &ChatTemplate) -> ChatTemplate {
        let more = other.reserved.iter().filter(|token| !self.reserved.contains(token));
        self.reserved.extend(more.cloned().collect::<Vec<_>>());
        self
    }

    fn field(&mut self, key: &str) -> Option<Field<'_>> {
        let texts = [
            &mut self.name,
            &mut self.begin,
            &mut self.system_before,
            &mut self.system_text_only,
            &mut self.system_after,
            &mut self.user_before,
            &mut self.user_text_before,
            &mut self.user_after,
            &mut self.user_after_images,
            &mut self.answer_before,
            &mut self.answer_text_before,
            &mut self.answer_after,
        ];
        let mut texts = TEXTS.into_iter().zip(texts.map(Field::Text));
        let mut lists = LISTS.into_iter().zip([&mut self.stop, &mut self.reserved].map(Field::List));
        let found = texts.find(|(name, _)| *name == key).or_else(|| lists.find(|(name, _)| *name == key));
        found.map(|(_, field)| field)
    }
}

/// A field of a template.
enum Field<'a> {
    Text(&'a mut String),
    List(&'a mut Vec<String>),
}

/// The texts of a list, none of which is empty.
fn texts(source: &str, key: &str, values: Vec<Value>) -> Result<Vec<String>> {
    if values.len() > LIST_MAX {
        return Err(Error::limit(format!("{source}: texts of {key}"), LIST_MAX as u64, values.len() as u64));
    }
    let text = |value| match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        Value::String(_) => Err(Error::invalid(source, key, "strings that are not empty", "an empty one")),
        other => Err(Error::invalid(source, key, "an array of strings", format!("{} in it", kind(&other)))),
    };
    values.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_from_json() {
        let json = r#"{"name": "mine", "user_before": "Q: ", "answer_after": "\n", "begin": null, "stop": ["\n"]}"#;
        let template = ChatTemplate::from_json(json, "a.json").unwrap();
        let expected = ChatTemplate::default().name("mine".into()).user_before("Q: ".into());
        assert_eq!(template, expected.answer_after("\n".into()).stop(vec!["\n".into()]));
        // Every key reaches a field of its own.
        let all = TEXTS.map(|key| format!("{key:?}: {key:?}")).join(", ");
        let all = format!("{{{all}, \"stop\": [\"stop\"], \"reserved\": [\"reserved\"]}}");
        let read = format!("{:?}", ChatTemplate::from_json(&all, "a.json").unwrap());
        for key in TEXTS.into_iter().chain(LISTS) {
            assert!(
                read.contains(&format!("{key}: \"{key}\"")) || read.contains(&format!("{key}: [\"{key}\"]")),
                "{read}"
            );
        }
    }

    #[test]
    fn whatever_else_is_refused() {
        let long = format!("{{\"begin\": {:?}}}", "x".repeat(BYTES_MAX));
        let many = format!("{{\"stop\": {:?}}}", vec!["x"; LIST_MAX + 1]);
        for (json, expected) in [
            ("[]", "chat template: expected an object, found an array"),
            (r#"{"user": ""}"#, "found \"user\""),
            (r#"{"begin": 1}"#, "begin: expected a string, found a number"),
            (r#"{"stop": "."}"#, "stop: expected an array of strings, found a string"),
            (r#"{"stop": [""]}"#, "stop: expected strings that are not empty, found an empty one"),
            (r#"{"reserved": [null]}"#, "reserved: expected an array of strings, found null in it"),
            (r#"{"begin": "", "begin": ""}"#, "begin: expected this key once in its object, found it twice"),
            (&long, "bytes of a chat template: "),
            (&many, "texts of stop: 33 is over the limit of 32"),
        ] {
            let error = ChatTemplate::from_json(json, "a.json").unwrap_err().to_string();
            assert!(error.starts_with("a.json: ") && error.contains(expected) && error.len() < 600, "{error}");
        }
    }

    #[test]
    fn templates_have_names() {
        for name in ["idefics", "idefics-instruct", "openflamingo", "mllama", "otter", "flamingo-mini", "demo", "raw"] {
            assert_eq!(ChatTemplate::named(name).unwrap().name, name);
        }
        let error = ChatTemplate::named("llava").unwrap_err().to_string();
        assert!(error.starts_with("chat-template: expected one of demo, flamingo-mini, idefics, "), "{error}");
    }
}

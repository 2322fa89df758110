//! Conversations: turns of a system, a user and the model, which a family's [`ChatTemplate`] makes a prompt of.

use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::kind;
use crate::error::{Error, Result};
use crate::family::ChatTemplate;
use crate::parse;
use crate::prompt::{Part, Place, Prompt, PromptLimits, read_file};

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// What the model is told of its task, before all else.
    System,
    /// Who asks.
    User,
    /// What the model answered.
    Assistant,
}

impl Role {
    const NAMES: [(&'static str, Role); 3] =
        [("system", Role::System), ("user", Role::User), ("assistant", Role::Assistant)];
}

/// A conversation, which waits for an answer.
#[derive(Debug, Clone, Default)]
pub struct Chat {
    /// What was said, turn by turn.
    parts: Prompt,
    /// Whose turn it was, and how many parts of all stood when it ended.
    turns: Vec<(Role, usize)>,
}

impl Chat {
    /// No turns yet; the limits are those of the prompt that it becomes.
    pub fn with_limits(limits: PromptLimits) -> Self {
        Chat { parts: Prompt::with_limits(limits), turns: Vec::new() }
    }

    /// Adds what somebody says.
    ///
    /// # Errors
    /// Images in a system's turn or in an answer; a system's turn after another; more than a prompt may have.
    pub fn turn(&mut self, role: Role, parts: Prompt) -> Result<&mut Self> {
        self.parts.append(parts)?;
        self.end_turn(role, false)
    }

    /// Makes the parts since the last turn one of this role, or lets it go on if it may be `joined`.
    fn end_turn(&mut self, role: Role, joined: bool) -> Result<&mut Self> {
        let (begin, end) = (self.turns.last().map_or(0, |(_, end)| *end), self.parts.parts().len());
        if role != Role::User && !self.parts.parts()[begin..].iter().all(|part| matches!(part, Part::Text(_))) {
            return Err(Error::argument("chat: expected images in turns of the user alone, found one elsewhere"));
        }
        if role == Role::System && self.turns.iter().any(|(before, _)| *before != Role::System) {
            return Err(Error::argument("chat: expected the system's turn before all others, found it after one"));
        }
        match self.turns.last_mut() {
            Some(last) if joined && last.0 == role => last.1 = end,
            _ => self.turns.push((role, end)),
        }
        Ok(self)
    }

    /// What its images hold and the model will not see; see [`Prompt::notes`].
    pub fn notes(&self) -> &[String] {
        self.parts.notes()
    }

    /// Reads a file, or a pipe; see [`Chat::from_json`]. Paths in it are relative to the file.
    ///
    /// # Errors
    /// As for [`Chat::from_json`]; a file that is not there, or no text.
    pub fn from_file(path: impl AsRef<Path>, limits: PromptLimits) -> Result<Self> {
        read_file(path.as_ref(), limits, Self::from_json)
    }

    /// Parses `[{"role": "user", "content": "..."}, ...]`, where `content` is a text or parts as those of
    /// [`Prompt::from_json`]; or such parts with a `role` of their own: `[{"role": "user", "image": "a.png"}, ...]`, of
    /// which neighbours are one turn.
    ///
    /// # Errors
    /// Anything else, with `source` and the number of the turn, from 0; turns out of place; a text that holds a marker.
    pub fn from_json(json: &str, source: &str, folder: &Path, limits: PromptLimits) -> Result<Self> {
        if json.len() as u64 > limits.bytes_max {
            return Err(Error::limit(format!("{source}: bytes of a chat"), limits.bytes_max, json.len() as u64));
        }
        let text = parse::text(source, "chat", json.as_bytes())?;
        let mut chat = Chat::with_limits(limits);
        let array = ["chat", "an array of {\"role\", \"content\"} turns"];
        parse::elements(source, array, text, 2 * text.len() + (1 << 20), |index, item| {
            chat.json_turn(item, &Place { source, folder, key: format!("turn {index}") })
        })?;
        Ok(chat)
    }

    fn json_turn(&mut self, item: Value, place: &Place) -> Result<()> {
        let Value::Object(mut fields) = item else {
            return Err(place.wrong("", "{\"role\": ..., \"content\": ...}", kind(&item)));
        };
        let names = Role::NAMES.map(|(name, _)| format!("\"{name}\"")).join(", ");
        let role = match fields.remove("role") {
            Some(Value::String(role)) => Role::NAMES.iter().find(|(name, _)| *name == role).map(|(_, role)| *role),
            _ => None,
        };
        let Some(role) = role else { return Err(place.wrong(": role", &format!("one of {names}"), "another or none")) };
        let content = fields.remove("content");
        let joined = content.is_none();
        match content {
            Some(_) if !fields.is_empty() => {
                return Err(place.wrong("", "nothing beside \"role\" and \"content\"", "another key"));
            }
            Some(Value::String(text)) => {
                self.parts.text(text)?;
            }
            Some(Value::Array(list)) => {
                for (number, part) in list.into_iter().enumerate() {
                    let key = format!("{}: part {number}", place.key);
                    let place = Place { source: place.source, folder: place.folder, key };
                    self.parts.json_part(untyped(part), &place)?;
                }
            }
            Some(other) => return Err(place.wrong(": content", "a string or an array of parts", kind(&other))),
            None => self.parts.json_part(untyped(Value::Object(fields)), place)?,
        }
        let named = |error| Error::argument(format!("{}: {}: {error}", place.source, place.key));
        self.end_turn(role, joined).map(|_| ()).map_err(named)
    }

    /// The prompt of it in the words of a family, which ends where the answer begins.
    ///
    /// # Errors
    /// No turn of the user at the end; a text that holds a token which the template keeps for itself.
    pub fn prompt(self, template: &ChatTemplate) -> Result<Prompt> {
        if self.turns.last().is_none_or(|(role, _)| *role != Role::User) {
            return Err(Error::argument("chat: expected a turn of the user at the end, found none there"));
        }
        let has_images = self.parts.media().next().is_some();
        let text_only = if has_images { "" } else { template.system_text_only };
        let mut writer = Writer { prompt: self.parts.emptied(), text: template.begin.to_owned() };
        if self.turns[0].0 != Role::System && !text_only.is_empty() {
            writer.write(&[template.system_before, text_only, template.system_after]);
        }
        let mut parts = self.parts.into_parts().into_iter();
        let mut begin = 0;
        for (role, end) in self.turns {
            let said = parts.by_ref().take(end - begin);
            begin = end;
            match role {
                Role::System => {
                    let mut told = Writer { prompt: Prompt::new(), text: String::new() };
                    told.parts(said, "", template)?;
                    // As published templates have it.
                    let told = told.text.trim();
                    writer.write(&[template.system_before, text_only, told, template.system_after]);
                }
                Role::User => {
                    writer.write(&[template.user_before]);
                    let has_text = writer.parts(said, template.user_text_before, template)?;
                    writer.write(&[if has_text { template.user_after } else { template.user_after_images }]);
                }
                Role::Assistant => {
                    writer.write(&[template.answer_before]);
                    writer.parts(said, template.answer_text_before, template)?;
                    // Who sends back what was written may send its end too.
                    let ended = writer.text.ends_with(template.answer_after);
                    writer.write(&[if ended { "" } else { template.answer_after }]);
                }
            }
        }
        writer.write(&[template.answer_before]);
        writer.flush()?;
        Ok(writer.prompt)
    }
}

/// A part without the key `type` that others write beside it.
fn untyped(part: Value) -> Value {
    let Value::Object(fields) = part else { return part };
    let named = fields.get("type").and_then(Value::as_str).is_some_and(|name| fields.contains_key(name));
    let kept: Map<String, Value> = fields.into_iter().filter(|(key, _)| !(named && key == "type")).collect();
    Value::Object(kept)
}

/// Puts a prompt together in which neighbouring texts are one part: families write between two.
struct Writer {
    prompt: Prompt,
    text: String,
}

impl Writer {
    fn write(&mut self, texts: &[&str]) {
        texts.iter().for_each(|text| self.text.push_str(text));
    }

    /// Writes the parts of a turn, with `before` before the first text; whether there is one.
    fn parts(&mut self, parts: impl Iterator<Item = Part>, before: &str, template: &ChatTemplate) -> Result<bool> {
        let mut has_text = false;
        for part in parts {
            match part {
                Part::Text(text) => {
                    if let Some(token) = template.reserved.iter().find(|token| text.contains(**token)) {
                        return Err(Error::argument(format!(
                            "chat: expected turns without {token}, found one with it"
                        )));
                    }
                    self.write(&[if has_text { "" } else { before }, &text]);
                    has_text = true;
                }
                media => {
                    self.flush()?;
                    self.prompt.part(media)?;
                }
            }
        }
        Ok(has_text)
    }

    fn flush(&mut self) -> Result<()> {
        if !self.text.is_empty() {
            self.prompt.text(std::mem::take(&mut self.text))?;
        }
        Ok(())
    }
}

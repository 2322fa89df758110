//! Conversations: turns of a system, a user and the model, which a family's [`ChatTemplate`] makes a prompt of.

use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::kind;
use crate::error::{Error, Result};
use crate::family::ChatTemplate;
use crate::parse;
use crate::prompt::{Part, Place, Prompt, PromptLimits, prefix_key, read_file};

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

    /// Adds what somebody goes on to say: to the last turn, if it was theirs.
    ///
    /// # Errors
    /// As for [`Chat::turn`].
    pub(crate) fn go_on(&mut self, role: Role, parts: Prompt) -> Result<&mut Self> {
        self.parts.append(parts)?;
        self.end_turn(role, true)
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

    /// Names what stands before the last turn of the user: conversations of the same key begin alike, so whoever
    /// answers one of them has computed much of the others. Where nothing stands there, it names all of it.
    pub fn prefix_key(&self) -> String {
        let last = self.turns.iter().rposition(|(role, _)| *role == Role::User).filter(|&last| last > 0);
        let mut hasher = blake3::Hasher::new();
        let mut begin = 0;
        for (role, end) in &self.turns[..last.unwrap_or(self.turns.len())] {
            hasher.update(&[0xFE, *role as u8]);
            self.parts.parts()[begin..*end].iter().for_each(|part| part.hash_into(&mut hasher));
            begin = *end;
        }
        prefix_key(&hasher)
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
        let text_only = if has_images { "" } else { &template.system_text_only };
        let mut writer = Writer::new(self.parts.emptied(), template);
        writer.write(&[&template.begin]);
        if self.turns[0].0 != Role::System && !text_only.is_empty() {
            writer.write(&[&template.system_before, text_only, &template.system_after]);
        }
        let mut parts = self.parts.into_parts().into_iter();
        let mut begin = 0;
        for (role, end) in self.turns {
            let said = parts.by_ref().take(end - begin);
            begin = end;
            match role {
                Role::System => {
                    writer.write(&[&template.system_before, text_only]);
                    let told: String =
                        said.map(|part| if let Part::Text(text) = part { text } else { String::new() }).collect();
                    // As published templates have it.
                    writer.text.push_str(told.trim());
                    writer.write(&[&template.system_after]);
                }
                Role::User => {
                    writer.write(&[&template.user_before]);
                    let has_text = writer.parts(said, &template.user_text_before)?;
                    writer.write(&[if has_text { &template.user_after } else { &template.user_after_images }]);
                }
                Role::Assistant => {
                    writer.write(&[&template.answer_before]);
                    let said: Vec<Part> = said.collect();
                    let before = &template.answer_text_before;
                    let begun = matches!(said.first(), Some(Part::Text(text)) if text.starts_with(before));
                    writer.parts(said.into_iter(), if begun { "" } else { before })?;
                    // Who sends back what was written may send what stands around it too.
                    let ended = writer.text.ends_with(&template.answer_after);
                    writer.write(&[if ended { "" } else { &template.answer_after }]);
                }
            }
        }
        writer.write(&[&template.answer_before]);
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
struct Writer<'a> {
    template: &'a ChatTemplate,
    prompt: Prompt,
    text: String,
    /// How often the template has written each of the tokens that it keeps for itself.
    reserved: Vec<usize>,
}

impl<'a> Writer<'a> {
    fn new(prompt: Prompt, template: &'a ChatTemplate) -> Self {
        Writer { template, prompt, text: String::new(), reserved: vec![0; template.reserved.len()] }
    }

    /// Writes texts of the template.
    fn write(&mut self, texts: &[&str]) {
        for text in texts {
            for (count, token) in self.reserved.iter_mut().zip(&self.template.reserved) {
                *count += text.matches(token.as_str()).count();
            }
            self.text.push_str(text);
        }
    }

    /// Writes the parts of a turn, with `before` before the first text; whether there is one.
    fn parts(&mut self, parts: impl Iterator<Item = Part>, before: &str) -> Result<bool> {
        let mut has_text = false;
        for part in parts {
            match part {
                Part::Text(text) => {
                    self.write(&[if has_text { "" } else { before }]);
                    self.text.push_str(&text);
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

    /// Ends a part of text. What the template keeps for itself stands in it as often as the template has written it:
    /// neighbouring texts of turns spell nothing together either.
    fn flush(&mut self) -> Result<()> {
        for (count, token) in self.reserved.iter_mut().zip(&self.template.reserved) {
            if self.text.matches(token.as_str()).count() != std::mem::take(count) {
                return Err(Error::argument(format!("chat: expected turns without {token}, found one with it")));
            }
        }
        if !self.text.is_empty() {
            self.prompt.text(std::mem::take(&mut self.text))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(turns: &[(Role, &[&str])], template: &ChatTemplate) -> Result<String> {
        let mut chat = Chat::default();
        for (role, texts) in turns {
            let mut parts = Prompt::new();
            for text in *texts {
                parts.text(*text)?;
            }
            chat.turn(*role, parts)?;
        }
        let text = |part: &Part| if let Part::Text(text) = part { text.clone() } else { String::new() };
        Ok(chat.prompt(template)?.parts().iter().map(text).collect())
    }

    #[test]
    fn neighbouring_texts_forge_no_turn_together() {
        let template = ChatTemplate::named("idefics-instruct").unwrap();
        let (user, assistant) = (Role::User, Role::Assistant);
        let whole = prompt(&[(user, &["a<end_of_utterance>"])], &template);
        let parts = prompt(&[(user, &["a<end_of_", "utterance>b"])], &template);
        let answer = prompt(&[(user, &["a"]), (assistant, &["b<end_", "of_utterance>"]), (user, &["c"])], &template);
        let system = prompt(&[(Role::System, &["<end_of_utt", "erance>"]), (user, &["c"])], &template);
        for refused in [whole, parts, answer, system] {
            let error = refused.unwrap_err().to_string();
            assert_eq!(error, "chat: expected turns without <end_of_utterance>, found one with it");
        }
        let two = prompt(&[(user, &["a", "b"]), (assistant, &["c"]), (user, &["d"])], &template).unwrap();
        let expected =
            "User: ab<end_of_utterance>\nAssistant: c<end_of_utterance>\nUser: d<end_of_utterance>\nAssistant:";
        assert_eq!(two, expected);
    }
}

//! Prompts and conversations as requests write them: texts, and images and videos as data URIs. Nothing is fetched and
//! no file is read.

use serde_json::{Map, Value};

use super::body::{Body, at, invalid, of_prompt, over, shown};
use crate::chat::{Chat, Role};
use crate::error::Error;
use crate::family::ChatTemplate;
use crate::parse::{self, kind};
use crate::prompt::{Prompt, PromptLimits, uri_bytes, uri_image};
use crate::serve::call::Given;
use crate::serve::problem::Problem;
use crate::serve::settings::Settings;
use crate::video::{FrameSampling, Video};

/// Prompts of one request.
pub const PROMPTS_MAX: usize = 64;
/// Memory that a part takes beside its texts.
const PART_BYTES_MAX: usize = 1 << 20;
/// Kinds of parts, with the field of each.
const KINDS: &str = "text, input_text, output_text, image_url, input_image, input_json, video or video_url";
/// Keys of a message that change no prompt, if they are given.
const PASSED_OVER: [&str; 3] = ["name", "type", "phase"];

/// Reads parts, within what a server allows.
pub struct Reader {
    limits: PromptLimits,
    ffmpeg: bool,
}

/// How many images of the largest size a request may hold.
const LARGEST: u64 = 4;

/// The prompt of a conversation, and what the template puts around its answer.
pub struct Asked {
    pub prompt: Prompt,
    pub before: String,
    pub after: String,
}

impl Reader {
    pub fn new(settings: &Settings) -> Reader {
        let (images, pixels) = (settings.images_max, settings.pixels_max);
        let mut limits = PromptLimits::default().bytes_max(settings.body_max).images_max(images).frames_max(images);
        limits.pixels_max = pixels.saturating_mul(LARGEST);
        limits.image.pixels_max = pixels;
        limits.image.bytes_max = limits.image.bytes_max.min(settings.body_max);
        limits.video.pixels_max = pixels;
        limits.video.animation_bytes_max = limits.video.animation_bytes_max.min(pixels.saturating_mul(4));
        limits.video.time_max = limits.video.time_max.min(settings.request_timeout);
        Reader { limits, ffmpeg: settings.allow_ffmpeg }
    }

    /// What later prompts of the same request may hold beside this one.
    fn spend(&mut self, prompt: &Prompt) {
        let frames = || prompt.media().flatten();
        self.limits.images_max = self.limits.images_max.saturating_sub(prompt.media().count());
        self.limits.frames_max = self.limits.frames_max.saturating_sub(frames().count());
        let pixels: u64 = frames().map(|image| image.pixel_count()).sum();
        self.limits.pixels_max = self.limits.pixels_max.saturating_sub(pixels);
    }

    /// The prompts of a completion, and whether there is one alone: a text, an array of parts, or an array of texts and
    /// of arrays of parts.
    pub fn prompts(&mut self, key: &'static str, raw: &str) -> Result<(Vec<Prompt>, bool), Problem> {
        if raw.starts_with('"') {
            let text: String = serde_json::from_str(raw).map_err(|_| invalid(key, "a string", raw))?;
            return Ok((vec![self.of(Value::String(text), key)?], true));
        }
        let expected = "a string, an array of parts, or an array of strings and of arrays of parts";
        let mut prompts: Vec<Prompt> = Vec::new();
        let mut whole: Option<Prompt> = None;
        let mut problem = None;
        let read = parse::elements(key, [key, expected], raw, memory(raw), |place, item| {
            let named = format!("{key}[{place}]");
            let taken = match item {
                Value::Object(fields) if prompts.is_empty() => {
                    let prompt = whole.get_or_insert_with(|| Prompt::with_limits(self.limits.clone()));
                    self.part(prompt, fields, &named)
                }
                Value::Array(_) | Value::String(_) if whole.is_none() => {
                    if prompts.len() == PROMPTS_MAX {
                        Err(over(key, "prompts", PROMPTS_MAX, PROMPTS_MAX + 1))
                    } else {
                        self.of(item, &named).map(|prompt| {
                            self.spend(&prompt);
                            prompts.push(prompt);
                        })
                    }
                }
                Value::Number(_) => Err(invalid(&named, "texts and parts (tokens could spell an image)", "a number")),
                other => Err(invalid(&named, "all of them parts, or none", kind(&other))),
            };
            taken.map_err(|found| {
                problem = Some(found);
                Error::argument(key)
            })
        });
        match (read, problem, whole) {
            (_, Some(problem), _) => Err(problem),
            (Err(error), ..) => Err(at(key, error)),
            (Ok(()), None, Some(prompt)) => Ok((vec![prompt], true)),
            (Ok(()), None, None) if prompts.is_empty() => Err(invalid(key, "at least one part or prompt", "none")),
            (Ok(()), None, None) => Ok((prompts, false)),
        }
    }

    /// One prompt: a text, or an array of parts.
    pub fn prompt(&mut self, key: &'static str, raw: &str) -> Result<Prompt, Problem> {
        match self.prompts(key, raw)? {
            (mut prompts, true) => Ok(prompts.remove(0)),
            (..) => Err(invalid(key, "one prompt: a string or an array of parts", "several")),
        }
    }

    /// A text, or parts, that were read.
    pub fn of(&self, content: Value, place: &str) -> Result<Prompt, Problem> {
        let mut prompt = Prompt::with_limits(self.limits.clone());
        match content {
            Value::String(text) => drop(prompt.text(text).map_err(|error| of_prompt(param(place), error))?),
            Value::Array(parts) => {
                for (number, part) in parts.into_iter().enumerate() {
                    let place = format!("{place}[{number}]");
                    match part {
                        Value::Object(fields) => self.part(&mut prompt, fields, &place)?,
                        other => return Err(invalid(&place, "a part {\"type\": ...}", kind(&other))),
                    }
                }
            }
            other => return Err(invalid(place, "a string or an array of parts", kind(&other))),
        }
        Ok(prompt)
    }

    /// A conversation.
    pub fn chat(&mut self, key: &'static str, raw: &str) -> Result<Chat, Problem> {
        let mut chat = Chat::with_limits(self.limits.clone());
        let mut problem = None;
        let expected = "an array of {\"role\", \"content\"} messages";
        let read = parse::elements(key, [key, expected], raw, memory(raw), |place, item| {
            self.message(&mut chat, item, &format!("{key}[{place}]")).map_err(|found| {
                problem = Some(found);
                Error::argument(key)
            })
        });
        match (read, problem) {
            (_, Some(problem)) => Err(problem),
            (Err(error), None) => Err(at(key, error)),
            (Ok(()), None) => Ok(chat),
        }
    }

    fn message(&self, chat: &mut Chat, item: Value, place: &str) -> Result<(), Problem> {
        let Value::Object(mut fields) = item else {
            return Err(invalid(place, "{\"role\": ..., \"content\": ...}", kind(&item)));
        };
        fields.retain(|_, value| !value.is_null());
        let role = match fields.remove("role").as_ref().map(|role| role.as_str()) {
            Some(Some("system" | "developer")) => Role::System,
            Some(Some("user")) => Role::User,
            Some(Some("assistant")) => Role::Assistant,
            Some(Some(other)) => {
                return Err(invalid(&format!("{place}.role"), "system, developer, user or assistant", other));
            }
            Some(None) => return Err(invalid(&format!("{place}.role"), "a string", "another value")),
            None => return Err(invalid(&format!("{place}.role"), "system, developer, user or assistant", "none")),
        };
        let content = fields.remove("content");
        PASSED_OVER.iter().for_each(|key| drop(fields.remove(*key)));
        if fields.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(Vec::is_empty)) {
            fields.remove("tool_calls");
        }
        if let Some(key) = fields.keys().next() {
            return Err(invalid(place, "nothing beside role, content and name", key));
        }
        let content =
            content.ok_or_else(|| invalid(&format!("{place}.content"), "a string or an array of parts", "none"))?;
        let turn = self.of(content, &format!("{place}.content"))?;
        chat.turn(role, turn).map(drop).map_err(|error| of_prompt(param(place), error))
    }

    fn part(&self, prompt: &mut Prompt, mut fields: Map<String, Value>, place: &str) -> Result<(), Problem> {
        fields.retain(|_, value| !value.is_null());
        let named = match fields.remove("type") {
            Some(Value::String(named)) => named,
            Some(other) => return Err(invalid(&format!("{place}.type"), "a string", kind(&other))),
            // As prompt files have it.
            None => match fields.keys().find(|key| matches!(key.as_str(), "text" | "image" | "video")) {
                Some(key) => key.clone(),
                None => return Err(invalid(&format!("{place}.type"), KINDS, "none")),
            },
        };
        let outside = |error| of_prompt(param(place), error);
        // Says where others should cut their caches.
        fields.remove("prompt_cache_breakpoint");
        match named.as_str() {
            "text" | "input_text" | "output_text" => {
                ["annotations", "logprobs"].iter().for_each(|key| drop(fields.remove(*key)));
                let text = string(&mut fields, "text", place)?;
                prompt.text(text).map(drop).map_err(outside)?;
            }
            "image_url" | "input_image" => {
                let uri = uri(&mut fields, "image_url", place)?;
                self.image(prompt, &uri, place, "image_url")?;
            }
            "image" => {
                let uri = uri(&mut fields, "image", place)?;
                self.image(prompt, &uri, place, "image")?;
            }
            "input_json" => {
                let data = fields.remove("data").unwrap_or(Value::Null);
                if !(data.is_object() || data.is_array()) {
                    return Err(invalid(&format!("{place}.data"), "an object or an array", kind(&data)));
                }
                prompt.text(data.to_string()).map(drop).map_err(outside)?;
            }
            "video" | "video_url" => self.video(prompt, &mut fields, place)?,
            other => return Err(invalid(&format!("{place}.type"), KINDS, other)),
        }
        match fields.keys().next() {
            Some(key) => Err(invalid(place, &format!("no other fields in a part of type {named}"), key)),
            None => Ok(()),
        }
    }

    fn image(&self, prompt: &mut Prompt, uri: &str, place: &str, name: &str) -> Result<(), Problem> {
        let image = uri_image(uri, place, name, &self.limits.image);
        let added = image.and_then(|image| prompt.image(image).map(drop));
        added.map_err(|error| of_prompt(param(place), error))
    }

    /// Frames, or an animation; beside them which frames are taken.
    fn video(&self, prompt: &mut Prompt, fields: &mut Map<String, Value>, place: &str) -> Result<(), Problem> {
        let outside = |error| of_prompt(param(place), error);
        let mut sampling = FrameSampling::default();
        let number = |value: &Value| value.as_f64();
        if let Some(rate) = fields.remove("fps") {
            let found = || invalid(&format!("{place}.fps"), "a number", kind(&rate));
            sampling.per_second = number(&rate).ok_or_else(found)?;
        }
        let frames = match fields.remove("video") {
            Some(video) => video,
            None if fields.contains_key("video_url") => Value::String(uri(fields, "video_url", place)?),
            None => fields.remove("frames").unwrap_or(Value::Null),
        };
        if let Some(most) = fields.remove("frames") {
            let found = || invalid(&format!("{place}.frames"), "a whole number", kind(&most));
            sampling.frames_max = most.as_u64().and_then(|most| usize::try_from(most).ok()).ok_or_else(found)?;
        }
        sampling.check().map_err(outside)?;
        let video = match frames {
            Value::Array(frames) => {
                let frame = |(number, frame): (usize, Value)| match frame {
                    Value::String(uri) => {
                        uri_image(&uri, &format!("{place}.frames[{number}]"), "image", &self.limits.image)
                    }
                    other => Err(Error::invalid(place, format!("frames[{number}]"), "a data URI", kind(&other))),
                };
                Video::gather(place, &self.limits.video, frames.into_iter().enumerate().map(frame))
            }
            Value::String(uri) => uri_bytes(&uri, place, "video", self.limits.bytes_max).and_then(|bytes| {
                Video::decode(&bytes, place, &sampling, &self.limits.video, &self.limits.image, self.ffmpeg)
            }),
            other => return Err(invalid(place, "frames: data URIs, or video_url: a data URI", kind(&other))),
        };
        video.and_then(|video| prompt.video(video).map(drop)).map_err(outside)
    }
}

/// Memory of the largest element of an array: text takes what it takes, and the rest is small.
fn memory(raw: &str) -> usize {
    2 * raw.len() + PART_BYTES_MAX
}

/// The field of the body that a place is in.
fn param(place: &str) -> &str {
    place.split(['[', '.']).next().unwrap_or(place)
}

fn string(fields: &mut Map<String, Value>, key: &str, place: &str) -> Result<String, Problem> {
    match fields.remove(key) {
        Some(Value::String(text)) => Ok(text),
        other => Err(invalid(&format!("{place}.{key}"), "a string", other.as_ref().map_or("none", kind))),
    }
}

/// A text, or an object with one under `url`; what it says of detail is for models that choose between sizes.
fn uri(fields: &mut Map<String, Value>, key: &str, place: &str) -> Result<String, Problem> {
    fields.remove("detail");
    match fields.remove(key) {
        Some(Value::String(uri)) => Ok(uri),
        Some(Value::Object(mut inner)) => {
            let place = format!("{place}.{key}");
            inner.remove("detail");
            let uri = string(&mut inner, "url", &place)?;
            match inner.keys().next() {
                Some(key) => Err(invalid(&place, "url and detail alone", key)),
                None => Ok(uri),
            }
        }
        other => {
            let expected = "{\"url\": a data URI}";
            Err(invalid(&format!("{place}.{key}"), expected, other.as_ref().map_or("none", kind)))
        }
    }
}

/// The template of a request, or the server's.
pub fn template(body: &mut Body, given: &Given) -> Result<ChatTemplate, Problem> {
    const KEY: &str = "chat_template";
    let own = given.engine.preparer().tokenizer().chat();
    let template = match body.value(KEY)? {
        None => given.server.settings.chat_template.clone().unwrap_or_else(|| own.clone()),
        Some(Value::String(name)) => ChatTemplate::named(&name).map_err(|_| {
            let found = shown(&name);
            Problem::invalid(KEY, format!("{KEY}: expected the name of a template or an object, found {found:?}"))
        })?,
        Some(other) => ChatTemplate::from_value(other, KEY).map_err(|error| at(KEY, error))?,
    };
    // Whatever a template says, tokens of turns are nobody's to write.
    Ok(template.reserving(own))
}

/// A prompt as it is, or a conversation and how it is written.
pub enum Either {
    Prompt(Prompt),
    Chat(Chat, Box<ChatTemplate>),
}

/// The rest of a body that has `prompt` or, in its place, `messages`.
pub fn either(mut body: Body, given: &Given) -> Result<Either, Problem> {
    let (prompt, messages) = (body.raw("prompt"), body.raw("messages"));
    let template = template(&mut body, given)?;
    body.end(given)?;
    let mut reader = Reader::new(&given.server.settings);
    match (prompt, messages) {
        (Some(prompt), None) => reader.prompt("prompt", prompt).map(Either::Prompt),
        (None, Some(messages)) => Ok(Either::Chat(reader.chat("messages", messages)?, Box::new(template))),
        (Some(_), Some(_)) => Err(invalid("messages", "none beside prompt", "both")),
        (None, None) => Err(invalid("prompt", "a prompt, or messages", "none")),
    }
}

/// A conversation in the words of a template.
pub fn asked(chat: Chat, template: &ChatTemplate, key: &str) -> Result<Asked, Problem> {
    let prompt = chat.prompt(template).map_err(|error| of_prompt(key, error))?;
    Ok(Asked { prompt, before: template.answer_text_before.clone(), after: template.answer_after.clone() })
}

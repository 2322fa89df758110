//! The tokenizer of a model: the language model's, with the family's tokens behind its own.

use crate::checkpoint::{Folder, is_there, read_json};
use crate::error::{Error, Result};
use crate::family::open_flamingo::END_OF_CHUNK;
use crate::family::{CONFIG_BYTES_MAX, Family};
use crate::tokenizer::{TOKENIZER_BYTES_MAX, Tokenizer as Opened};
use serde_json::{Value, json};
use std::path::Path;

/// One past the largest id.
const ID_MAX: u64 = 1 << 24;

const PAD: &str = "<PAD>";

/// A tokenizer that knows the tokens of a family.
pub struct Tokenizer {
    family: &'static Family,
    /// `tokenizer.json`.
    pub json: Value,
    /// `tokenizer_config.json`.
    pub config: Value,
    /// How many ids there are.
    pub length: usize,
    /// The id of what ends a turn (`<|endofchunk|>`).
    pub end_of_chunk: usize,
    /// The id of the marker of an image (`<image>`).
    pub media: Option<usize>,
}

impl Tokenizer {
    /// Reads a language model's tokenizer and adds what training of the family added, in its order: the end of a turn,
    /// the image, what else the family has, and padding if there is none yet. The checkpoint's embedding, if it has
    /// one, tells by its rows whether training had to add padding in cases where the folder does not say.
    pub fn extend(folder: &Path, family: &'static Family, embedding_rows: Option<usize>) -> Result<Self> {
        let file = folder.join("tokenizer.json");
        if !is_there(&file) {
            let expected =
                "a tokenizer.json, as AutoTokenizer.from_pretrained(\"FOLDER\").save_pretrained(\"FOLDER\") writes it";
            return Err(Error::invalid(folder, "tokenizer.json", expected, "none"));
        }
        let json = read_json(&file, TOKENIZER_BYTES_MAX)?;
        let config = merged_config(folder)?;
        let length = length(&json, &file)?;
        let mut tokenizer = Tokenizer { family, length, json, config, end_of_chunk: 0, media: None };
        tokenizer.end_of_chunk = tokenizer.add(END_OF_CHUNK, &file)?;
        if family.template.image_tokens.is_empty() {
            tokenizer.media = Some(tokenizer.add(family.template.image, &file)?);
        }
        for token in family.more_tokens {
            tokenizer.add(token, &file)?;
        }
        let has_pad = tokenizer.config.get("pad_token").is_some_and(|token| !token.is_null());
        if !has_pad && embedding_rows.is_none_or(|rows| rows > tokenizer.length) {
            tokenizer.add(PAD, &file)?;
            tokenizer.config["pad_token"] = PAD.into();
        }
        Ok(tokenizer)
    }

    /// What was written, read as every model's is: its tokens must have the numbers that they were given.
    pub fn open(&self, folder: Folder) -> Result<Opened> {
        let opened = Opened::open(folder, self.family, self.length)?;
        let template = &self.family.template;
        let media = self.media.map(|media| (template.image, media, opened.media.first().copied()));
        let turn_end = (END_OF_CHUNK, self.end_of_chunk, opened.turn_end);
        for (token, expected, found) in [turn_end].into_iter().chain(media) {
            if found.is_none_or(|found| found as usize != expected) {
                let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
                let file = folder.path("tokenizer.json");
                return Err(Error::invalid(file, token, format!("the id {expected}"), found));
            }
        }
        Ok(opened)
    }

    /// Makes `content` a special token, with a new id unless it has one.
    fn add(&mut self, content: &str, file: &Path) -> Result<usize> {
        let id = match self.added(content) {
            Some(id) => id,
            None => {
                let id = vocabulary_id(&self.json, content).unwrap_or(self.length);
                self.append(content, id, file)?;
                id
            }
        };
        self.length = self.length.max(id + 1);
        self.list_special(content, id);
        Ok(id)
    }

    /// The id of a token that was added before; it is made special.
    fn added(&mut self, content: &str) -> Option<usize> {
        let tokens = self.json.get_mut("added_tokens")?.as_array_mut()?;
        let token = tokens.iter_mut().find(|token| token["content"] == content)?;
        token["special"] = true.into();
        token["id"].as_u64().map(|id| id as usize)
    }

    fn append(&mut self, content: &str, id: usize, file: &Path) -> Result<()> {
        let mut token = special(content);
        token["id"] = id.into();
        let tokens = self.json.as_object_mut().map(|json| json.entry("added_tokens").or_insert_with(|| json!([])));
        match tokens.and_then(Value::as_array_mut) {
            Some(tokens) => tokens.push(token),
            None => return Err(Error::invalid(file, "added_tokens", "an array", "something else")),
        }
        Ok(())
    }

    /// Names the token in the configuration, where transformers looks for it.
    fn list_special(&mut self, content: &str, id: usize) {
        if let Some(decoder) = self.config.get_mut("added_tokens_decoder").and_then(Value::as_object_mut) {
            decoder.insert(id.to_string(), special(content));
        }
        if content == PAD {
            return;
        }
        let listed = &mut self.config["additional_special_tokens"];
        if !listed.is_array() {
            *listed = json!([]);
        }
        if let Some(listed) = listed.as_array_mut()
            && !listed
                .iter()
                .any(|token| token == content || token.get("content").is_some_and(|token| token == content))
        {
            listed.push(content.into());
        }
    }
}

/// A special token as `tokenizer.json` and `tokenizer_config.json` describe it.
fn special(content: &str) -> Value {
    json!({
        "content": content,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": true,
    })
}

/// `tokenizer_config.json`, with those special tokens that only `special_tokens_map.json` has.
fn merged_config(folder: &Path) -> Result<Value> {
    let object = |name| Folder::Disk(folder).object_if_there(name, CONFIG_BYTES_MAX);
    let mut config = object("tokenizer_config.json")?;
    for (name, token) in object("special_tokens_map.json")? {
        let present = config.entry(name).or_insert(Value::Null);
        if present.is_null() {
            *present = token;
        }
    }
    Ok(Value::Object(config))
}

/// The number of ids: those of the model's vocabulary and of the tokens added to it.
fn length(json: &Value, file: &Path) -> Result<usize> {
    let vocabulary = match &json["model"]["vocab"] {
        Value::Object(vocabulary) => vocabulary.len(),
        Value::Array(vocabulary) => vocabulary.len(),
        _ => return Err(Error::invalid(file, "model.vocab", "an object or an array", "something else")),
    };
    let mut length = vocabulary;
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        match token["id"].as_u64() {
            Some(id) if id < ID_MAX => length = length.max(id as usize + 1),
            _ => return Err(Error::invalid(file, "added_tokens", format!("ids below {ID_MAX}"), token)),
        }
    }
    Ok(length)
}

/// The id of a token in the model's vocabulary.
fn vocabulary_id(json: &Value, content: &str) -> Option<usize> {
    match &json["model"]["vocab"] {
        Value::Object(vocabulary) => vocabulary.get(content)?.as_u64().filter(|&id| id < ID_MAX).map(|id| id as usize),
        Value::Array(vocabulary) => vocabulary.iter().position(|token| token[0] == content),
        _ => None,
    }
}

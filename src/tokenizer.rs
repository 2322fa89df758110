//! Text to tokens and back, and the tokens that mean something to the family: image markers and stops.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::Tokenizer as HuggingFace;

use crate::checkpoint::Folder;
use crate::error::{Error, Result};
use crate::family::{Family, Template};

/// Largest tokenizer file that is read; the largest of the family is 2 MB.
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 64 << 20;

/// The tokenizer of a model folder.
pub struct Tokenizer {
    inner: HuggingFace,
    /// The token that stands for an image.
    pub media: u32,
    /// Stands around images, if the family has such a token.
    pub fence: Option<u32>,
    /// Ends a turn, if there are turns.
    pub turn_end: Option<u32>,
    /// What begins the text of a prompt; empty if the tokenizer adds a begin by itself.
    pub begin: String,
    /// Ends a document, if the family knows documents.
    pub end: Option<u32>,
    family: &'static Family,
    /// Rows of the embedding.
    vocabulary: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and the names of special tokens from `tokenizer_config.json` if there is one.
    ///
    /// # Errors
    /// A file that is missing, oversized or malformed; a token of the family that is not in it.
    pub fn open(folder: Folder, family: &'static Family, vocabulary: usize) -> Result<Self> {
        let (file, names) = ("tokenizer.json", "tokenizer_config.json");
        let value = folder.json(file, TOKENIZER_BYTES_MAX)?;
        let names = folder.object_if_there(names, TOKENIZER_BYTES_MAX)?;
        Self::new(&folder.path(file), value, &names, family, vocabulary)
    }

    fn new(
        file: &Path,
        value: Value,
        names: &Map<String, Value>,
        family: &'static Family,
        vocabulary: usize,
    ) -> Result<Self> {
        let malformed = |error: &dyn std::fmt::Display| Error::invalid(file, "tokenizer", "a tokenizers file", error);
        let mut inner: HuggingFace = serde_json::from_value(value).map_err(|error| malformed(&error))?;
        inner.with_truncation(None).map_err(|error| malformed(&error))?;
        inner.with_padding(None);
        let named = |key: &str, default: &str| match names.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(token)) => {
                token.get("content").and_then(|text| text.as_str()).unwrap_or(default).to_owned()
            }
            _ => default.to_owned(),
        };
        let id = |text: &str| {
            inner
                .token_to_id(text)
                .ok_or_else(|| Error::invalid(file, "vocabulary", format!("the token {text}"), "none"))
        };
        let template = &family.template;
        let media = id(template.image)?;
        let end = template.document_end.map(|end| id(&named("eos_token", end))).transpose()?;
        let turn_end = match template.turn_end_optional {
            true => inner.token_to_id(template.turn_end),
            false => Some(id(template.turn_end)?),
        };
        let fence = template.fence.map(id).transpose()?;
        let ends = [end, turn_end];
        for token in ends.iter().flatten().chain([&media]).chain(&fence) {
            if *token as usize >= vocabulary {
                let expected = format!("ids below the {vocabulary} rows of the embedding");
                return Err(Error::invalid(file, "vocabulary", expected, token));
            }
        }
        if let Some(end) = ends.iter().flatten().find(|&&end| end == media || Some(end) == fence) {
            return Err(Error::invalid(file, "eos_token", "a token that is no image marker", end));
        }
        let begin = template.begin.map(|begin| named("bos_token", begin)).unwrap_or_default();
        if template.begin.is_some() {
            id(&begin)?;
        }
        Ok(Tokenizer { inner, media, fence, turn_end, begin, end, family, vocabulary })
    }

    /// Tokens of a whole prompt. Where its text has no begin, the tokenizer may add one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, self.template().begin.is_none())
    }

    /// Tokens of a continuation: nothing is added.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, special).map_err(|error| Error::argument(format!("prompt: {error}")))?;
        let ids = encoding.get_ids();
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary) {
            let expected = format!("prompt: expected tokens below the {} rows of the embedding", self.vocabulary);
            return Err(Error::argument(format!("{expected}, found {id} ({})", self.token(*id))));
        }
        Ok(ids.to_vec())
    }

    /// Text of tokens, special ones left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        // Decoding fails only for a decoder that rejects its own tokens; such tokens have no text.
        self.inner.decode(ids, true).unwrap_or_default()
    }

    /// The token as its vocabulary writes it.
    pub fn token(&self, id: u32) -> String {
        self.inner.id_to_token(id).unwrap_or_default()
    }

    /// Markers that a text part may not hold.
    pub(crate) fn markers(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.template().image), self.template().fence].into_iter().flatten()
    }

    /// Tokens of the markers of images, which are never written.
    pub(crate) fn marker_ids(&self) -> Vec<u32> {
        [Some(self.media), self.fence].into_iter().flatten().collect()
    }

    /// Tokens that end an answer: the end of a turn, and that of a document or what a file of the folder names in its
    /// place.
    pub(crate) fn ends(&self, named: &[u32]) -> Vec<u32> {
        let mut ends = named.to_vec();
        let own = self.end.filter(|_| named.is_empty()).into_iter().chain(self.turn_end);
        own.for_each(|end| {
            if !ends.contains(&end) {
                ends.push(end)
            }
        });
        ends
    }

    /// How prompts are written.
    pub fn template(&self) -> &'static Template {
        &self.family.template
    }

    /// The built-in template of evaluations that fits: another one where there are turns.
    pub fn evaluation(&self) -> &'static str {
        self.family.evaluations[usize::from(self.turn_end.is_some())]
    }

    /// The family whose prompts it writes.
    pub fn family(&self) -> &'static Family {
        self.family
    }
}

/// Turns tokens into text as they come, without ever giving half a character or a word that the next token changes.
#[derive(Debug, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    /// Tokens before this one are given out and no longer influence what follows.
    settled: usize,
    /// Tokens before this one are given out.
    given: usize,
}

impl TextStream {
    /// The text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        self.ids.push(id);
        let before = tokenizer.decode(&self.ids[self.settled..self.given]);
        let now = tokenizer.decode(&self.ids[self.settled..]);
        if now.len() <= before.len() || now.ends_with('\u{fffd}') {
            return String::new();
        }
        self.settled = self.given;
        self.given = self.ids.len();
        now.get(before.len()..).unwrap_or_default().to_owned()
    }

    /// What is left when no more tokens come.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> String {
        let before = tokenizer.decode(&self.ids[self.settled..self.given]);
        let now = tokenizer.decode(&self.ids[self.settled..]);
        self.given = self.ids.len();
        now.get(before.len()..).unwrap_or_default().to_owned()
    }
}

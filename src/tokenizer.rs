//! Text to tokens and back, and the tokens that mean something to the family: image markers and stops.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::Tokenizer as HuggingFace;

use crate::checkpoint::Folder;
use crate::config::Family;
use crate::error::{Error, Result};

/// Largest tokenizer file that is read; the largest of the family is 2 MB.
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 64 << 20;

/// The tokenizer of a model folder.
pub struct Tokenizer {
    inner: HuggingFace,
    /// The token that stands for an image.
    pub media: u32,
    /// IDEFICS puts this token around images.
    pub fence: Option<u32>,
    /// IDEFICS-instruct ends each turn with this token.
    pub end_of_utterance: Option<u32>,
    /// Text of the token that begins a sequence.
    pub begin: String,
    /// Ends a document; IDEFICS forgets the image after it.
    pub end: Option<u32>,
    /// Generation ends with any of these.
    pub stops: Vec<u32>,
    family: Family,
    /// Rows of the embedding.
    vocabulary: usize,
}

/// IDEFICS's fence around images.
pub(crate) const FENCE: &str = "<fake_token_around_image>";
/// The image marker of both families.
pub(crate) const MEDIA: &str = "<image>";
/// End of a turn in IDEFICS-instruct.
pub(crate) const END_OF_UTTERANCE: &str = "<end_of_utterance>";
/// End of an example in OpenFlamingo.
pub(crate) const END_OF_CHUNK: &str = "<|endofchunk|>";

impl Tokenizer {
    /// Reads `tokenizer.json`, and the names of special tokens from `tokenizer_config.json` if there is one.
    ///
    /// # Errors
    /// A file that is missing, oversized or malformed; a token of the family that is not in it.
    pub fn open(folder: Folder, family: Family, vocabulary: usize) -> Result<Self> {
        let (file, names) = ("tokenizer.json", "tokenizer_config.json");
        let value = folder.json(file, TOKENIZER_BYTES_MAX)?;
        let names = folder.object_if_there(names, TOKENIZER_BYTES_MAX)?;
        Self::new(&folder.path(file), value, &names, family, vocabulary)
    }

    fn new(file: &Path, value: Value, names: &Map<String, Value>, family: Family, vocabulary: usize) -> Result<Self> {
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
        let media = id(MEDIA)?;
        let (fence, end_of_utterance, end, stops) = match family {
            Family::Idefics => {
                let end = id(&named("eos_token", "</s>"))?;
                let turn = inner.token_to_id(END_OF_UTTERANCE);
                (Some(id(FENCE)?), turn, Some(end), [Some(end), turn].into_iter().flatten().collect())
            }
            Family::OpenFlamingo => (None, None, None, vec![id(END_OF_CHUNK)?]),
        };
        for token in stops.iter().chain([&media]).chain(&fence) {
            if *token as usize >= vocabulary {
                let expected = format!("ids below the {vocabulary} rows of the embedding");
                return Err(Error::invalid(file, "vocabulary", expected, token));
            }
        }
        if let Some(stop) = stops.iter().find(|&&stop| stop == media || Some(stop) == fence) {
            return Err(Error::invalid(file, "eos_token", "a token that is no image marker", stop));
        }
        let begin = named("bos_token", "<s>");
        if family == Family::Idefics {
            id(&begin)?;
        }
        Ok(Tokenizer { inner, media, fence, end_of_utterance, begin, end, stops, family, vocabulary })
    }

    /// Tokens of a whole prompt. OpenFlamingo's language models add their own begin token, IDEFICS has it in the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, self.family == Family::OpenFlamingo)
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
        [Some(MEDIA), self.fence.map(|_| FENCE)].into_iter().flatten()
    }

    /// Tokens that are never generated.
    pub fn suppressed(&self) -> Vec<u32> {
        [Some(self.media), self.fence].into_iter().flatten().collect()
    }

    /// The family whose prompts it writes.
    pub fn family(&self) -> Family {
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

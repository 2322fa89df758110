//! Text to tokens and back, and the tokens that mean something to the family: image markers and stops.

mod charsmap;
mod component;
mod decoder;
mod file;
mod pipeline;
mod stream;

pub use stream::TextStream;

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::Model as _;

use crate::checkpoint::Folder;
use crate::error::{Error, Result};
use crate::family::{Begin, ChatTemplate, Family, Template};
use crate::parse;
use decoder::Decoder;
use file::Pipeline;

/// Largest tokenizer file that is read; the largest of the family is 2 MB.
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a text as it reaches the model, after normalizers and pre-tokenizers; fewer for a slow model.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of white space in a row, likewise.
const SPACES_MAX: u64 = 1 << 19;

/// The tokenizer of a model folder.
pub struct Tokenizer {
    pipeline: Pipeline,
    /// The tokens that stand for an image: one, or any of several.
    pub media: Vec<u32>,
    /// Stands around images, if the family has such a token.
    pub fence: Option<u32>,
    /// Ends a turn, if there are turns.
    pub turn_end: Option<u32>,
    /// The text of [`Template::begin`]; empty if the tokenizer adds a begin by itself.
    pub begin: String,
    /// Ends a document, if the family knows documents.
    pub end: Option<u32>,
    family: &'static Family,
    template: Template,
    chat: ChatTemplate,
    /// Rows of the embedding.
    vocabulary: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and the names of special tokens from `tokenizer_config.json` if there is one.
    ///
    /// Of the components that `tokenizer.json` can have, those are read that published models of the families have:
    /// BPE and Unigram; normal forms, Prepend, Replace, Strip, Lowercase, SentencePiece's map of characters; ByteLevel,
    /// Split by a text or by the expression of GPT-2 or Llama 3, Digits, Metaspace; templates; the decoders of these.
    ///
    /// # Errors
    /// A file that is missing, oversized or malformed; a component or setting of another kind; a token of the family
    /// that is not in it.
    pub fn open(folder: Folder, family: &'static Family, vocabulary: usize) -> Result<Self> {
        let (file, names) = ("tokenizer.json", "tokenizer_config.json");
        let names = folder.object_if_there(names, TOKENIZER_BYTES_MAX)?;
        let path = folder.path(file);
        if !folder.has(file) {
            let way = "`flamant convert --model MODEL --tokenizer FOLDER` makes one of the language model's";
            return Err(Error::invalid(path, "tokenizer", format!("a file ({way})"), "none"));
        }
        let bytes = folder.read(file, TOKENIZER_BYTES_MAX)?;
        let text = parse::text(&path, "text", &bytes)?;
        // A panic here is a fault of what looks at the file, or of the crate behind it: of no one's process.
        let pipeline = Error::catch("reading tokenizer.json", || file::read(&path, text))?;
        Self::new(&path, pipeline, &names, family, vocabulary)
    }

    fn new(
        file: &Path,
        pipeline: Pipeline,
        names: &Map<String, Value>,
        family: &'static Family,
        vocabulary: usize,
    ) -> Result<Self> {
        let named = |key: &str, default: &str| match names.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(token)) => {
                token.get("content").and_then(|text| text.as_str()).unwrap_or(default).to_owned()
            }
            _ => default.to_owned(),
        };
        let id = |text: &str| {
            pipeline
                .encoder
                .token_to_id(text)
                .ok_or_else(|| Error::invalid(file, "vocabulary", format!("the token {text}"), "none"))
        };
        let template = &family.template;
        let media: Vec<u32> = match template.image_tokens {
            [] => vec![id(template.image)?],
            [first, ..] => {
                id(first)?;
                template.image_tokens.iter().filter_map(|token| pipeline.encoder.token_to_id(token)).collect()
            }
        };
        let end = template.document_end.map(|end| id(&named("eos_token", end))).transpose()?;
        let turn_end = match (template.turn_end, template.turn_end_optional) {
            (None, _) => None,
            (Some(turn_end), true) => pipeline.encoder.token_to_id(turn_end),
            (Some(turn_end), false) => Some(id(turn_end)?),
        };
        let fence = template.fence.map(id).transpose()?;
        let ends = [end, turn_end];
        for token in ends.iter().flatten().chain(&media).chain(&fence) {
            if *token as usize >= vocabulary {
                let expected = format!("ids below the {vocabulary} rows of the embedding");
                return Err(Error::invalid(file, "vocabulary", expected, token));
            }
        }
        if let Some(end) = ends.iter().flatten().find(|&&end| media.contains(&end) || Some(end) == fence) {
            return Err(Error::invalid(file, "eos_token", "a token that is no image marker", end));
        }
        let begin = match template.begin {
            Begin::Tokenizer => String::new(),
            Begin::Text(begin) | Begin::BehindImages(begin) => named("bos_token", begin),
        };
        if !begin.is_empty() {
            id(&begin)?;
        }
        let template = family.template;
        let chat = family.chats[usize::from(turn_end.is_some())]();
        Ok(Tokenizer { pipeline, media, fence, turn_end, begin, end, family, template, chat, vocabulary })
    }

    /// The same for a model whose configuration changes the family's template in what is no token.
    pub(crate) fn with_template(self, template: Template) -> Tokenizer {
        Tokenizer { template, ..self }
    }

    /// The same for a model whose conversations are not those of its family.
    pub(crate) fn with_chat(self, chat: ChatTemplate) -> Tokenizer {
        Tokenizer { chat, ..self }
    }

    /// Tokens of a whole prompt. Where its text has no begin, the tokenizer may add one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let adds = match self.template().begin {
            Begin::Tokenizer => true,
            Begin::Text(_) => false,
            Begin::BehindImages(_) => !text.starts_with(&self.begin),
        };
        self.encode_with(text, adds)
    }

    /// Tokens of a continuation: nothing is added.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let Pipeline { encoder, around, cost, .. } = &self.pipeline;
        let bytes = (text.len() as u64).saturating_mul(*cost);
        if bytes > TEXT_BYTES_MAX {
            return Err(Error::limit("bytes of a text for the tokenizer", TEXT_BYTES_MAX, bytes));
        }
        // Expressions that look ahead keep a place for each character that they may give back, a million of them.
        let spaces = text.split(|character: char| !character.is_whitespace()).map(str::len).max().unwrap_or(0) as u64;
        if spaces * cost > SPACES_MAX {
            return Err(Error::limit("bytes of white space in a row for the tokenizer", SPACES_MAX, spaces * cost));
        }
        let encoding = Error::catch("making tokens of a text", || {
            encoder.encode_fast(text, false).map_err(|error| Error::argument(format!("prompt: {error}")))
        })?;
        let mut ids = encoding.get_ids().to_vec();
        if special {
            ids = [&around.before, &ids[..], &around.after].concat();
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary) {
            let expected = format!("prompt: expected tokens below the {} rows of the embedding", self.vocabulary);
            return Err(Error::argument(format!("{expected}, found {id} ({})", self.token(*id))));
        }
        Ok(ids)
    }

    /// Text of tokens, special ones left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = TextStream::default();
        let mut text: String = ids.iter().map(|&id| stream.push(self, id)).collect();
        text += &stream.finish(self);
        text
    }

    /// The token as its vocabulary writes it.
    pub fn token(&self, id: u32) -> String {
        self.pipeline.encoder.id_to_token(id).unwrap_or_default()
    }

    /// The bytes of text that a token stands for, a space before a word included; of a special token its name.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        match self.written(id) {
            Some(token) => self.decoder().bytes(&token),
            None => self.token(id).into_bytes(),
        }
    }

    /// Whether no text is written for a token: it ends something, or stands for an image.
    pub fn is_special(&self, id: u32) -> bool {
        self.written(id).is_none()
    }

    /// The token as it is decoded; none if it is special, or no token.
    fn written(&self, id: u32) -> Option<String> {
        let encoder = &self.pipeline.encoder;
        let added = encoder.get_added_vocabulary();
        let token = added.simple_id_to_token(id).or_else(|| encoder.get_model().id_to_token(id))?;
        (!added.is_special_token(&token)).then_some(token)
    }

    fn decoder(&self) -> &Decoder {
        &self.pipeline.decoder
    }

    /// Markers that a text part may not hold.
    pub(crate) fn markers(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.template().image), self.template().fence].into_iter().flatten()
    }

    /// Tokens of the markers of images, which are never written.
    pub(crate) fn marker_ids(&self) -> Vec<u32> {
        // A token of text may be written.
        let media = self.media.iter().filter(|_| self.template.image_tokens.is_empty()).copied();
        media.chain(self.fence).collect()
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
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The built-in template of evaluations that fits: another one where there are turns.
    pub fn evaluation(&self) -> &'static str {
        self.family.evaluations[usize::from(self.turn_end.is_some())]
    }

    /// How turns of a conversation become a prompt.
    pub fn chat(&self) -> &ChatTemplate {
        &self.chat
    }

    /// The family whose prompts it writes.
    pub fn family(&self) -> &'static Family {
        self.family
    }
}

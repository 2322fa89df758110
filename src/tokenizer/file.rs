//! `tokenizer.json`, read into what is known of it. The crate `tokenizers` is given components that were looked at one
//! by one; it never reads the file itself, whose settings can make it panic, ask for any memory, or not end.

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::{AddedToken, Model as _, ModelWrapper, Tokenizer as Encoder};

use super::component::Component;
use super::decoder::Decoder;
use super::pipeline::{self, Around, GROWTH_MAX, ID_MAX};
use crate::error::{Error, Result};
use crate::parse;

/// Most tokens of the model's own vocabulary; Llama 3 has 128,000.
const VOCABULARY_MAX: usize = 1 << 19;
/// Most merges; Llama 3 has 280,147.
const MERGES_MAX: usize = 1 << 20;
/// Longest token, in bytes; longest of a Unigram, which looks at all pieces that begin at each byte of a text.
const TOKEN_BYTES_MAX: usize = 4096;
const PIECE_BYTES_MAX: usize = 64;
/// What this costs, in bytes of a text of a BPE.
const UNIGRAM_COST: u64 = 16;
/// Most tokens added to the vocabulary, and the most bytes of all, as normalizers may make them.
const ADDED_MAX: usize = 1 << 14;
const ADDED_BYTES_MAX: u64 = 4 << 20;

/// What a file says.
pub struct Pipeline {
    /// From text to tokens, but for those around a text.
    pub encoder: Encoder,
    /// From tokens to text.
    pub decoder: Decoder,
    /// What stands around a text.
    pub around: Around,
    /// What a byte of a text costs: how many times as long a text may become, times what the model costs.
    pub cost: u64,
}

/// Reads the text of a `tokenizer.json`.
///
/// `truncation` and `padding` are passed over: transformers, too, cuts and pads only where a call asks for it.
///
/// # Errors
/// A component or setting that is not on the lists, by its name; numbers beyond their limits; vocabularies that
/// contradict themselves.
pub fn read(file: &Path, text: &str) -> Result<Pipeline> {
    // What serde derives for a struct would take an array as well.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Error::invalid(file, "tokenizer", "a tokenizers file", "no object"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let read: File = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let key = match error.path().to_string() {
            path if path == "." => "tokenizer".to_owned(),
            path => path,
        };
        Error::malformed(file, key, "a tokenizers file", error.into_inner())
    })?;
    if let Some(version) = read.version.filter(|version| version != "1.0") {
        return Err(Error::invalid(file, "version", "\"1.0\"", format!("{version:?}")));
    }
    let (normalizer, made_longer) = pipeline::normalizer(Component::read(file, "normalizer", &read.normalizer)?)?;
    let pre_tokenizer = Component::read(file, "pre_tokenizer", &read.pre_tokenizer)?;
    let (pre_tokenizer, cut_longer) = pipeline::pre_tokenizer(pre_tokenizer)?;
    let growth = made_longer * cut_longer;
    if growth > GROWTH_MAX {
        let expected = format!("with the normalizer, what makes a text at most {GROWTH_MAX} times as long");
        return Err(Error::invalid(file, "pre_tokenizer", expected, format!("{growth} times")));
    }
    let around = Around::read(Component::read(file, "post_processor", &read.post_processor)?)?;
    let decoder = Decoder::read(Component::read(file, "decoder", &read.decoder)?)?;

    let cost = if read.model.kind == Some(Kind::Unigram) { growth * UNIGRAM_COST } else { growth };
    let mut encoder = Encoder::new(read.model.build(file)?);
    let unusable = |reason: tokenizers::Error| Error::invalid(file, "tokenizer", "components that go together", reason);
    encoder.with_normalizer(normalizer).map_err(unusable)?;
    encoder.with_pre_tokenizer(pre_tokenizer);
    add_tokens(&mut encoder, file, read.added_tokens, made_longer)?;
    Ok(Pipeline { encoder, decoder, around, cost })
}

/// Adds the tokens that stand beside the model's vocabulary.
fn add_tokens(encoder: &mut Encoder, file: &Path, List(tokens): List<Added, ADDED_MAX>, growth: u64) -> Result<()> {
    let invalid = |index: usize, expected: &dyn Display, found: &dyn Display| {
        Err(Error::invalid(file, format!("added_tokens.{index}"), expected, found))
    };
    let bytes: u64 = tokens.iter().map(|token| token.content.len() as u64).sum();
    if bytes * growth > ADDED_BYTES_MAX {
        let what = format!("{}: added_tokens: bytes of all, as the normalizer makes them", file.display());
        return Err(Error::limit(what, ADDED_BYTES_MAX, bytes * growth));
    }
    let mut seen = HashSet::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.content.is_empty() {
            return invalid(index, &"a text", &"an empty one");
        }
        if !seen.insert(&token.content) {
            return invalid(index, &"each text once", &format!("{:?} twice", token.content));
        }
    }
    let all = tokens.iter().map(|token| AddedToken {
        content: token.content.clone(),
        single_word: token.single_word,
        lstrip: token.lstrip,
        rstrip: token.rstrip,
        normalized: token.normalized.unwrap_or(!token.special),
        special: token.special,
    });
    encoder
        .add_tokens(all)
        .map_err(|reason| Error::invalid(file, "added_tokens", "texts that can be told apart", reason))?;
    for (index, token) in tokens.iter().enumerate() {
        match encoder.token_to_id(&token.content) {
            Some(id) if id == token.id => {}
            found => {
                let expected = format!("the id {} of {:?}, by the vocabulary and the order", token.id, token.content);
                return invalid(index, &expected, &found.map_or("none".to_owned(), |id| id.to_string()));
            }
        }
        if let Some(word) = encoder.get_model().id_to_token(token.id).filter(|word| *word != token.content) {
            let expected = format!("the id {} for {:?} alone", token.id, token.content);
            return invalid(index, &expected, &format!("it for {word:?} of the vocabulary too"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Option<String>,
    #[serde(rename = "truncation")]
    _truncation: Option<IgnoredAny>,
    #[serde(rename = "padding")]
    _padding: Option<IgnoredAny>,
    #[serde(default)]
    added_tokens: List<Added, ADDED_MAX>,
    #[serde(default, deserialize_with = "parse::small")]
    normalizer: Value,
    #[serde(default, deserialize_with = "parse::small")]
    pre_tokenizer: Value,
    #[serde(default, deserialize_with = "parse::small")]
    post_processor: Value,
    #[serde(default, deserialize_with = "parse::small")]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
enum Kind {
    #[serde(rename = "BPE")]
    Bpe,
    Unigram,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    /// Files of old do not say it.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    unk_id: Option<usize>,
    vocab: Vocabulary,
    merges: Option<List<Merge, MERGES_MAX>>,
}

impl Model {
    fn build(self, file: &Path) -> Result<ModelWrapper> {
        let invalid = |key: &str, expected: &str, found: &dyn Display| {
            Err(Error::invalid(file, format!("model.{key}"), expected, found))
        };
        if let Some(dropout) = self.dropout.filter(|dropout| *dropout != 0.0) {
            return invalid("dropout", "none: a text has the same tokens each time", &dropout);
        }
        for (key, affix) in [
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ] {
            if let Some(affix) = affix.as_deref().filter(|affix| !affix.is_empty()) {
                return invalid(key, "none", &format!("{affix:?}"));
            }
        }
        match (self.kind.unwrap_or(Kind::Bpe), self.vocab) {
            (Kind::Bpe, Vocabulary::Ids(ids)) => {
                if self.unk_id.is_some() {
                    return invalid("unk_id", "none in a BPE", &"one");
                }
                let merges = self.merges.unwrap_or_default().0;
                check_ids(file, &ids)?;
                // An empty one is none; any other would be missed at the first character that has no token.
                let unknown = self.unk_token.as_ref();
                if let Some(unknown) = unknown.filter(|token| !token.is_empty() && !ids.contains_key(*token)) {
                    return invalid("unk_token", "a token of the vocabulary", &format!("{unknown:?}"));
                }
                let merges = check_merges(file, &ids, merges)?;
                let mut builder = BPE::builder()
                    .vocab_and_merges(ids, merges)
                    .fuse_unk(self.fuse_unk.unwrap_or(false))
                    .byte_fallback(self.byte_fallback.unwrap_or(false))
                    .ignore_merges(self.ignore_merges.unwrap_or(false));
                if let Some(unknown) = self.unk_token {
                    builder = builder.unk_token(unknown);
                }
                let model = builder.build().map_err(|reason| Error::invalid(file, "model", "a BPE", reason))?;
                Ok(ModelWrapper::BPE(model))
            }
            (Kind::Unigram, Vocabulary::Scores(scores)) => {
                if self.merges.is_some() || self.ignore_merges.is_some() {
                    return invalid("merges", "none in a Unigram", &"some");
                }
                let mut seen = HashSet::new();
                if let Some((piece, _)) = scores.iter().find(|(piece, _)| !seen.insert(piece)) {
                    return invalid("vocab", "each piece once", &format!("{piece:?} twice"));
                }
                if let Some((piece, _)) = scores.iter().find(|(piece, _)| piece.len() > PIECE_BYTES_MAX) {
                    let expected = format!("pieces of at most {PIECE_BYTES_MAX} bytes");
                    return invalid("vocab", &expected, &format!("one of {}", piece.len()));
                }
                let model = Unigram::from(scores, self.unk_id, self.byte_fallback.unwrap_or(false));
                let model = model.map_err(|reason| Error::invalid(file, "model", "a Unigram", reason))?;
                Ok(ModelWrapper::Unigram(model))
            }
            (Kind::Bpe, Vocabulary::Scores(_)) => invalid("vocab", "an object of ids in a BPE", &"an array"),
            (Kind::Unigram, Vocabulary::Ids(_)) => invalid("vocab", "an array of scores in a Unigram", &"an object"),
        }
    }
}

/// No two tokens have one id: which of them it meant would be by chance.
fn check_ids(file: &Path, ids: &Ids) -> Result<()> {
    let mut all: Vec<u32> = ids.values().copied().collect();
    all.sort_unstable();
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::invalid(file, "model.vocab", "each id once", format!("{} twice", pair[0]))),
        None => Ok(()),
    }
}

/// The two sides of each merge, which with what they make are in the vocabulary.
fn check_merges(file: &Path, ids: &Ids, merges: Vec<Merge>) -> Result<Vec<(String, String)>> {
    let mut made = String::new();
    let mut all = Vec::with_capacity(merges.len());
    for (index, Merge(left, right)) in merges.into_iter().enumerate() {
        made.clear();
        made.push_str(&left);
        made.push_str(&right);
        if let Some(missing) = [&left, &right, &made].into_iter().find(|token| !ids.contains_key(*token)) {
            let found = format!("{missing:?}, which is not");
            return Err(Error::invalid(file, format!("model.merges.{index}"), "tokens of the vocabulary", found));
        }
        all.push((left, right));
    }
    Ok(all)
}

type Ids = tokenizers::models::bpe::Vocab;

/// Tokens with ids, or with scores in the order of their ids.
enum Vocabulary {
    Ids(Ids),
    Scores(Vec<(String, f64)>),
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;

        /// Whether another token may follow so many.
        fn check<E: serde::de::Error>(count: usize, token: &str) -> std::result::Result<(), E> {
            match (count < VOCABULARY_MAX, token.len() <= TOKEN_BYTES_MAX) {
                (true, true) => Ok(()),
                (false, _) => Err(E::custom(format_args!("more than {VOCABULARY_MAX} tokens"))),
                (_, false) => Err(E::custom(format_args!("a token of more than {TOKEN_BYTES_MAX} bytes"))),
            }
        }

        impl<'de> Visitor<'de> for Entries {
            type Value = Vocabulary;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of tokens with their ids, or an array of tokens with their scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Vocabulary, A::Error> {
                let mut ids = Ids::new();
                while let Some((token, id)) = entries.next_entry::<String, u32>()? {
                    check(ids.len(), &token)?;
                    if id >= ID_MAX {
                        return Err(A::Error::custom(format_args!("the id {id}, ids are below {ID_MAX}")));
                    }
                    ids.insert(token, id);
                }
                Ok(Vocabulary::Ids(ids))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> std::result::Result<Vocabulary, A::Error> {
                let mut scores = Vec::new();
                while let Some((token, score)) = entries.next_element::<(String, f64)>()? {
                    check(scores.len(), &token)?;
                    scores.push((token, score));
                }
                Ok(Vocabulary::Scores(scores))
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// Two tokens that become one, written as an array of both, or as a text with a space between them.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pair;

        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("two tokens")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Merge, E> {
                match text.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => Ok(Merge(left.to_owned(), right.to_owned())),
                    _ => Err(E::custom("a text without one space")),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> std::result::Result<Merge, A::Error> {
                let mut token = |count| tokens.next_element()?.ok_or_else(|| A::Error::invalid_length(count, &self));
                let (left, right) = (token(0)?, token(1)?);
                match tokens.next_element::<IgnoredAny>()? {
                    None => Ok(Merge(left, right)),
                    Some(_) => Err(A::Error::invalid_length(3, &self)),
                }
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

/// An array of at most so many.
struct List<T, const MOST: usize>(Vec<T>);

impl<T, const MOST: usize> Default for List<T, MOST> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for List<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Elements<T, const MOST: usize>(Vec<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Elements<T, MOST> {
            type Value = List<T, MOST>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                write!(formatter, "an array of at most {MOST}")
            }

            fn visit_seq<A: SeqAccess<'de>>(mut self, mut all: A) -> std::result::Result<Self::Value, A::Error> {
                while let Some(element) = all.next_element()? {
                    if self.0.len() == MOST {
                        return Err(A::Error::custom(format_args!("more than {MOST} of them")));
                    }
                    self.0.push(element);
                }
                Ok(List(self.0))
            }
        }
        deserializer.deserialize_seq(Elements(Vec::new()))
    }
}

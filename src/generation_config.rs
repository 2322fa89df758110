//! `generation_config.json`: which tokens end an answer, which are never written, and what else `generate` of
//! transformers would take from the folder.
//!
//! Facts that stand in several files have one order: `generation_config.json`, then `config.json`, then the tokenizer,
//! as in transformers. What the template of the family ends a turn with ends an answer in any case.

use serde_json::{Map, Value};

use crate::checkpoint::Folder;
use crate::error::{Error, Result};
use crate::family::{CONFIG_BYTES_MAX, Fields};
use crate::sample::SUPPRESSED_MAX;
use crate::tokenizer::Tokenizer;

/// Files that say something of generation, the first to be believed first.
const FILES: [&str; 2] = ["generation_config.json", "config.json"];
/// Most tokens that end an answer. A beam search looks at so many more candidates.
const END_TOKENS_MAX: usize = 16;

/// What a model folder says of generation.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Tokens that end an answer, in place of the tokenizer's own end; none where no file names any.
    pub end_tokens: Vec<u32>,
    /// Tokens that are never written, ascending; markers of images never are, named or not.
    pub suppressed_tokens: Vec<u32>,
    /// Settings in the file that each request makes for itself. None of them is applied.
    pub defaults: Map<String, Value>,
    /// Settings in the file that would change answers and that no request has. None of them is applied.
    pub unsupported: Map<String, Value>,
    /// Which file names the end tokens.
    end_file: &'static str,
}

/// What a setting is.
#[derive(Clone, Copy)]
enum Kind {
    Count,
    Number,
    Flag,
}

/// Settings that requests have: the file's are named, the request's are applied.
const DEFAULTS: [(&str, Kind); 11] = [
    ("do_sample", Kind::Flag),
    ("length_penalty", Kind::Number),
    ("max_length", Kind::Count),
    ("max_new_tokens", Kind::Count),
    ("min_p", Kind::Number),
    ("no_repeat_ngram_size", Kind::Count),
    ("num_beams", Kind::Count),
    ("repetition_penalty", Kind::Number),
    ("temperature", Kind::Number),
    ("top_k", Kind::Count),
    ("top_p", Kind::Number),
];

/// Settings that no request has, and the value of each that changes nothing.
const UNSUPPORTED: [(&str, Kind, f64); 11] = [
    ("diversity_penalty", Kind::Number, 0.0),
    ("encoder_no_repeat_ngram_size", Kind::Count, 0.0),
    ("encoder_repetition_penalty", Kind::Number, 1.0),
    ("epsilon_cutoff", Kind::Number, 0.0),
    ("eta_cutoff", Kind::Number, 0.0),
    ("guidance_scale", Kind::Number, 1.0),
    ("min_length", Kind::Count, 0.0),
    ("min_new_tokens", Kind::Count, 0.0),
    ("num_beam_groups", Kind::Count, 1.0),
    ("num_return_sequences", Kind::Count, 1.0),
    ("typical_p", Kind::Number, 1.0),
];

/// Keys that change no answer: who wrote the file, caches, what else is returned, how drafts are made.
const IGNORED: [&str; 22] = [
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "prefill_chunk_size",
    "return_dict_in_generate",
    "transformers_version",
    "use_cache",
];

impl GenerationConfig {
    /// Reads the file of a folder, if there is one, for a model of so many tokens.
    ///
    /// # Errors
    /// A setting of the wrong type; a token that the model does not have; a suppressed word of several tokens.
    pub(crate) fn read(folder: Folder, vocabulary: usize) -> Result<Self> {
        let [file, config_file] = FILES.map(|name| folder.path(name));
        let root = Value::Object(folder.object_if_there(FILES[0], CONFIG_BYTES_MAX)?);
        let config_root = Value::Object(folder.object_if_there(FILES[1], CONFIG_BYTES_MAX)?);
        let (fields, config_fields) = (Fields::new(&file, &root)?, Fields::new(&config_file, &config_root)?);
        let mut config = GenerationConfig::default();
        // The first file that has the key.
        let find = |key: &str| {
            let files = FILES.into_iter().zip([&fields, &config_fields]);
            files.into_iter().find_map(|(name, fields)| Some((name, fields, fields.get(key)?)))
        };
        if let Some((name, fields, value)) = find("eos_token_id") {
            config.end_file = name;
            config.end_tokens = end_tokens(fields, value, vocabulary)?;
        }
        if let Some((_, fields, value)) = find("bad_words_ids") {
            // As in transformers, where the end of an answer is no bad word.
            let words = words_of_one_token(fields, value, vocabulary)?;
            config.suppressed_tokens.extend(words.iter().filter(|token| !config.end_tokens.contains(token)));
        }
        if let Some((_, fields, value)) = find("suppress_tokens") {
            config.suppressed_tokens.extend(tokens(fields, "suppress_tokens", value, vocabulary)?);
        }
        config.suppressed_tokens.sort_unstable();
        config.suppressed_tokens.dedup();
        for (key, value) in fields.iter() {
            config.note(&fields, key, value, vocabulary)?;
        }
        Ok(config)
    }

    /// Keeps a setting that is not applied, if it would change answers.
    fn note(&mut self, fields: &Fields, key: &str, value: &Value, vocabulary: usize) -> Result<()> {
        let unsupported = UNSUPPORTED.iter().find(|(name, ..)| *name == key);
        if let Some((_, kind)) = DEFAULTS.iter().find(|(name, _)| *name == key) {
            kind.check(fields, key, value)?;
            self.defaults.insert(key.to_owned(), value.clone());
        } else if let Some((_, kind, neutral)) = unsupported {
            kind.check(fields, key, value)?;
            if value.as_f64() != Some(*neutral) {
                self.unsupported.insert(key.to_owned(), value.clone());
            }
        } else {
            match key {
                "eos_token_id" | "bad_words_ids" | "suppress_tokens" => {}
                // How early files say that there is none.
                "pad_token_id" if *value == -1 => {}
                // Prompts begin as the tokenizer says, and nothing is padded.
                "bos_token_id" | "pad_token_id" | "decoder_start_token_id" => {
                    token(fields, key, value, vocabulary)?;
                }
                key if IGNORED.contains(&key) || *value == false => {}
                key => {
                    self.unsupported.insert(key.to_owned(), value.clone());
                }
            }
        }
        Ok(())
    }

    /// Tokens that end an answer of a model with this tokenizer, and tokens that are never written, ascending.
    ///
    /// # Errors
    /// An end that is a marker of images; more suppressed tokens than a device looks through; no token that is left.
    pub(crate) fn settle(&self, folder: Folder, tokenizer: &Tokenizer, vocabulary: usize) -> Result<[Vec<u32>; 2]> {
        let (ends, markers) = (tokenizer.ends(&self.end_tokens), tokenizer.marker_ids());
        if let Some(end) = ends.iter().find(|end| markers.contains(end)) {
            let file = folder.path(self.end_file);
            return Err(Error::invalid(file, "eos_token_id", "tokens that are no markers of images", end));
        }
        let mut suppressed = [&self.suppressed_tokens[..], &markers].concat();
        suppressed.sort_unstable();
        suppressed.dedup();
        let most = SUPPRESSED_MAX.min(vocabulary - 1);
        if suppressed.len() > most {
            let expected = format!("at most {most} tokens with the markers of images");
            return Err(Error::invalid(folder.path(FILES[0]), "suppressed tokens", expected, suppressed.len()));
        }
        Ok([ends, suppressed])
    }
}

impl Kind {
    fn check(self, fields: &Fields, key: &str, value: &Value) -> Result<()> {
        let (right, expected) = match self {
            Kind::Count => (value.is_u64(), "a whole number"),
            Kind::Number => (value.is_number(), "a number"),
            Kind::Flag => (value.is_boolean(), "true or false"),
        };
        if right { Ok(()) } else { Err(fields.invalid(key, expected, value)) }
    }
}

fn token(fields: &Fields, key: &str, value: &Value, vocabulary: usize) -> Result<u32> {
    let token = value.as_u64().filter(|&token| token < vocabulary as u64);
    let expected = || format!("tokens below the {vocabulary} of the model");
    token.map(|token| token as u32).ok_or_else(|| fields.invalid(key, expected(), value))
}

fn tokens(fields: &Fields, key: &str, value: &Value, vocabulary: usize) -> Result<Vec<u32>> {
    let Value::Array(list) = value else { return Err(fields.invalid(key, "a list of tokens", value)) };
    list.iter().map(|value| token(fields, key, value, vocabulary)).collect()
}

/// One token or several.
fn end_tokens(fields: &Fields, value: &Value, vocabulary: usize) -> Result<Vec<u32>> {
    let key = "eos_token_id";
    if !value.is_array() {
        return Ok(vec![token(fields, key, value, vocabulary)?]);
    }
    let tokens = tokens(fields, key, value, vocabulary)?;
    if tokens.is_empty() || tokens.len() > END_TOKENS_MAX {
        return Err(fields.invalid(key, format!("from 1 to {END_TOKENS_MAX} tokens"), tokens.len()));
    }
    Ok(tokens)
}

/// Words as lists of their tokens. A word of several would have to be watched for while it is written.
fn words_of_one_token(fields: &Fields, value: &Value, vocabulary: usize) -> Result<Vec<u32>> {
    let key = "bad_words_ids";
    let Value::Array(words) = value else { return Err(fields.invalid(key, "a list of lists of a token", value)) };
    let word = |word: &Value| match word.as_array().map(Vec::as_slice) {
        Some([only]) => token(fields, key, only, vocabulary),
        _ => Err(fields.invalid(key, "words of one token each", word)),
    };
    words.iter().map(word).collect()
}

//! Requests and answers as JSON: lines that `flamant batch` reads and writes, and what `--json` prints; so models and
//! devices.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Answer, Choice, Classification, Engine, Finish, Generation, Request, Score, Task, Timings, Usage};
use crate::backend::DeviceInfo;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::kv::media_pages;
use crate::parse;
use crate::prompt::{Prompt, PromptLimits};
use crate::tokenizer::Tokenizer;

/// A text that was written.
pub fn answer(answer: &Answer) -> Value {
    let mut value = json!({
        "text": answer.text,
        "token_ids": answer.ids,
        "logprobs": answer.logprobs,
        "finish_reason": match answer.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        },
        "usage": usage(&answer.usage),
        "timings": timings(&answer.timings),
    });
    add_top(&mut value, &answer.top);
    value
}

/// The likeliest tokens in each place, where they were asked for.
fn add_top(value: &mut Value, top: &[Vec<(u32, f64)>]) {
    if top.is_empty() {
        return;
    }
    let place = |place: &Vec<(u32, f64)>| {
        let token = |(id, logprob): &(u32, f64)| json!({"token_id": id, "logprob": logprob});
        Value::from(place.iter().map(token).collect::<Vec<_>>())
    };
    value["top_logprobs"] = top.iter().map(place).collect();
}

/// Choices that were weighed, the likeliest first, by the sum over an answer's tokens or by their mean; see [`ranked`].
pub fn classification(classification: &Classification, mean: bool) -> Value {
    let ranked = ranked(&classification.choices, mean);
    let choices = ranked.iter().map(|(choice, share)| {
        json!({
            "choice": choice.text, "token_ids": choice.ids,
            "sum": choice.sum, "mean": choice.mean, "probability": share, "is_greedy": choice.greedy,
        })
    });
    json!({
        "choice": ranked[0].0.text,
        "choices": choices.collect::<Vec<_>>(),
        "usage": usage(&classification.usage),
        "timings": timings(&classification.timings),
    })
}

/// A prompt that was scored.
pub fn score(score: &Score, tokenizer: &Tokenizer) -> Value {
    let mut value = json!({
        "token_ids": score.ids,
        "tokens": score.ids.iter().map(|&id| tokenizer.token(id)).collect::<Vec<_>>(),
        "logprobs": score.logprobs,
        "usage": usage(&score.usage),
        "timings": timings(&score.timings),
    });
    add_top(&mut value, &score.top);
    value
}

/// A device of this machine.
pub fn device(device: &DeviceInfo) -> Value {
    json!({
        "device": device.device.to_string(),
        "name": device.name,
        "units": device.units,
        "compute_capability": device.compute_capability.map(|(major, minor)| format!("{major}.{minor}")),
        "memory_total": device.memory_total,
        "memory_free": device.memory_free,
        "kernels": device.kernels,
        "max_batched_tokens": device.max_batched_tokens,
        "max_batched_images": device.max_batched_images,
        "usable": device.problem.is_none(),
        "problem": device.problem,
    })
}

/// What a model is made of.
pub fn config(config: &ModelConfig) -> Value {
    let ModelConfig { vision, resampler, gated, decoder, .. } = config;
    let resampler = resampler.as_ref().map(|resampler| {
        json!({
            "layers": resampler.depth, "latents": resampler.latents,
            "heads": resampler.heads, "head_width": resampler.head_width,
            "frame_embeddings": resampler.frame_embeddings,
        })
    });
    json!({
        "vision": {
            "layers": vision.layers, "width": vision.width, "heads": vision.heads,
            "image_size": vision.image_size, "patch_size": vision.patch_size, "tokens": vision.tokens_out(),
        },
        "resampler": resampler,
        "image": {"rows": config.media_tokens_max(), "media_pages": media_pages(config.media_tokens_max())},
        "gated_blocks": {"before_layers": gated.layers, "heads": gated.heads, "head_width": gated.head_width},
        "decoder": {
            "layers": decoder.layers, "width": decoder.width, "heads": decoder.heads,
            "vocabulary": decoder.vocabulary, "positions": decoder.positions_max,
        },
    })
}

/// An open model: what it is made of, where it runs, and what bounds it.
pub fn engine(engine: &Engine) -> Value {
    let (limits, preparer) = (engine.limits(), engine.preparer());
    json!({
        "family": preparer.tokenizer().family().name,
        "folder": engine.folder().map(|folder| folder.display().to_string()),
        "bytes": preparer.checkpoint().bytes(),
        "config": config(engine.config()),
        "context_max": preparer.context_max(),
        "device": engine.device().to_string(),
        "dtype": engine.dtype().map(|dtype| dtype.to_string()),
        "kv_dtype": engine.kv_dtype().to_string(),
        "fallback": engine.fallback(),
        "limits": {
            "max_sequences": limits.max_sequences,
            "max_batched_tokens": limits.max_batched_tokens,
            "max_batched_images": limits.max_batched_images,
            "text_pages": limits.text_pages,
            "media_pages": limits.media_pages,
            "queue": limits.queue,
            "queue_bytes": limits.queue_bytes,
            "prefix_caching": limits.prefix_caching,
        },
    })
}

/// An error, with its kind.
pub fn error(error: &Error) -> Value {
    json!({"error": error.to_string(), "kind": error.kind().as_str()})
}

/// Choices, the likeliest first, by the sum over an answer's tokens or by their mean; each with its share of the
/// likelihood of all.
pub fn ranked(choices: &[Choice], mean: bool) -> Vec<(&Choice, f64)> {
    let rank = |choice: &Choice| if mean { choice.mean } else { choice.sum };
    let mut order: Vec<&Choice> = choices.iter().collect();
    order.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
    let best = rank(order[0]);
    let total: f64 = order.iter().map(|choice| (rank(choice) - best).exp()).sum();
    order.into_iter().map(|choice| (choice, (rank(choice) - best).exp() / total)).collect()
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "images": usage.images,
        "images_encoded": usage.images_encoded,
    })
}

fn timings(timings: &Timings) -> Value {
    json!({
        "queue_seconds": timings.queue,
        "media_seconds": timings.media,
        "prompt_seconds": timings.prompt,
        "decode_seconds": timings.decode,
    })
}

/// Keys of a request, beside those of one task.
const KEYS: &str = "id, prompt, task";
/// Keys of a request that writes.
const GENERATE_KEYS: &str = "max_new_tokens, num_beams, length_penalty, temperature, top_k, top_p, min_p, \
                             repetition_penalty, no_repeat_ngram_size, seed, stop, ignore_eos, top_logprobs";

/// Keys of any request at most.
const KEYS_MAX: usize = 64;
/// Bytes of the JSON of one setting: choices may have 1 MiB of text.
const SETTING_BYTES_MAX: u64 = 4 << 20;

/// What a request says beside what is asked of the engine.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Labels {
    /// `id`: what the caller calls it, a text or a whole number.
    pub id: Option<Value>,
    /// `mean`: whether choices are ranked by the mean over an answer's tokens.
    pub mean: bool,
}

/// Reads a request: an object with `prompt` as [`Prompt::from_json`] reads it and, as one likes, `id`, `task` and the
/// settings of the task; a key whose value is `null` is as if it were not there. `place` names it in errors; paths of
/// images are relative to `folder`. `labels` are set as soon as they are known, so that errors can be told with them.
///
/// # Errors
/// Text that is no such object; a prompt that cannot be read or passes its limits.
pub fn request(text: &[u8], place: &str, folder: &Path, limits: PromptLimits, labels: &mut Labels) -> Result<Request> {
    if text.len() as u64 > limits.bytes_max {
        return Err(Error::limit(format!("{place}: bytes of a request"), limits.bytes_max, text.len() as u64));
    }
    let text = parse::text(place, "request", text)?;
    let Keys(fields) =
        serde_json::from_str(text).map_err(|error| Error::malformed(place, "request", "a JSON object", error))?;
    let mut fields = Fields { place, fields };
    // Tables are written with `null` for what a row does not have.
    fields.fields.retain(|_, value| value.get() != "null");
    labels.id = fields.id()?;
    let task = fields.take::<String>("task", "a string")?;
    let task = match task.as_deref().unwrap_or("generate") {
        "generate" => Task::Generate(fields.generation()?),
        "classify" => {
            labels.mean = fields.take("mean", "true or false")?.unwrap_or(false);
            let choices = fields.take("choices", "an array of strings")?;
            Task::Classify { choices: choices.ok_or_else(|| fields.invalid("choices", "choices", "none"))? }
        }
        "score" => {
            let mut top_logprobs = 0;
            fields.set_count("top_logprobs", &mut top_logprobs)?;
            Task::Score { logits: false, top_logprobs }
        }
        other => return Err(fields.invalid("task", "generate, classify or score", format!("{other:?}"))),
    };
    let prompt = fields.fields.remove("prompt").ok_or_else(|| fields.invalid("prompt", "a prompt", "none"))?;
    if let Some(key) = fields.fields.keys().next() {
        let expected = match &task {
            Task::Generate(_) => format!("{KEYS}, {GENERATE_KEYS}"),
            Task::Classify { .. } => format!("{KEYS}, choices, mean"),
            Task::Score { .. } => format!("{KEYS}, top_logprobs"),
        };
        return Err(fields.invalid("key", expected, format!("{key:?}")));
    }
    let prompt = Prompt::from_json(prompt.get(), place, folder, limits)?;
    Ok(Request::new(prompt, task))
}

/// The entries of an object that are not read yet, if they are not many.
pub(crate) struct Keys<'a>(pub BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Keys<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Keys<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                write!(formatter, "an object of at most {KEYS_MAX} keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Keys<'de>, A::Error> {
                let mut keys = BTreeMap::new();
                while let Some((key, value)) = entries.next_entry()? {
                    if keys.len() == KEYS_MAX {
                        return Err(A::Error::invalid_length(KEYS_MAX + 1, &self));
                    }
                    keys.insert(key, value);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Below it, a float is one whole number and no other.
const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;

/// A whole number, however it is written: JSON has one kind of number, and tables of floats are written as `20.0`.
pub(crate) struct Count(pub u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let whole = |float: &f64| float.fract() == 0.0 && (0.0..EXACT).contains(float);
        let count = number.as_u64().or_else(|| number.as_f64().filter(whole).map(|float| float as u64));
        count.map(Count).ok_or_else(|| D::Error::custom("no whole number"))
    }
}

/// The fields of a request that are not read yet.
struct Fields<'a> {
    place: &'a str,
    fields: BTreeMap<String, &'a RawValue>,
}

impl Fields<'_> {
    /// What the request is called, as it will be told again.
    fn id(&mut self) -> Result<Option<Value>> {
        let Some(raw) = self.fields.remove("id") else { return Ok(None) };
        let expected = "a string or a whole number";
        let id = parse::tree(self.place, "id", raw.get(), parse::SMALL_BYTES_MAX)?;
        let number = match &id {
            Value::String(_) => return Ok(Some(id)),
            Value::Number(number) => number,
            _ => return Err(self.invalid("id", expected, raw)),
        };
        if number.is_i64() || number.is_u64() {
            return Ok(Some(id));
        }
        match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < EXACT => Ok(Some((float as i64).into())),
            Some(float) if float.fract() == 0.0 && raw.get().contains(['.', 'e', 'E']) => Ok(Some(id)),
            // As a float it would be another number.
            Some(float) if float.fract() == 0.0 => Err(self.invalid("id", "a string, or a number of 64 bits", raw)),
            _ => Err(self.invalid("id", expected, raw)),
        }
    }

    /// The settings of a request that writes, under the names of the program's flags.
    fn generation(&mut self) -> Result<Generation> {
        let mut generation = Generation::default();
        let sampling = &mut generation.sampling;
        let number = "a number";
        self.set_count("max_new_tokens", &mut generation.max_new_tokens)?;
        self.set_count("num_beams", &mut generation.num_beams)?;
        self.set("length_penalty", number, &mut generation.length_penalty)?;
        self.set("temperature", number, &mut sampling.temperature)?;
        self.set_count("top_k", &mut sampling.top_k)?;
        self.set("top_p", number, &mut sampling.top_p)?;
        self.set("min_p", number, &mut sampling.min_p)?;
        self.set("repetition_penalty", number, &mut sampling.repetition_penalty)?;
        self.set_count("seed", &mut sampling.seed)?;
        self.set_count("no_repeat_ngram_size", &mut generation.no_repeat_ngram_size)?;
        self.set("stop", "an array of strings", &mut generation.stop)?;
        self.set("ignore_eos", "true or false", &mut generation.ignore_eos)?;
        self.set_count("top_logprobs", &mut generation.top_logprobs)?;
        Ok(generation)
    }

    /// Reads a field, if it is there, in place of a default.
    fn set<T: DeserializeOwned>(&mut self, key: &str, expected: &str, value: &mut T) -> Result<()> {
        if let Some(found) = self.take(key, expected)? {
            *value = found;
        }
        Ok(())
    }

    fn take<T: DeserializeOwned>(&mut self, key: &str, expected: &str) -> Result<Option<T>> {
        let Some(value) = self.fields.remove(key) else { return Ok(None) };
        let bytes = value.get().len() as u64;
        if bytes > SETTING_BYTES_MAX {
            return Err(Error::limit(format!("{}: bytes of {key}", self.place), SETTING_BYTES_MAX, bytes));
        }
        serde_json::from_str(value.get()).map(Some).map_err(|_| self.invalid(key, expected, value))
    }

    /// As [`Fields::set`], of a whole number.
    fn set_count<T: TryFrom<u64>>(&mut self, key: &str, value: &mut T) -> Result<()> {
        let expected = "a whole number";
        let Some(raw) = self.fields.get(key).copied() else { return Ok(()) };
        if let Some(Count(count)) = self.take(key, expected)? {
            *value = T::try_from(count).map_err(|_| self.invalid(key, expected, raw))?;
        }
        Ok(())
    }

    fn invalid(&self, key: &str, expected: impl Display, found: impl Display) -> Error {
        Error::invalid(self.place, key, expected, found)
    }
}

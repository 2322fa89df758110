//! How answers are to be written: what chats and completions have in common.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use super::body::{Body, invalid, over};
use crate::engine::Generation;
use crate::sample::Sampling;
use crate::serve::call::Given;
use crate::serve::problem::Problem;

/// Answers to one prompt, and to all prompts of a request.
pub const N_MAX: u64 = 16;
pub const ANSWERS_MAX: usize = 128;
/// Texts that end an answer, beside those of a template.
pub const STOP_MAX: usize = 16;
/// Likeliest tokens of each place.
pub const TOP_MAX: u64 = 20;
/// Texts to choose from.
pub const CHOICES_MAX: usize = 255;
/// Tokens of an answer, if nothing else is said.
const TOKENS: u64 = 64;
/// A seed that every JSON reader keeps as it is.
const SEED_BITS: u32 = 53;

/// How answers are to be written and told.
pub struct Wanted {
    pub generation: Generation,
    /// Answers to each prompt; their seeds count up.
    pub n: usize,
    /// The answer is one of these.
    pub choices: Option<Vec<String>>,
    pub stream: Option<Stream>,
    /// How many of the likeliest tokens are told with each token, if log-probabilities are.
    pub logprobs: Option<usize>,
    /// Seconds.
    pub timeout: Option<f64>,
}

/// An answer is told as it is written.
#[derive(Clone, Copy, Default)]
pub struct Stream {
    /// Whether what it took is told at the end.
    pub usage: bool,
}

/// What differs between chats and completions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Text,
}

impl Wanted {
    /// Reads all fields of a body that say so; `stop` are texts that end an answer in any case.
    pub fn read(body: &mut Body, given: &Given, kind: Kind, stop: Vec<String>) -> Result<Wanted, Problem> {
        let seed = body.count("seed")?.unwrap_or_else(random_seed);
        let choices = choices(body)?;
        let mut generation = Generation::default().sampling(Sampling::default().seed(seed));
        if let Some(beams) = body.count_to("num_beams", 1, u64::from(u16::MAX))? {
            generation.num_beams = beams;
        }
        if generation.num_beams == 1 {
            defaults(given.engine.preparer().defaults(), &mut generation);
        }
        let sampling = &mut generation.sampling;
        let numbers = [
            ("temperature", &mut sampling.temperature),
            ("top_p", &mut sampling.top_p),
            ("min_p", &mut sampling.min_p),
            ("repetition_penalty", &mut sampling.repetition_penalty),
            ("length_penalty", &mut generation.length_penalty),
        ];
        for (key, value) in numbers {
            *value = body.number(key)?.unwrap_or(*value);
        }
        // As others write that there is no such limit.
        match body.take::<i64>("top_k", "a whole number")? {
            Some(-1) => sampling.top_k = 0,
            Some(top) => {
                let expected = "a whole number, or -1 for all tokens";
                sampling.top_k = usize::try_from(top).map_err(|_| invalid("top_k", expected, &top.to_string()))?;
            }
            None => {}
        }
        let ngram = body.count("no_repeat_ngram_size")?;
        generation.no_repeat_ngram_size = ngram.unwrap_or(generation.no_repeat_ngram_size as u64) as usize;
        generation.ignore_eos = body.flag("ignore_eos")?;
        generation.max_new_tokens = tokens(body)? as usize;
        generation.stop = body.texts("stop", STOP_MAX)?.unwrap_or_default();
        generation.stop.extend(stop);
        let logprobs = logprobs(body, kind)?;
        generation.top_logprobs = logprobs.unwrap_or(0);
        generation.check().map_err(of_setting)?;
        let wanted = Wanted {
            generation,
            n: body.count_to("n", 1, N_MAX)?.unwrap_or(1),
            choices,
            stream: stream(body)?,
            logprobs,
            timeout: timeout(body)?,
        };
        wanted.together()?;
        neutral(body)?;
        Ok(wanted)
    }

    /// Whether its settings go together.
    fn together(&self) -> Result<(), Problem> {
        let refused = |param: &str, message: &str| {
            Err(Problem::new(super::BAD_REQUEST, "unsupported_value", format!("{param}: {message}")).param(param))
        };
        if self.generation.num_beams > 1 && self.n > 1 {
            return refused("n", "expected 1 with num_beams");
        }
        if self.choices.is_some() && self.logprobs.is_some() {
            return refused("logprobs", "expected none with a choice; /v1/classify tells those of all choices");
        }
        if self.choices.is_some() && self.generation.num_beams > 1 {
            return refused("num_beams", "expected 1 with a choice");
        }
        Ok(())
    }

    /// The settings of an answer.
    pub fn of(&self, answer: usize) -> Generation {
        let mut generation = self.generation.clone();
        generation.sampling.seed = generation.sampling.seed.wrapping_add(answer as u64);
        generation
    }
}

/// A seed of nobody's choice.
fn random_seed() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed)) >> (u64::BITS - SEED_BITS)
}

/// Settings of `generation_config.json` take the place of our own.
pub fn defaults(found: &Map<String, Value>, generation: &mut Generation) {
    let number = |key: &str| found.get(key).and_then(Value::as_f64).map(|number| number as f32);
    let count = |key: &str| found.get(key).and_then(Value::as_u64).map(|count| count as usize);
    let before = generation.clone();
    let sampling = &mut generation.sampling;
    sampling.repetition_penalty = number("repetition_penalty").unwrap_or(sampling.repetition_penalty);
    generation.no_repeat_ngram_size = count("no_repeat_ngram_size").unwrap_or(generation.no_repeat_ngram_size);
    // As in transformers: without it, what follows is of no use.
    if found.get("do_sample") == Some(&Value::Bool(true)) {
        sampling.temperature = number("temperature").unwrap_or(1.0);
        sampling.top_k = count("top_k").unwrap_or(sampling.top_k);
        sampling.top_p = number("top_p").unwrap_or(sampling.top_p);
        sampling.min_p = number("min_p").unwrap_or(sampling.min_p);
    }
    if generation.check().is_err() {
        *generation = before;
    }
}

/// The settings of an answer to a request that says nothing.
pub fn default_settings(found: &Map<String, Value>) -> Value {
    let mut generation = Generation::default();
    defaults(found, &mut generation);
    let sampling = &generation.sampling;
    json!({
        "max_tokens": TOKENS,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "no_repeat_ngram_size": generation.no_repeat_ngram_size,
    })
}

fn tokens(body: &mut Body) -> Result<u64, Problem> {
    let (new, old) = (body.count("max_completion_tokens")?, body.count("max_tokens")?);
    Ok(new.or(old).unwrap_or(TOKENS))
}

/// Texts of which the answer is one, under either name that vLLM has had for them.
fn choices(body: &mut Body) -> Result<Option<Vec<String>>, Problem> {
    let old = body.texts("guided_choice", CHOICES_MAX)?;
    let Some(value) = body.value("structured_outputs")? else { return several(old, "guided_choice") };
    const KEY: &str = "structured_outputs";
    if old.is_some() {
        return Err(invalid("guided_choice", "none beside structured_outputs", "one"));
    }
    let Value::Object(mut fields) = value else { return Err(invalid(KEY, "an object", &value.to_string())) };
    fields.retain(|_, value| !value.is_null());
    let choice = fields.remove("choice");
    if let Some(key) = fields.keys().next() {
        let message = format!("{KEY}: expected choice alone, found {}", super::body::shown(key));
        return Err(Problem::new(super::BAD_REQUEST, "unsupported_value", message).param(KEY));
    }
    let expected = "an array of strings";
    let Some(choice) = choice else { return Err(invalid("structured_outputs.choice", expected, "none")) };
    let found = serde_json::from_value::<Vec<String>>(choice)
        .map_err(|_| invalid("structured_outputs.choice", expected, "something else"))?;
    several(Some(found), KEY)
}

fn several(choices: Option<Vec<String>>, key: &str) -> Result<Option<Vec<String>>, Problem> {
    match choices {
        Some(choices) if choices.is_empty() => Err(invalid(key, "at least one choice", "none")),
        Some(choices) if choices.len() > CHOICES_MAX => Err(over(key, "choices", CHOICES_MAX, choices.len())),
        Some(choices) if choices.iter().any(String::is_empty) => Err(invalid(key, "texts", "an empty one")),
        choices => Ok(choices),
    }
}

fn logprobs(body: &mut Body, kind: Kind) -> Result<Option<usize>, Problem> {
    match kind {
        Kind::Text => body.count_to("logprobs", 0, TOP_MAX),
        Kind::Chat => {
            let wanted = body.flag("logprobs")?;
            match body.count_to("top_logprobs", 0, TOP_MAX)? {
                Some(top) if !wanted && top > 0 => Err(invalid("top_logprobs", "logprobs to be true with it", "false")),
                top => Ok(wanted.then(|| top.unwrap_or(0))),
            }
        }
    }
}

fn stream(body: &mut Body) -> Result<Option<Stream>, Problem> {
    let wanted = body.flag("stream")?;
    let options = body.value("stream_options")?;
    let mut stream = Stream::default();
    match options {
        None => {}
        Some(_) if !wanted => return Err(invalid("stream_options", "stream to be true with it", "false")),
        Some(Value::Object(fields)) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("include_usage", Value::Bool(usage)) => stream.usage = usage,
                    // Padding against those who count bytes on the way: answers here are not padded.
                    ("include_obfuscation", Value::Bool(_)) | (_, Value::Null) => {}
                    (key, _) => {
                        return Err(invalid("stream_options", "include_usage: true or false", key));
                    }
                }
            }
        }
        Some(other) => return Err(invalid("stream_options", "an object", &other.to_string())),
    }
    Ok(wanted.then_some(stream))
}

pub fn timeout(body: &mut Body) -> Result<Option<f64>, Problem> {
    match body.take::<f64>("timeout", "a number of seconds")? {
        Some(seconds) if !(seconds > 0.0 && seconds.is_finite()) => {
            Err(invalid("timeout", "seconds above 0", &seconds.to_string()))
        }
        seconds => Ok(seconds),
    }
}

/// Fields of OpenAI's that this server takes only where they change nothing.
fn neutral(body: &mut Body) -> Result<(), Problem> {
    for key in ["frequency_penalty", "presence_penalty"] {
        body.neutral(key, &[json!(0)])?;
    }
    body.neutral("logit_bias", &[json!({})])?;
    for key in ["tools", "functions"] {
        body.neutral(key, &[json!([])])?;
    }
    for key in ["tool_choice", "function_call"] {
        body.neutral(key, &[json!("none"), json!("auto")])?;
    }
    body.neutral("response_format", &[json!({"type": "text"})])?;
    for key in ["audio", "best_of", "prediction", "reasoning_effort", "suffix", "verbosity", "web_search_options"] {
        body.unsupported(key)?;
    }
    Ok(())
}

/// A setting out of its range, which the library names as the program's flags are.
fn of_setting(error: crate::error::Error) -> Problem {
    let message = error.to_string();
    let (name, rest) = message.split_once(':').unwrap_or(("", &message));
    let param = match name {
        "stop texts" | "bytes of all stop texts" => "stop".to_owned(),
        name => name.replace('-', "_"),
    };
    Problem::invalid(&param, format!("{}:{rest}", name.replace('-', "_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_read_as_transformers_reads_them() {
        let of = |found: Value| {
            let mut generation = Generation::default();
            defaults(found.as_object().unwrap(), &mut generation);
            generation
        };
        let drawn = json!({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.2});
        let sampling = Sampling::default().temperature(0.6).top_p(0.9).repetition_penalty(1.2);
        assert_eq!(of(drawn).sampling, sampling);
        assert_eq!(of(json!({"do_sample": true})).sampling.temperature, 1.0);
        let greedy = of(json!({"temperature": 0.6, "top_k": 7, "no_repeat_ngram_size": 3, "max_new_tokens": 9}));
        assert_eq!(greedy, Generation::default().no_repeat_ngram_size(3));
        // What a request could not say either.
        assert_eq!(of(json!({"do_sample": true, "top_p": 7.0})), Generation::default());
    }
}

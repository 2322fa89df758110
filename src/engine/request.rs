//! What is asked of an engine, and what it answers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::within;
use crate::error::{Error, Result};
use crate::prompt::Prompt;
use crate::sample::{Sampling, repeating};
use crate::setters::setters;

/// Most beams of a search.
const BEAMS_MAX: usize = 64;
/// Most stop texts, and bytes of all: each byte of an answer is looked at for each of them.
const STOPS_MAX: usize = 64;
const STOP_BYTES_MAX: usize = 4096;
/// Largest exponent of a length: 2^24 to this power is a number.
const LENGTH_PENALTY_MAX: f32 = 5.0;
/// Most of the likeliest tokens that are told in each place.
const TOP_LOGPROBS_MAX: usize = 20;
/// Longest run of tokens that is kept from occurring twice; longer ones hardly do.
const NGRAM_MAX: usize = 1024;

/// A prompt and what to do with it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The prompt.
    pub prompt: Prompt,
    /// What to do.
    pub task: Task,
    /// See [`Request::salt`].
    pub salt: Option<[u8; 32]>,
}

/// What to do with a prompt.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Task {
    /// Write after it.
    Generate(Generation),
    /// Weigh answers by their likelihood after it; see [`Task::classify`].
    #[non_exhaustive]
    Classify {
        /// The answers.
        choices: Vec<String>,
    },
    /// Weigh its own tokens; see [`Task::score`].
    #[non_exhaustive]
    Score {
        /// Whether every row of logits is wanted as an event.
        logits: bool,
        /// How many of the likeliest tokens are told in the place of each; at most 20.
        top_logprobs: usize,
    },
}

impl Task {
    /// Weigh choices by their likelihood after a prompt.
    pub fn classify(choices: Vec<String>) -> Task {
        Task::Classify { choices }
    }

    /// Weigh a prompt's own tokens; with `logits`, every row of them is an event.
    pub fn score(logits: bool) -> Task {
        Task::Score { logits, top_logprobs: 0 }
    }

    /// Weigh a prompt's own tokens, and tell the `count` likeliest in the place of each; at most 20.
    pub fn score_top(count: usize) -> Task {
        Task::Score { logits: false, top_logprobs: count }
    }
}

impl Request {
    /// Do something with a prompt.
    pub fn new(prompt: Prompt, task: Task) -> Request {
        Request { prompt, task, salt: None }
    }

    /// Finds pages of texts and images again only where requests of the same salt have put them, so that nobody else
    /// can tell by the time of an answer, or by its count of cached tokens, what was asked before. No answer depends on
    /// it.
    pub fn salt(mut self, salt: Option<[u8; 32]>) -> Request {
        self.salt = salt;
        self
    }

    /// Write after a prompt.
    pub fn generate(prompt: Prompt, generation: Generation) -> Request {
        Request::new(prompt, Task::Generate(generation))
    }

    /// Weigh choices as the continuation of a prompt.
    pub fn classify(prompt: Prompt, choices: Vec<String>) -> Request {
        Request::new(prompt, Task::classify(choices))
    }

    /// Weigh a prompt's own tokens.
    pub fn score(prompt: Prompt) -> Request {
        Request::new(prompt, Task::score(false))
    }
}

/// What to write after a prompt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// Most tokens to write.
    pub max_new_tokens: usize,
    /// How each token is chosen, if there is one beam.
    pub sampling: Sampling,
    /// Beams of a beam search; 1: none.
    pub num_beams: usize,
    /// See [`BeamSearch::length_penalty`](crate::search::BeamSearch::length_penalty); from -5 to 5.
    pub length_penalty: f32,
    /// No run of so many tokens occurs twice in prompt and answer together, as far as the answer can help it; 0: off.
    pub no_repeat_ngram_size: usize,
    /// Texts that end the answer; they are not part of it. At most 64, of 4096 bytes together.
    pub stop: Vec<String>,
    /// Whether to go on past the family's stop tokens.
    pub ignore_eos: bool,
    /// How many of the likeliest tokens are told in the place of each token written: at most 20, and none of a beam
    /// search.
    pub top_logprobs: usize,
}

impl Default for Generation {
    fn default() -> Self {
        Generation {
            max_new_tokens: 64,
            sampling: Sampling::default(),
            num_beams: 1,
            length_penalty: 1.0,
            no_repeat_ngram_size: 0,
            stop: Vec::new(),
            ignore_eos: false,
            top_logprobs: 0,
        }
    }
}

setters!(Generation {
    max_new_tokens: usize,
    sampling: Sampling,
    num_beams: usize,
    length_penalty: f32,
    no_repeat_ngram_size: usize,
    stop: Vec<String>,
    ignore_eos: bool,
    top_logprobs: usize,
});

impl Generation {
    /// The tokens that must not follow a prompt and what is written after it; none if the setting is off.
    pub(super) fn repeating(&self, prompt: &[u32], written: &[u32]) -> Option<Vec<u32>> {
        let size = self.no_repeat_ngram_size;
        (size > 0).then(|| repeating(&[prompt, written].concat(), size))
    }

    /// Whether every setting is in its range, and they go together.
    ///
    /// # Errors
    /// [`Error::Argument`] with the setting, what it may be and what it is.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        within("num-beams", self.num_beams, 1, BEAMS_MAX)?;
        within("no-repeat-ngram-size", self.no_repeat_ngram_size, 0, NGRAM_MAX)?;
        if !(-LENGTH_PENALTY_MAX..=LENGTH_PENALTY_MAX).contains(&self.length_penalty) {
            let expected = format!("expected a number from -{LENGTH_PENALTY_MAX} to {LENGTH_PENALTY_MAX}");
            return Err(Error::argument(format!("length-penalty: {expected}, found {}", self.length_penalty)));
        }
        if self.num_beams > 1 && self.sampling != (Sampling { seed: self.sampling.seed, ..Sampling::default() }) {
            return Err(Error::argument("num-beams: expected 1 with temperature, top-k, top-p, min-p or a penalty"));
        }
        check_top_logprobs(self.top_logprobs)?;
        if self.num_beams > 1 && self.top_logprobs > 0 {
            return Err(Error::argument("num-beams: expected 1 with top-logprobs"));
        }
        let bytes: usize = self.stop.iter().map(String::len).sum();
        if self.stop.len() > STOPS_MAX {
            return Err(Error::limit("stop texts", STOPS_MAX as u64, self.stop.len() as u64));
        }
        if bytes > STOP_BYTES_MAX {
            return Err(Error::limit("bytes of all stop texts", STOP_BYTES_MAX as u64, bytes as u64));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::argument("stop: expected a text, found an empty one"));
        }
        Ok(())
    }
}

/// Whether so many of the likeliest tokens can be told.
pub(super) fn check_top_logprobs(count: usize) -> Result<()> {
    within("top-logprobs", count, 0, TOP_LOGPROBS_MAX)
}

/// Names a request; no two requests of a process have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

impl RequestId {
    /// One that no request has had; later ones are larger.
    pub(crate) fn next() -> RequestId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        RequestId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// As a number, from 1.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl From<u64> for RequestId {
    /// The request of that number, if there is one: what came through an interface that has only numbers.
    fn from(number: u64) -> Self {
        RequestId(number)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Which request.
    pub id: RequestId,
    /// What.
    pub kind: EventKind,
}

/// What can happen to a request. Exactly one event is its last.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A token was written; not by a beam search, which knows its tokens only in the end.
    #[non_exhaustive]
    Token {
        /// The token.
        id: u32,
        /// Its log-probability.
        logprob: f64,
        /// The text that is settled by it: whole characters, and nothing that may still become a stop text.
        text: String,
        /// The likeliest tokens in its place, if [`Generation::top_logprobs`] asks for them; see [`Answer::top`].
        top: Vec<(u32, f64)>,
    },
    /// The request has left the queue, and its first tokens have run. Once, before anything else of it; not of one
    /// that ends without running any.
    #[non_exhaustive]
    Begun {
        /// Seconds that it waited, as in [`Timings::queue`].
        queue: f64,
    },
    /// A row of logits of a prompt that is scored.
    #[non_exhaustive]
    Logits {
        /// The position of the token they follow.
        position: usize,
        /// One for each token of the vocabulary.
        logits: Vec<f32>,
    },
    /// The answer is written. Last.
    Written(Answer),
    /// The choices are weighed. Last.
    Classified(Classification),
    /// The prompt is scored. Last.
    Scored(Score),
    /// The request was cancelled. Last.
    Cancelled,
    /// The device has failed, or this request alone: [`Error::NotFinite`]. Last.
    Failed(Error),
}

impl EventKind {
    /// Whether nothing more comes of the request.
    pub fn is_last(&self) -> bool {
        !matches!(self, EventKind::Token { .. } | EventKind::Begun { .. } | EventKind::Logits { .. })
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// A stop token or a stop text.
    Stop,
    /// The most tokens that were allowed, or that fit the context.
    Length,
}

/// What a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were found in pages already there instead of being computed.
    pub cached_tokens: usize,
    /// Tokens written.
    pub completion_tokens: usize,
    /// Images of the prompt.
    pub images: usize,
    /// Images that had to be encoded.
    pub images_encoded: usize,
}

/// Seconds spent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Timings {
    /// Waiting to run.
    pub queue: f64,
    /// In steps that encoded its images, encoding.
    pub media: f64,
    /// Reading the prompt, without encoding.
    pub prompt: f64,
    /// Writing, or weighing choices.
    pub decode: f64,
}

/// What the model wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The text, without special tokens and without the stop text.
    pub text: String,
    /// All tokens written, a stop token included.
    pub ids: Vec<u32>,
    /// The log-probability of each, as the model gives it: before temperature, penalties and cuts.
    pub logprobs: Vec<f64>,
    /// For each the likeliest tokens in its place with their log-probabilities, likeliest first, lower tokens first
    /// among equals: as many as [`Generation::top_logprobs`] asks for, or as are possible at all; tokens that are never
    /// written included. Empty if it asks for none.
    pub top: Vec<Vec<(u32, f64)>>,
    /// Why it ended.
    pub finish: Finish,
    /// What it took.
    pub usage: Usage,
    /// Time spent.
    pub timings: Timings,
}

/// A prompt's own log-probabilities.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// For each token its log-probability given all before it; none for the first.
    pub logprobs: Vec<Option<f64>>,
    /// For each token the likeliest in its place, as in [`Answer::top`]; none for the first. Empty if the task asks for
    /// none.
    pub top: Vec<Vec<(u32, f64)>>,
    /// What it took.
    pub usage: Usage,
    /// Time spent.
    pub timings: Timings,
}

/// One of the answers offered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Sum of their log-probabilities.
    pub sum: f64,
    /// Their mean: what OpenFlamingo's evaluation ranks by.
    pub mean: f64,
    /// Whether each of them is the likeliest token after those before it: lm-eval's `is_greedy`.
    pub greedy: bool,
}

/// Choices, weighed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Classification {
    /// In the order given.
    pub choices: Vec<Choice>,
    /// What it took.
    pub usage: Usage,
    /// Time spent.
    pub timings: Timings,
}

//! Log-probabilities of a prompt's own tokens.

use std::mem::take;

use super::{Ending, Place, Top};
use crate::engine::request::EventKind;
use crate::engine::scheduler::{Sequence, Tokens};
use crate::executor::{RowAnswer, RowQuery, RowRequest, RowResult};
use crate::sample::log_probability;

/// A prompt that is being scored.
pub struct Scoring {
    /// Whether rows of logits are wanted.
    logits: bool,
    /// How many of the likeliest tokens are wanted in each place.
    top_logprobs: usize,
    /// For each token read so far the log-probability of the next, after that of the first.
    logprobs: Vec<Option<f64>>,
    /// Likewise the likeliest tokens in that place.
    top: Vec<Top>,
}

impl Scoring {
    /// Nothing scored yet.
    pub fn new(logits: bool, top_logprobs: usize) -> Self {
        let top = if top_logprobs > 0 { vec![Top::new()] } else { Vec::new() };
        Scoring { logits, top_logprobs, logprobs: vec![None], top }
    }

    /// The next token's likelihood, if there is one, or all.
    pub fn want(&self, prompt: &Tokens, place: Place) -> RowQuery {
        let next = prompt.ids.get(place.position + 1).copied();
        let request = match self.logits {
            true => RowRequest::Full,
            false => RowRequest::Targets(next.into_iter().collect()),
        };
        RowQuery { request, top: if next.is_some() { self.top_logprobs } else { 0 } }
    }

    /// Takes the next row.
    pub fn take(&mut self, prompt: &Tokens, place: Place, found: RowAnswer) -> Option<EventKind> {
        if self.top_logprobs > 0 && place.position + 1 < prompt.ids.len() {
            self.top.push(found.top);
        }
        match found.result {
            RowResult::Targets(logprobs) => {
                self.logprobs.extend(logprobs.into_iter().map(Some));
                None
            }
            RowResult::Full(logits) => {
                let next = prompt.ids.get(place.position + 1);
                self.logprobs.extend(next.map(|&next| Some(log_probability(&logits, next))));
                Some(EventKind::Logits { position: place.position, logits })
            }
            RowResult::Sampled { .. } | RowResult::TopK(_) | RowResult::NotFinite => {
                unreachable!("likelihoods were wanted")
            }
        }
    }

    /// Ends when all rows have been taken.
    pub fn settle(&mut self, prompt: &Tokens, sequence: &Sequence) -> Option<Ending> {
        let ending = || Ending::Scored { logprobs: take(&mut self.logprobs), top: take(&mut self.top) };
        sequence.is_read(prompt).then(ending)
    }
}

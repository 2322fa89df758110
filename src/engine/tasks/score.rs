//! Log-probabilities of a prompt's own tokens.

use super::{Ending, Found, Place, Want};
use crate::backend::Request;
use crate::engine::request::EventKind;
use crate::engine::scheduler::{Line, Tokens};

/// A prompt that is being scored.
pub struct Scoring {
    /// Whether rows of logits are wanted.
    logits: bool,
    /// For each token read so far the log-probability of the next, after that of the first.
    logprobs: Vec<Option<f64>>,
}

impl Scoring {
    /// Nothing scored yet.
    pub fn new(logits: bool) -> Self {
        Scoring { logits, logprobs: vec![None] }
    }

    /// The next token's likelihood, or all.
    pub fn want(&self, prompt: &Tokens, place: Place) -> Want {
        match prompt.ids.get(place.position + 1) {
            Some(&next) if !self.logits => {
                Want::Choice(Request { temperature: 0.0, top_k: 0, top_p: 1.0, uniform: 0.0, target: Some(next) })
            }
            _ => Want::Logits,
        }
    }

    /// Takes the next row.
    pub fn take(&mut self, prompt: &Tokens, place: Place, found: Found) -> Option<EventKind> {
        if let Some(&next) = prompt.ids.get(place.position + 1) {
            self.logprobs.push(Some(found.log_probability(next)));
        }
        match found {
            Found::Logits(logits) if self.logits => {
                Some(EventKind::Logits { position: place.position, logits: logits.to_vec() })
            }
            _ => None,
        }
    }

    /// Ends when all rows have been taken.
    pub fn settle(&mut self, prompt: &Tokens, line: &Line) -> Option<Ending> {
        line.is_read(prompt).then(|| Ending::Scored(std::mem::take(&mut self.logprobs)))
    }
}

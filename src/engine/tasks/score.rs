//! Log-probabilities of a prompt's own tokens.

use super::{Ending, Place};
use crate::engine::request::EventKind;
use crate::engine::scheduler::{Sequence, Tokens};
use crate::executor::{RowRequest, RowResult};
use crate::sample::log_probability;

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

    /// The next token's likelihood, if there is one, or all.
    pub fn want(&self, prompt: &Tokens, place: Place) -> RowRequest {
        match self.logits {
            true => RowRequest::Full,
            false => RowRequest::Targets(prompt.ids.get(place.position + 1).copied().into_iter().collect()),
        }
    }

    /// Takes the next row.
    pub fn take(&mut self, prompt: &Tokens, place: Place, found: RowResult) -> Option<EventKind> {
        match found {
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
        sequence.is_read(prompt).then(|| Ending::Scored(std::mem::take(&mut self.logprobs)))
    }
}

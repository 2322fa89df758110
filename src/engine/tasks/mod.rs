//! What is done with a prompt, one file a task: what each wants of a row of logits, and how its sequences go on after
//! it.

mod classify;
mod score;
mod search;
mod stop;
mod write;

pub use classify::Classifying;
pub use score::Scoring;
pub use search::Searching;
pub use write::Writing;

use super::request::{Choice, EventKind, Finish};
use super::scheduler::{Sequence, Tokens};
use crate::executor::{RowAnswer, RowQuery};
use crate::kv::PagePool;
use crate::tokenizer::Tokenizer;

/// A task under way.
pub enum Task {
    /// Token after token.
    Write(Writing),
    /// Beams.
    Search(Searching),
    /// Choices.
    Classify(Classifying),
    /// The prompt's own tokens.
    Score(Scoring),
}

/// How a task ended.
pub enum Ending {
    /// A text.
    Written {
        /// The text.
        text: String,
        /// Its tokens.
        ids: Vec<u32>,
        /// Their log-probabilities.
        logprobs: Vec<f64>,
        /// For each the likeliest tokens in its place, if they were asked for.
        top: Vec<Top>,
        /// Why it ended.
        finish: Finish,
    },
    /// Choices with their likelihoods.
    Classified {
        /// In the order given.
        choices: Vec<Choice>,
        /// Tokens that had to be read.
        tokens: usize,
    },
    /// The prompt's tokens.
    Scored {
        /// Their log-probabilities.
        logprobs: Vec<Option<f64>>,
        /// For each the likeliest tokens in its place, if they were asked for.
        top: Vec<Top>,
    },
}

/// The likeliest tokens in a place, with their log-probabilities.
type Top = Vec<(u32, f64)>;

/// A row: the token whose successor it tells of.
#[derive(Clone, Copy)]
pub struct Place {
    /// The sequence, by its place in the request.
    pub sequence: usize,
    /// The token's position.
    pub position: usize,
}

/// What all tasks know.
pub struct Surroundings<'a> {
    /// Of the model.
    pub tokenizer: &'a Tokenizer,
    /// Tokens that end an answer.
    pub ends: &'a [u32],
    /// Tokens that are never written, ascending.
    pub suppressed: &'a [u32],
}

impl Task {
    /// What is wanted of the row at a place.
    pub fn want(&self, prompt: &Tokens, sequences: &[Sequence], place: Place) -> RowQuery {
        match self {
            Task::Write(writing) => writing.want(prompt, &sequences[0], place),
            Task::Search(searching) => searching.want(prompt, sequences, place),
            Task::Classify(classifying) => classifying.want(prompt, place),
            Task::Score(scoring) => scoring.want(prompt, place),
        }
    }

    /// Takes what was found in a row, which is finite; rows of a sequence come in order.
    pub fn take(
        &mut self,
        prompt: &Tokens,
        place: Place,
        found: RowAnswer,
        around: &Surroundings,
    ) -> Option<EventKind> {
        match self {
            Task::Write(writing) => Some(writing.take(found, around)),
            Task::Search(searching) => {
                searching.take(place, found);
                None
            }
            Task::Classify(classifying) => {
                classifying.take(place, found);
                None
            }
            Task::Score(scoring) => scoring.take(prompt, place, found),
        }
    }

    /// Goes on after all rows of a step; how the task ended, if it did.
    pub fn settle(
        &mut self,
        prompt: &Tokens,
        sequences: &mut Vec<Sequence>,
        pool: &mut PagePool,
        around: &Surroundings,
    ) -> Option<Ending> {
        match self {
            Task::Write(writing) => writing.settle(prompt, &mut sequences[0]),
            Task::Search(searching) => searching.settle(prompt, sequences, pool, around),
            Task::Classify(classifying) => classifying.settle(prompt, sequences, pool),
            Task::Score(scoring) => scoring.settle(prompt, &sequences[0]),
        }
    }
}

//! Writes token after token, greedy or drawn, and gives out text as it is settled.

use super::{Ending, Place, Surroundings, first_stop};
use crate::engine::request::{EventKind, Finish, Generation};
use crate::engine::scheduler::{Sequence, Tokens};
use crate::executor::{RowRequest, RowResult};
use crate::tokenizer::TextStream;

/// An answer while it is written.
pub struct Writing {
    options: Generation,
    /// Most tokens, as far as the context allows.
    max_new_tokens: usize,
    stream: TextStream,
    text: String,
    /// Bytes of the text that are given out.
    given: usize,
    ids: Vec<u32>,
    logprobs: Vec<f64>,
    finish: Option<Finish>,
}

impl Writing {
    /// Nothing written yet; at least one token will be.
    pub fn new(options: Generation, max_new_tokens: usize) -> Self {
        let (ids, logprobs) = (Vec::with_capacity(max_new_tokens), Vec::with_capacity(max_new_tokens));
        let (stream, text) = (TextStream::default(), String::new());
        Writing { options, max_new_tokens, stream, text, given: 0, ids, logprobs, finish: None }
    }

    /// The next token.
    pub fn want(&self, prompt: &Tokens, sequence: &Sequence, place: Place) -> RowRequest {
        let sampling = self.options.sampling.clone();
        let seen = match sampling.repetition_penalty {
            1.0 => Vec::new(),
            _ => [&prompt.ids[..], &sequence.suffix].concat(),
        };
        RowRequest::Sample { sampling, position: place.position + 1, seen }
    }

    /// Takes the next token.
    pub fn take(&mut self, found: RowResult, around: &Surroundings) -> EventKind {
        let RowResult::Sampled { token: id, logprob } = found else { unreachable!("a token was wanted") };
        self.ids.push(id);
        self.logprobs.push(logprob);
        let stop = !self.options.ignore_eos && around.ends.contains(&id);
        let last = stop || self.ids.len() == self.max_new_tokens;
        self.text += &self.stream.push(around.tokenizer, id);
        if last {
            self.text += &self.stream.finish(around.tokenizer);
        }
        let cut = first_stop(&self.text, &self.options.stop);
        if let Some(at) = cut {
            self.text.truncate(at);
        }
        self.finish = match (stop || cut.is_some(), last) {
            (true, _) => Some(Finish::Stop),
            (false, true) => Some(Finish::Length),
            (false, false) => None,
        };
        let settled = if self.finish.is_some() { self.text.len() } else { before_stop(&self.text, &self.options.stop) };
        // A stop text may begin in what is given out only if it is empty, which is refused.
        let text = self.text[self.given.min(settled)..settled].to_owned();
        self.given = settled;
        EventKind::Token { id, logprob, text }
    }

    /// Goes on with the last token, or ends.
    pub fn settle(&mut self, prompt: &Tokens, sequence: &mut Sequence) -> Option<Ending> {
        let Some(finish) = self.finish else {
            sequence.push(prompt, *self.ids.last().expect("a row was taken"));
            return None;
        };
        Some(Ending::Written {
            text: std::mem::take(&mut self.text),
            ids: std::mem::take(&mut self.ids),
            logprobs: std::mem::take(&mut self.logprobs),
            finish,
        })
    }
}

/// How much of a text can be given out while its end may still turn into a stop text.
fn before_stop(text: &str, stops: &[String]) -> usize {
    let held = stops.iter().filter_map(|stop| {
        (1..stop.len()).rev().find(|&length| stop.is_char_boundary(length) && text.ends_with(&stop[..length]))
    });
    text.len() - held.max().unwrap_or(0)
}

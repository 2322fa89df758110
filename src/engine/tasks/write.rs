//! Writes token after token, greedy or drawn, and gives out text as it is settled.

use super::stop::Stops;
use super::{Ending, Place, Surroundings, Top};
use crate::engine::request::{EventKind, Finish, Generation};
use crate::engine::scheduler::{Sequence, Tokens};
use crate::executor::{RowAnswer, RowQuery, RowRequest, RowResult};
use crate::tokenizer::TextStream;

/// An answer while it is written.
pub struct Writing {
    options: Generation,
    /// Most tokens, as far as the context allows.
    max_new_tokens: usize,
    stream: TextStream,
    stops: Stops,
    text: String,
    /// Bytes of the text that are given out.
    given: usize,
    ids: Vec<u32>,
    logprobs: Vec<f64>,
    top: Vec<Top>,
    finish: Option<Finish>,
}

impl Writing {
    /// Nothing written yet; at least one token will be.
    pub fn new(options: Generation, max_new_tokens: usize) -> Self {
        let (ids, logprobs) = (Vec::with_capacity(max_new_tokens), Vec::with_capacity(max_new_tokens));
        let (stream, stops, text) = (TextStream::default(), Stops::new(&options.stop), String::new());
        let top = Vec::new();
        Writing { options, max_new_tokens, stream, stops, text, given: 0, ids, logprobs, top, finish: None }
    }

    /// The next token.
    pub fn want(&self, prompt: &Tokens, sequence: &Sequence, place: Place) -> RowQuery {
        let sampling = self.options.sampling.clone();
        let seen = match sampling.repetition_penalty {
            1.0 => Vec::new(),
            _ => [&prompt.ids[..], &sequence.suffix].concat(),
        };
        let banned = self.options.repeating(&prompt.ids, &sequence.suffix);
        let request = RowRequest::Sample { sampling, position: place.position + 1, seen, banned };
        RowQuery { request, top: self.options.top_logprobs }
    }

    /// Takes the next token.
    pub fn take(&mut self, found: RowAnswer, around: &Surroundings) -> EventKind {
        let RowAnswer { result: RowResult::Sampled { token: id, logprob }, top } = found else {
            unreachable!("a token was wanted")
        };
        self.ids.push(id);
        self.logprobs.push(logprob);
        if self.options.top_logprobs > 0 {
            self.top.push(top.clone());
        }
        let stop = !self.options.ignore_eos && around.ends.contains(&id);
        let last = stop || self.ids.len() == self.max_new_tokens;
        let mut piece = self.stream.push(around.tokenizer, id);
        if last {
            piece += &self.stream.finish(around.tokenizer);
        }
        let cut = self.stops.push(self.text.len(), &piece);
        self.text += &piece;
        if let Some(at) = cut {
            self.text.truncate(at);
        }
        self.finish = match (stop || cut.is_some(), last) {
            (true, _) => Some(Finish::Stop),
            (false, true) => Some(Finish::Length),
            (false, false) => None,
        };
        let held = if self.finish.is_some() { 0 } else { self.stops.held() };
        let settled = self.text.len() - held;
        let text = self.text[self.given..settled].to_owned();
        self.given = settled;
        EventKind::Token { id, logprob, text, top }
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
            top: std::mem::take(&mut self.top),
            finish,
        })
    }
}

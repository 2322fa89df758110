//! Writes token after token, greedy or drawn, and gives out text as it is settled.

use super::{Ending, Found, Place, Surroundings, Want, first_stop};
use crate::backend::Request;
use crate::engine::request::{EventKind, Finish, Generation};
use crate::engine::scheduler::{Line, Tokens};
use crate::sample::{Sampling, log_sum_exp, uniform};
use crate::tokenizer::TextStream;

/// An answer while it is written.
pub struct Writing {
    options: Generation,
    /// Most tokens, as far as the context allows.
    tokens_max: usize,
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
    pub fn new(options: Generation, tokens_max: usize) -> Self {
        let (ids, logprobs) = (Vec::with_capacity(tokens_max), Vec::with_capacity(tokens_max));
        let (stream, text) = (TextStream::default(), String::new());
        Writing { options, tokens_max, stream, text, given: 0, ids, logprobs, finish: None }
    }

    /// The device chooses where it knows the settings, and always or never for one request.
    pub fn want(&self, place: Place) -> Want {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed } = self.options.sampling;
        if min_p > 0.0 || repetition_penalty != 1.0 {
            return Want::Logits;
        }
        let uniform = uniform(seed, place.position as u64 + 1);
        Want::Choice(Request { temperature, top_k, top_p, uniform, target: None })
    }

    /// Takes the next token.
    pub fn take(
        &mut self,
        prompt: &Tokens,
        line: &Line,
        place: Place,
        found: Found,
        around: &Surroundings,
    ) -> EventKind {
        let sampling = &self.options.sampling;
        // A token's probability is one among all, those that are never written included.
        let (id, logprob) = match found {
            Found::Chosen(chosen) => (chosen.token, f64::from(chosen.logit) - f64::from(chosen.log_sum_exp)),
            Found::Logits(logits) => {
                let total = log_sum_exp(logits);
                around.forbidden.iter().for_each(|&token| logits[token as usize] = f32::NEG_INFINITY);
                let seen = match sampling.repetition_penalty {
                    1.0 => Vec::new(),
                    _ => [&prompt.ids[..], &line.suffix].concat(),
                };
                let token = sampling.choose(logits, &seen, place.position + 1);
                (token, f64::from(logits[token as usize]) - total)
            }
        };
        self.ids.push(id);
        self.logprobs.push(logprob);
        let stop = !self.options.ignore_end && around.tokenizer.stops.contains(&id);
        let last = stop || self.ids.len() == self.tokens_max;
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
    pub fn settle(&mut self, prompt: &Tokens, line: &mut Line) -> Option<Ending> {
        let Some(finish) = self.finish else {
            line.push(prompt, *self.ids.last().expect("a row was taken"));
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

//! Beam search: a sequence for each beam, which forks from its parent's.

use super::stop::Stops;
use super::{Ending, Place, Surroundings};
use crate::engine::request::{Finish, Generation};
use crate::engine::scheduler::{Sequence, Tokens};
use crate::executor::{RowAnswer, RowQuery, RowRequest, RowResult};
use crate::kv::PagePool;
use crate::sample::Likely;
use crate::search::{BeamSearch, Hypothesis, Search, Step};

/// A search under way.
pub struct Searching {
    search: Search,
    options: Generation,
    /// For each sequence the tokens that may follow it, once they are there.
    rows: Vec<Option<Vec<Likely>>>,
    /// Whether the prompt is read and its sequence has become beams.
    begun: bool,
}

impl Searching {
    /// A search that begins after a prompt.
    pub fn new(options: Generation, max_new_tokens: usize, around: &Surroundings) -> Self {
        let Generation { num_beams, length_penalty, ignore_eos, .. } = options;
        let stops = if ignore_eos { Vec::new() } else { around.ends.to_vec() };
        let search =
            BeamSearch { num_beams, length_penalty, max_new_tokens, stops, suppressed: around.suppressed.to_vec() };
        Searching { search: search.start(), options, rows: vec![None], begun: false }
    }

    /// The tokens that may follow a sequence. After the prompt all beams are one.
    pub fn want(&self, prompt: &Tokens, sequences: &[Sequence], place: Place) -> RowQuery {
        let banned = self.options.repeating(&prompt.ids, &sequences[place.sequence].suffix);
        let request =
            RowRequest::TopK { count: self.search.wanted(), score: self.search.score(place.sequence), banned };
        RowQuery { request, top: 0 }
    }

    /// Keeps the tokens that may follow a sequence.
    pub fn take(&mut self, place: Place, found: RowAnswer) {
        let RowResult::TopK(row) = found.result else { unreachable!("a search wants likely tokens") };
        self.rows[place.sequence] = Some(row);
    }

    /// Lets the search go on once all sequences have their rows.
    pub fn settle(
        &mut self,
        prompt: &Tokens,
        sequences: &mut Vec<Sequence>,
        pool: &mut PagePool,
        around: &Surroundings,
    ) -> Option<Ending> {
        if self.rows.iter().any(Option::is_none) {
            return None;
        }
        let rows: Vec<Vec<Likely>> = self.rows.drain(..).flatten().collect();
        let step = match rows.as_slice() {
            // After the prompt all beams are one.
            [row] if !self.begun => self.search.step(&vec![row; self.options.num_beams]),
            rows => self.search.step(rows),
        };
        self.begun = true;
        match step {
            Step::Done(hypothesis) => Some(self.ending(hypothesis, around)),
            Step::Advance { parents, tokens } => {
                // After the prompt there is one line, from which all beams fork.
                let parent = |beam: usize| if sequences.len() == 1 { &sequences[0] } else { &sequences[beam] };
                let grown = parents.iter().zip(&tokens);
                let grown = grown.map(|(&beam, &token)| parent(beam).fork(prompt, &[token], pool)).collect();
                std::mem::replace(sequences, grown).iter_mut().for_each(|sequence| sequence.clear(pool));
                self.rows = vec![None; sequences.len()];
                None
            }
        }
    }

    fn ending(&self, found: Hypothesis, around: &Surroundings) -> Ending {
        let mut text = around.tokenizer.decode(&found.tokens);
        let cut = Stops::new(&self.options.stop).push(0, &text);
        if let Some(at) = cut {
            text.truncate(at);
        }
        let finish = if found.stopped || cut.is_some() { Finish::Stop } else { Finish::Length };
        let logprobs = found.logprobs.iter().map(|&logprob| f64::from(logprob)).collect();
        Ending::Written { text, ids: found.tokens, logprobs, top: Vec::new(), finish }
    }
}

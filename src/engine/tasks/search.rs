//! Beam search: a line for each beam, which forks from its parent's.

use super::{Ending, Place, Surroundings, first_stop};
use crate::engine::request::{Finish, Generation};
use crate::engine::scheduler::{Line, Tokens};
use crate::executor::RowResult;
use crate::kv::PagePool;
use crate::search::{BeamSearch, Hypothesis, Search, Step};

/// A search under way.
pub struct Searching {
    search: Search,
    beams: usize,
    stop: Vec<String>,
    /// For each line the logits after it, once they are there.
    logits: Vec<Option<Vec<f32>>>,
    /// Whether the prompt is read and its line has become beams.
    begun: bool,
}

impl Searching {
    /// A search that begins after a prompt.
    pub fn new(options: Generation, tokens_max: usize, around: &Surroundings) -> Self {
        let Generation { beams, length_penalty, stop, ignore_end, .. } = options;
        let stops = if ignore_end { Vec::new() } else { around.tokenizer.stops.clone() };
        let search = BeamSearch { beams, length_penalty, tokens_max, stops, forbidden: around.forbidden.to_vec() };
        Searching { search: search.start(), beams, stop, logits: vec![None], begun: false }
    }

    /// Keeps the logits after a line.
    pub fn take(&mut self, place: Place, found: RowResult) {
        let RowResult::Full(logits) = found else { unreachable!("a search wants whole rows") };
        self.logits[place.line] = Some(logits);
    }

    /// Lets the search go on once all lines have their logits.
    pub fn settle(
        &mut self,
        prompt: &Tokens,
        lines: &mut Vec<Line>,
        pool: &mut PagePool,
        around: &Surroundings,
    ) -> Option<Ending> {
        if self.logits.iter().any(Option::is_none) {
            return None;
        }
        let rows: Vec<Vec<f32>> = self.logits.drain(..).flatten().collect();
        let step = match rows.as_slice() {
            // After the prompt all beams are one.
            [row] if !self.begun => self.search.step(&vec![row; self.beams]),
            rows => self.search.step(rows),
        };
        self.begun = true;
        match step {
            Step::Done(hypothesis) => Some(self.ending(hypothesis, around)),
            Step::Advance { parents, tokens } => {
                // After the prompt there is one line, from which all beams fork.
                let parent = |beam: usize| if lines.len() == 1 { &lines[0] } else { &lines[beam] };
                let grown = parents.iter().zip(&tokens);
                let grown = grown.map(|(&beam, &token)| parent(beam).fork(prompt, &[token], pool)).collect();
                std::mem::replace(lines, grown).iter_mut().for_each(|line| line.clear(pool));
                self.logits = vec![None; lines.len()];
                None
            }
        }
    }

    fn ending(&self, found: Hypothesis, around: &Surroundings) -> Ending {
        let mut text = around.tokenizer.decode(&found.tokens);
        let cut = first_stop(&text, &self.stop);
        if let Some(at) = cut {
            text.truncate(at);
        }
        let finish = if found.stopped || cut.is_some() { Finish::Stop } else { Finish::Length };
        let logprobs = found.logprobs.iter().map(|&logprob| f64::from(logprob)).collect();
        Ending::Written { text, ids: found.tokens, logprobs, finish }
    }
}

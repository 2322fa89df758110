//! Beam search, decision for decision that of transformers 4.44 (`generation/beam_search.py`), under which the
//! published numbers were made. It knows beams and scores; its caller knows the model.

use crate::error::Result;
use crate::sample::{Likely, most_likely};
use crate::setters::setters;

/// What a beam search is asked to do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BeamSearch {
    /// Beams, at least 1.
    pub num_beams: usize,
    /// A finished text's score is its log-probability over length^penalty; 0: the plain sum.
    pub length_penalty: f32,
    /// Most tokens to generate, the stop token included.
    pub max_new_tokens: usize,
    /// Tokens that finish a text.
    pub stops: Vec<u32>,
    /// Tokens that are never generated, ascending.
    pub suppressed: Vec<u32>,
}

setters!(BeamSearch { length_penalty: f32, stops: Vec<u32>, suppressed: Vec<u32> });

/// One text found by the search.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hypothesis {
    /// Its tokens, a stop token at the end included.
    pub tokens: Vec<u32>,
    /// The log-probability of each.
    pub logprobs: Vec<f32>,
    /// Sum of the log-probabilities over length^penalty.
    pub score: f32,
    /// Whether a stop token ended it.
    pub stopped: bool,
}

/// A text that still grows.
#[derive(Debug, Clone, Default)]
struct Beam {
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    score: f32,
}

impl Beam {
    fn grown(&self, token: u32, score: f32, logprob: f32) -> Beam {
        let mut beam = self.clone();
        beam.tokens.push(token);
        beam.logprobs.push(logprob);
        beam.score = score;
        beam
    }
}

/// Scores of the beams that do not exist yet at the first step; any real one is better.
const NO_BEAM: f32 = -1e9;

impl BeamSearch {
    /// So many beams and tokens; nothing ends a text or is suppressed, and scores are means.
    pub fn new(num_beams: usize, max_new_tokens: usize) -> Self {
        BeamSearch { num_beams, max_new_tokens, length_penalty: 1.0, stops: Vec::new(), suppressed: Vec::new() }
    }

    /// A search that has not seen any logits.
    ///
    /// # Panics
    /// With no beams or no tokens to generate.
    pub fn start(self) -> Search {
        assert!(self.num_beams > 0 && self.max_new_tokens > 0, "a search has beams and room");
        let mut beams = vec![Beam { score: NO_BEAM, ..Beam::default() }; self.num_beams];
        beams[0].score = 0.0;
        let finished = Finished { most: self.num_beams, hypotheses: Vec::new() };
        Search { settings: self, beams, finished, length: 0 }
    }

    /// Searches on from the `first` logits. `advance(parents, tokens)` appends a token to a copy of each parent beam,
    /// and gives the logits after it, in order.
    ///
    /// # Errors
    /// Whatever `advance` returns.
    ///
    /// # Panics
    /// With no beams or no tokens to generate.
    pub fn run(
        &self,
        first: Vec<f32>,
        mut advance: impl FnMut(&[usize], &[u32]) -> Result<Vec<Vec<f32>>>,
    ) -> Result<Hypothesis> {
        let mut search = self.clone().start();
        let mut logits = vec![first; self.num_beams];
        loop {
            let rows = (0..).zip(&logits);
            let likely = |(beam, row): (usize, &Vec<f32>)| {
                most_likely(row, &self.suppressed, search.score(beam), search.wanted())
            };
            let rows: Vec<Vec<Likely>> = rows.map(likely).collect();
            match search.step(&rows) {
                Step::Done(hypothesis) => return Ok(hypothesis),
                Step::Advance { parents, tokens } => logits = advance(&parents, &tokens)?,
            }
        }
    }

    /// Continuations of each beam, and of all together, that decide: also if all but these are stop tokens.
    fn wanted(&self) -> usize {
        self.num_beams * (1 + self.stops.len()).max(2)
    }

    /// The best continuations of all beams together, best first; equal ones in order of beam and token.
    fn candidates(&self, beams: &[Beam], rows: &[impl AsRef<[Likely]>]) -> Vec<Candidate> {
        let mut all = Vec::new();
        for (parent, (beam, row)) in beams.iter().zip(rows).enumerate() {
            let candidate =
                |&Likely { token, logprob }: &Likely| Candidate { parent, token, logprob, score: beam.score + logprob };
            all.extend(row.as_ref().iter().map(candidate));
        }
        all.sort_by(Candidate::order);
        all.truncate(self.wanted());
        all
    }

    fn score(&self, sum: f32, length: usize) -> f32 {
        sum / (length as f32).powf(self.length_penalty)
    }

    fn hypothesis(&self, beam: Beam, stopped: bool) -> Hypothesis {
        let score = self.score(beam.score, beam.tokens.len());
        Hypothesis { tokens: beam.tokens, logprobs: beam.logprobs, score, stopped }
    }
}

/// What a search wants next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// What may come after each token, appended to a copy of its parent beam.
    Advance {
        /// For each new beam, the old one it goes on from.
        parents: Vec<usize>,
        /// For each new beam, its token.
        tokens: Vec<u32>,
    },
    /// Nothing: this is the best text.
    Done(Hypothesis),
}

/// A beam search under way.
#[derive(Debug, Clone)]
pub struct Search {
    settings: BeamSearch,
    beams: Vec<Beam>,
    finished: Finished,
    /// Tokens of each beam.
    length: usize,
}

impl Search {
    /// How many of the most likely tokens after each beam it wants.
    pub fn wanted(&self) -> usize {
        self.settings.wanted()
    }

    /// How likely a beam is, which decides the order of tokens after it ([`most_likely`]); before the first step, the
    /// first one stands for the prompt.
    pub fn score(&self, beam: usize) -> f32 {
        self.beams[beam].score
    }

    /// Goes on with the most likely tokens after each beam, as many as it wants; at the first step, those after the
    /// prompt, once for each beam.
    ///
    /// # Panics
    /// With another number of rows than beams.
    pub fn step(&mut self, rows: &[impl AsRef<[Likely]>]) -> Step {
        let BeamSearch { num_beams: count, max_new_tokens, .. } = self.settings;
        assert_eq!(rows.len(), self.beams.len(), "a row for each beam");
        self.length += 1;
        let candidates = self.settings.candidates(&self.beams, rows);
        let best = candidates[0].score;
        let mut next: Vec<(usize, Beam)> = Vec::with_capacity(count);
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let grown = self.beams[candidate.parent].grown(candidate.token, candidate.score, candidate.logprob);
            if !self.settings.stops.contains(&candidate.token) {
                next.push((candidate.parent, grown));
            } else if rank < count {
                self.finished.add(self.settings.hypothesis(grown, true));
            }
            if next.len() == count {
                break;
            }
        }
        let (parents, grown): (Vec<usize>, Vec<Beam>) = next.into_iter().unzip();
        self.beams = grown;
        if self.finished.is_done(self.settings.score(best, self.length)) {
            return Step::Done(self.finished.best());
        }
        if self.length < max_new_tokens {
            let tokens = self.beams.iter().map(|beam| beam.tokens[self.length - 1]).collect();
            return Step::Advance { parents, tokens };
        }
        for beam in self.beams.drain(..) {
            self.finished.add(self.settings.hypothesis(beam, false));
        }
        Step::Done(self.finished.best())
    }
}

/// A beam and the token that would follow it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    parent: usize,
    token: u32,
    logprob: f32,
    score: f32,
}

impl Candidate {
    fn order(&self, other: &Candidate) -> std::cmp::Ordering {
        other.score.total_cmp(&self.score).then(self.parent.cmp(&other.parent)).then(self.token.cmp(&other.token))
    }
}

/// The best finished texts so far.
#[derive(Debug, Clone)]
struct Finished {
    most: usize,
    hypotheses: Vec<Hypothesis>,
}

impl Finished {
    fn add(&mut self, hypothesis: Hypothesis) {
        let full = self.hypotheses.len() >= self.most;
        if full && hypothesis.score <= self.worst() {
            return;
        }
        self.hypotheses.push(hypothesis);
        if full {
            let worst = self.worst();
            let at = self.hypotheses.iter().position(|hypothesis| hypothesis.score == worst);
            // No score is the worst where all of them are NaN.
            self.hypotheses.remove(at.unwrap_or(0));
        }
    }

    fn worst(&self) -> f32 {
        self.hypotheses.iter().map(|hypothesis| hypothesis.score).fold(f32::INFINITY, f32::min)
    }

    /// Whether no open beam can get better than the worst finished text, judged by the best candidate's score.
    fn is_done(&self, attainable: f32) -> bool {
        self.hypotheses.len() >= self.most && self.worst() >= attainable
    }

    /// The best; of equal ones the last found.
    fn best(&mut self) -> Hypothesis {
        let best = self.hypotheses.drain(..).max_by(|a, b| a.score.total_cmp(&b.score));
        best.expect("a search that ran at least one step has a text")
    }
}

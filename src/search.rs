//! Beam search, decision for decision that of transformers 4.44 (`generation/beam_search.py`), under which the
//! published numbers were made. It knows beams and scores; a caller's closure knows the model.

use crate::error::Result;
use crate::sample::log_sum_exp;

/// What a beam search is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamSearch {
    /// Beams, at least 1.
    pub beams: usize,
    /// A finished text's score is its log-probability over length^penalty; 0: the plain sum.
    pub length_penalty: f32,
    /// Most tokens to generate, the stop token included.
    pub tokens_max: usize,
    /// Tokens that finish a text.
    pub stops: Vec<u32>,
    /// Tokens that are never generated.
    pub forbidden: Vec<u32>,
}

/// One text found by the search.
#[derive(Debug, Clone, PartialEq)]
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
        assert!(self.beams > 0 && self.tokens_max > 0, "a search has beams and room");
        let mut beams = vec![Beam { score: NO_BEAM, ..Beam::default() }; self.beams];
        beams[0].score = 0.0;
        let mut logits = vec![first; self.beams];
        let mut finished = Finished { most: self.beams, hypotheses: Vec::new() };
        for length in 1..=self.tokens_max {
            let candidates = self.candidates(&beams, &logits);
            let best = candidates[0].score;
            let mut next: Vec<(usize, Beam)> = Vec::with_capacity(self.beams);
            for (rank, candidate) in candidates.into_iter().enumerate() {
                let grown = beams[candidate.parent].grown(candidate.token, candidate.score, candidate.logprob);
                if !self.stops.contains(&candidate.token) {
                    next.push((candidate.parent, grown));
                } else if rank < self.beams {
                    finished.add(self.hypothesis(grown, true));
                }
                if next.len() == self.beams {
                    break;
                }
            }
            let (parents, grown): (Vec<usize>, Vec<Beam>) = next.into_iter().unzip();
            beams = grown;
            if finished.is_done(self.score(best, length)) {
                return Ok(finished.best());
            }
            if length < self.tokens_max {
                let tokens: Vec<u32> = beams.iter().map(|beam| beam.tokens[length - 1]).collect();
                logits = advance(&parents, &tokens)?;
            }
        }
        for beam in beams {
            finished.add(self.hypothesis(beam, false));
        }
        Ok(finished.best())
    }

    /// The best continuations of all beams together, best first; equal ones in order of beam and token.
    fn candidates(&self, beams: &[Beam], logits: &[Vec<f32>]) -> Vec<Candidate> {
        let wanted = self.beams * (1 + self.stops.len()).max(2);
        let mut all = Vec::new();
        for (parent, (beam, logits)) in beams.iter().zip(logits).enumerate() {
            let total = log_sum_exp(logits);
            let mut of_beam: Vec<Candidate> = (0..)
                .zip(logits)
                .map(|(token, &logit)| {
                    let forbidden = self.forbidden.contains(&token);
                    let logprob = if forbidden { f32::NEG_INFINITY } else { (f64::from(logit) - total) as f32 };
                    Candidate { parent, token, logprob, score: beam.score + logprob }
                })
                .collect();
            if of_beam.len() > wanted {
                of_beam.select_nth_unstable_by(wanted, Candidate::order);
                of_beam.truncate(wanted);
            }
            all.extend(of_beam);
        }
        all.sort_by(Candidate::order);
        all.truncate(wanted);
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
    fn best(self) -> Hypothesis {
        let best = self.hypotheses.into_iter().max_by(|a, b| a.score.total_cmp(&b.score));
        best.expect("a search that ran at least one step has a text")
    }
}

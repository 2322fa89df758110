//! What is wanted of each row of logits, and what comes of it: on the device where it can, else on a fetched row.

use crate::backend::{Request, Sampled};
use crate::sample::{Sampling, log_probability, log_sum_exp, uniform};

/// What is wanted of one row of logits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowRequest {
    /// A token.
    Sample {
        /// How it is chosen.
        sampling: Sampling,
        /// The position it will have: the random choice depends on it.
        position: usize,
        /// The tokens before it, where there is a penalty for repetition.
        seen: Vec<u32>,
    },
    /// Log-probabilities of these tokens; without any, whether the row is finite.
    Targets(Vec<u32>),
    /// The row itself.
    Full,
}

/// What came of one row of logits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowResult {
    /// A token, with its log-probability among all, those that are never chosen included.
    Sampled { token: u32, logprob: f64 },
    /// A log-probability for each target.
    Targets(Vec<f64>),
    /// A logit for each token of the vocabulary.
    Full(Vec<f32>),
    /// A logit is NaN or +infinity, or all are -infinity.
    NotFinite,
}

impl RowRequest {
    /// The same for a device that chooses tokens, if it knows how; always or never for one kind of settings.
    pub(super) fn on_device(&self) -> Option<Request> {
        match self {
            RowRequest::Sample { sampling, position, .. } => {
                let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed } = *sampling;
                let uniform = uniform(seed, *position as u64);
                let known = min_p == 0.0 && repetition_penalty == 1.0;
                known.then_some(Request { temperature, top_k, top_p, uniform, target: None })
            }
            RowRequest::Targets(targets) if targets.len() <= 1 => {
                let target = targets.first().copied();
                Some(Request { temperature: 0.0, top_k: 0, top_p: 1.0, uniform: 0.0, target })
            }
            RowRequest::Targets(_) | RowRequest::Full => None,
        }
    }

    /// What a device found for [`RowRequest::on_device`].
    pub(super) fn found(&self, sampled: Sampled) -> RowResult {
        let Sampled { token, logit, log_sum_exp, target_logit } = sampled;
        if !log_sum_exp.is_finite() {
            return RowResult::NotFinite;
        }
        let logprob = |logit: f32| f64::from(logit) - f64::from(log_sum_exp);
        match self {
            RowRequest::Sample { .. } => RowResult::Sampled { token, logprob: logprob(logit) },
            RowRequest::Targets(targets) => RowResult::Targets(targets.iter().map(|_| logprob(target_logit)).collect()),
            RowRequest::Full => unreachable!("a device chooses tokens and weighs targets"),
        }
    }

    /// What is found in a row of logits that was fetched, whose values may change. Tokens of the vocabulary that it has
    /// no logit for are minus infinitely likely; none of `suppressed` is chosen.
    pub(super) fn find(&self, logits: &mut [f32], vocabulary: usize, suppressed: &[u32]) -> RowResult {
        if logits.len() < vocabulary {
            let mut whole = logits.to_vec();
            whole.resize(vocabulary, f32::NEG_INFINITY);
            return self.find(&mut whole, vocabulary, suppressed);
        }
        let look = |(nan, most): (bool, f32), &logit: &f32| (nan | logit.is_nan(), most.max(logit));
        let (nan, most) = logits.iter().fold((false, f32::NEG_INFINITY), look);
        if nan || most.is_infinite() {
            return RowResult::NotFinite;
        }
        match self {
            RowRequest::Sample { sampling, position, seen } => {
                let total = log_sum_exp(logits);
                suppressed.iter().for_each(|&token| logits[token as usize] = f32::NEG_INFINITY);
                let token = sampling.sample(logits, seen, *position);
                RowResult::Sampled { token, logprob: f64::from(logits[token as usize]) - total }
            }
            RowRequest::Targets(targets) => {
                RowResult::Targets(targets.iter().map(|&target| log_probability(logits, target)).collect())
            }
            RowRequest::Full => RowResult::Full(logits.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RowRequest {
        RowRequest::Sample { sampling: Sampling::default(), position: 3, seen: Vec::new() }
    }

    #[test]
    fn a_row_that_is_not_finite_is_found_out_on_either_side() {
        const LEAST: f32 = f32::NEG_INFINITY;
        for row in [[1.0, f32::NAN, 2.0], [1.0, f32::INFINITY, LEAST], [LEAST; 3], [f32::NAN; 3]] {
            for request in [sample(), RowRequest::Targets(vec![0, 2]), RowRequest::Targets(vec![]), RowRequest::Full] {
                assert_eq!(request.find(&mut row.clone(), 5, &[1]), RowResult::NotFinite, "{request:?} of {row:?}");
            }
        }
        for log_sum_exp in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let sampled = Sampled { token: 1, logit: 0.0, log_sum_exp, target_logit: 0.0 };
            assert_eq!(sample().found(sampled), RowResult::NotFinite, "{log_sum_exp}");
        }
    }

    #[test]
    fn a_row_without_some_tokens_is_answered() {
        let row = [f32::NEG_INFINITY, 1.0, 3.0];
        let total = log_sum_exp(&row);
        assert_eq!(sample().find(&mut row.clone(), 5, &[2]), RowResult::Sampled { token: 1, logprob: 1.0 - total });
        let targets = RowRequest::Targets(vec![2, 4]).find(&mut row.clone(), 5, &[2]);
        assert_eq!(targets, RowResult::Targets(vec![3.0 - total, f64::NEG_INFINITY]));
        let logits = [&row[..], &[f32::NEG_INFINITY; 2]].concat();
        assert_eq!(RowRequest::Full.find(&mut row.clone(), 5, &[2]), RowResult::Full(logits));
    }
}

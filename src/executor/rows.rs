//! What is wanted of each row of logits, and what comes of it: on the device where it can, else on a fetched row.

use crate::backend::{LISTED_MAX, Request, Sampled};
use crate::sample::{Likely, Sampling, likeliest, log_sum_exp, most_likely_of, uniform};

/// Tokens that a device lists beyond those wanted: its order is that of log-probabilities rounded to f32, in which
/// tokens of different logits may be equal.
const SPARE: usize = 4;

/// What is wanted of one row of logits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RowQuery {
    pub request: RowRequest,
    /// How many of its likeliest tokens are wanted beside that.
    pub top: usize,
}

/// What came of one row of logits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RowAnswer {
    pub result: RowResult,
    /// The likeliest tokens with their log-probabilities, likeliest first, lower tokens first among equals; those that
    /// are never chosen included, those that are not possible left out.
    pub top: Vec<(u32, f64)>,
}

impl RowQuery {
    /// What a device is asked for the likeliest tokens; nothing of it is suppressed.
    pub(super) fn top_on_device(&self) -> Request {
        Request::TopK { count: self.top + SPARE, score: 0.0 }
    }

    /// What a device found for [`RowQuery::top_on_device`].
    pub(super) fn top_found(&self, sampled: &Sampled) -> Vec<(u32, f64)> {
        top(sampled.tokens.iter().copied(), sampled.log_sum_exp.into(), self.top)
    }

    /// What is found in a row of logits that was fetched, whose values may change. Tokens of the vocabulary that it has
    /// no logit for are minus infinitely likely; none of `suppressed` is chosen.
    pub(super) fn find(&self, logits: &mut [f32], vocabulary: usize, suppressed: &[u32]) -> RowAnswer {
        if logits.len() < vocabulary {
            let mut whole = logits.to_vec();
            whole.resize(vocabulary, f32::NEG_INFINITY);
            return self.find(&mut whole, vocabulary, suppressed);
        }
        let look = |(nan, most): (bool, f32), &logit: &f32| (nan | logit.is_nan(), most.max(logit));
        let (nan, most) = logits.iter().fold((false, f32::NEG_INFINITY), look);
        if nan || most.is_infinite() {
            return RowAnswer { result: RowResult::NotFinite, top: Vec::new() };
        }
        let total = log_sum_exp(logits);
        let top = top((0..).zip(logits.iter().copied()), total, self.top);
        RowAnswer { result: self.request.find(logits, total, suppressed), top }
    }
}

/// The most likely of some tokens, of which it is told the logits.
fn top(logits: impl Iterator<Item = (u32, f32)>, log_sum_exp: f64, count: usize) -> Vec<(u32, f64)> {
    let possible = logits.filter(|(_, logit)| *logit > f32::NEG_INFINITY);
    let logprob = |(token, logit)| (token, f64::from(logit) - log_sum_exp);
    likeliest(possible, count).into_iter().map(logprob).collect()
}

/// The one thing that is wanted of a row of logits.
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
        /// Tokens that are not chosen this time, ascending, where some may be: they are told to no device.
        banned: Option<Vec<u32>>,
    },
    /// Log-probabilities of these tokens; without any, whether the row is finite.
    Targets(Vec<u32>),
    /// The most likely tokens.
    TopK {
        /// How many, at most.
        count: usize,
        /// See [`most_likely`].
        score: f32,
        /// As for a token that is chosen.
        banned: Option<Vec<u32>>,
    },
    /// The row itself.
    Full,
}

/// What came of [`RowRequest`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowResult {
    /// A token, with its log-probability among all, those that are never chosen included.
    Sampled { token: u32, logprob: f64 },
    /// A log-probability for each target.
    Targets(Vec<f64>),
    /// The most likely tokens; those that are never chosen are minus infinitely likely.
    TopK(Vec<Likely>),
    /// A logit for each token of the vocabulary.
    Full(Vec<f32>),
    /// A logit is NaN or +infinity, or all are -infinity.
    NotFinite,
}

impl RowRequest {
    /// The same for a device that chooses tokens, if it knows how; always or never for one kind of settings.
    pub(super) fn on_device(&self) -> Option<Request> {
        match self {
            RowRequest::Sample { sampling, position, banned, .. } => {
                let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed } = sampling.settled();
                let uniform = uniform(seed, *position as u64);
                let known = min_p == 0.0 && repetition_penalty == 1.0 && banned.is_none();
                known.then_some(Request::Sample { temperature, top_k, top_p, uniform })
            }
            RowRequest::Targets(targets) => Some(Request::Targets(targets.clone())),
            RowRequest::TopK { count, score, banned: None } => Some(Request::TopK { count: *count, score: *score }),
            RowRequest::TopK { .. } | RowRequest::Full => None,
        }
        .filter(|request| request.listed() <= LISTED_MAX)
    }

    /// What a device found for [`RowRequest::on_device`].
    pub(super) fn found(&self, sampled: &Sampled, suppressed: &[u32]) -> RowResult {
        let Sampled { log_sum_exp, tokens } = sampled;
        if !log_sum_exp.is_finite() {
            return RowResult::NotFinite;
        }
        let logprob = |(_, logit): &(u32, f32)| f64::from(*logit) - f64::from(*log_sum_exp);
        match self {
            RowRequest::Sample { .. } => RowResult::Sampled { token: tokens[0].0, logprob: logprob(&tokens[0]) },
            RowRequest::Targets(_) => RowResult::Targets(tokens.iter().map(logprob).collect()),
            // The device's own arithmetic, on which its order rests.
            RowRequest::TopK { .. } => {
                let likely = |&(token, logit): &(u32, f32)| {
                    let is_suppressed = suppressed.binary_search(&token).is_ok();
                    Likely { token, logprob: if is_suppressed { f32::NEG_INFINITY } else { logit - log_sum_exp } }
                };
                RowResult::TopK(tokens.iter().map(likely).collect())
            }
            RowRequest::Full => unreachable!("a device gives no whole rows"),
        }
    }

    /// What is found in a finite row of this log-sum-exp.
    fn find(&self, logits: &mut [f32], total: f64, suppressed: &[u32]) -> RowResult {
        match self {
            RowRequest::Sample { sampling, position, seen, banned } => {
                suppressed
                    .iter()
                    .chain(banned.iter().flatten())
                    .for_each(|&token| logits[token as usize] = f32::NEG_INFINITY);
                let token = sampling.sample(logits, seen, *position);
                RowResult::Sampled { token, logprob: f64::from(logits[token as usize]) - total }
            }
            RowRequest::Targets(targets) => {
                let logprob = |target: &u32| f64::from(logits[*target as usize]) - total;
                RowResult::Targets(targets.iter().map(logprob).collect())
            }
            RowRequest::TopK { count, score, banned: None } => {
                RowResult::TopK(most_likely_of(logits, total, suppressed, *score, *count))
            }
            RowRequest::TopK { count, score, banned: Some(banned) } => {
                let mut never = [suppressed, banned].concat();
                never.sort_unstable();
                RowResult::TopK(most_likely_of(logits, total, &never, *score, *count))
            }
            RowRequest::Full => RowResult::Full(logits.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RowRequest {
        RowRequest::Sample { sampling: Sampling::default(), position: 3, seen: Vec::new(), banned: None }
    }

    fn find(request: RowRequest, row: &[f32], suppressed: &[u32]) -> RowResult {
        RowQuery { request, top: 0 }.find(&mut row.to_vec(), 5, suppressed).result
    }

    #[test]
    fn a_row_that_is_not_finite_is_found_out_on_either_side() {
        const LEAST: f32 = f32::NEG_INFINITY;
        for row in [[1.0, f32::NAN, 2.0], [1.0, f32::INFINITY, LEAST], [LEAST; 3], [f32::NAN; 3]] {
            let top = RowRequest::TopK { count: 2, score: -1.0, banned: None };
            let targets = [vec![0, 2], vec![]].map(RowRequest::Targets);
            for request in [sample(), top, RowRequest::Full].into_iter().chain(targets) {
                let found = RowQuery { request: request.clone(), top: 2 }.find(&mut row.clone(), 5, &[1]);
                let want = RowAnswer { result: RowResult::NotFinite, top: Vec::new() };
                assert_eq!(found, want, "{request:?} of {row:?}");
            }
        }
        for log_sum_exp in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let sampled = Sampled { log_sum_exp, tokens: vec![(1, 0.0)] };
            assert_eq!(sample().found(&sampled, &[]), RowResult::NotFinite, "{log_sum_exp}");
        }
    }

    /// What tends to the most likely token is asked of a device as that, and found on the processor as that.
    #[test]
    fn settings_at_the_edge_of_f32_are_the_same_everywhere() {
        let row = [0.5, 2.0, -1.0, 2.0, f32::NEG_INFINITY];
        for [temperature, top_p] in [[1e-40, 1.0], [1e-30, 0.5], [f32::MIN_POSITIVE, 1.0], [1.0, 1e-40], [3e38, 1e-9]] {
            let sampling = Sampling::default().temperature(temperature).top_p(top_p);
            let request = RowRequest::Sample { sampling, position: 3, seen: Vec::new(), banned: None };
            let Some(Request::Sample { temperature: asked, .. }) = request.on_device() else { panic!("{request:?}") };
            assert_eq!(asked, 0.0, "{request:?}");
            let RowResult::Sampled { token, .. } = find(request, &row, &[]) else { panic!("no token") };
            assert_eq!(token, 1, "{temperature} {top_p}");
        }
    }

    #[test]
    fn a_row_without_some_tokens_is_answered() {
        let row = [f32::NEG_INFINITY, 1.0, 3.0];
        let total = log_sum_exp(&row);
        assert_eq!(find(sample(), &row, &[2]), RowResult::Sampled { token: 1, logprob: 1.0 - total });
        let targets = find(RowRequest::Targets(vec![2, 4]), &row, &[2]);
        assert_eq!(targets, RowResult::Targets(vec![3.0 - total, f64::NEG_INFINITY]));
        let top = find(RowRequest::TopK { count: 4, score: -2.0, banned: None }, &row, &[2]);
        let never = |token| Likely { token, logprob: f32::NEG_INFINITY };
        let first = Likely { token: 1, logprob: (1.0 - total) as f32 };
        assert_eq!(top, RowResult::TopK(vec![first, never(0), never(2), never(3)]));
        let logits = [&row[..], &[f32::NEG_INFINITY; 2]].concat();
        assert_eq!(find(RowRequest::Full, &row, &[2]), RowResult::Full(logits));
    }

    /// Whatever else is asked, on either side: what is suppressed is listed, what is impossible is not.
    #[test]
    fn the_likeliest_tokens_are_listed_lower_ones_first() {
        let row = [1.0, 3.0, f32::NEG_INFINITY, 3.0];
        let total = log_sum_exp(&row);
        let all = [(1, 3.0 - total), (3, 3.0 - total), (0, 1.0 - total)];
        let sampled = Sampled { log_sum_exp: total as f32, tokens: vec![(3, 3.0), (0, 1.0), (1, 3.0)] };
        for count in 0..6 {
            let want = &all[..count.min(all.len())];
            for request in [sample(), RowRequest::Targets(vec![0]), RowRequest::Full] {
                let query = RowQuery { request, top: count };
                assert_eq!(query.find(&mut row.clone(), 5, &[1]).top, want, "{query:?}");
                let found: Vec<u32> = query.top_found(&sampled).into_iter().map(|(token, _)| token).collect();
                assert_eq!(found, want.iter().map(|(token, _)| *token).collect::<Vec<_>>(), "{query:?}");
            }
        }
    }
}

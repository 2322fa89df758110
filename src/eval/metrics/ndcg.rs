//! Normalised discounted cumulative gain for ranked answers in a dialog, as VisDial's challenge defines it: of the
//! candidate answers, as many count as people found relevant at all; each of the first ones gives its relevance,
//! divided by log2 of its rank + 1; and the sum is divided by that of the best order.

use crate::error::{Error, Result};

/// The gain of one round, 0 to 1. `relevance` says for each candidate how many of the people found it right (0 to 1),
/// `scores` what the model gave it, more being better; equal scores rank in order of the candidates.
///
/// # Errors
/// With another number of scores than of candidates, numbers that are none, or no candidate that is relevant at all.
pub fn ndcg(relevance: &[f64], scores: &[f64]) -> Result<f64> {
    if relevance.len() != scores.len() {
        let (found, wanted) = (scores.len(), relevance.len());
        return Err(Error::argument(format!("NDCG: expected {wanted} scores, one a candidate, found {found}")));
    }
    if let Some(at) = (0..scores.len()).find(|&at| scores[at].is_nan() || !(0.0..=1.0).contains(&relevance[at])) {
        let found = format!("{} and {}", relevance[at], scores[at]);
        let wanted = "expected a relevance from 0 to 1 and a score";
        return Err(Error::argument(format!("NDCG: candidate {at}: {wanted}, found {found}")));
    }
    let relevant = relevance.iter().filter(|&&relevance| relevance > 0.0).count();
    if relevant == 0 {
        return Err(Error::argument("NDCG: expected at least 1 relevant candidate, found 0"));
    }
    let gain = |by: &[f64]| {
        let mut order: Vec<usize> = (0..by.len()).collect();
        order.sort_by(|&a, &b| by[b].total_cmp(&by[a]));
        let discounted = |(rank, candidate): (usize, usize)| relevance[candidate] / ((rank + 2) as f64).log2();
        order.into_iter().take(relevant).enumerate().map(discounted).sum::<f64>()
    };
    Ok(gain(scores) / gain(relevance))
}

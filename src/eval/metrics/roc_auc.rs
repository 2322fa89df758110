//! The area under the ROC curve, as scikit-learn's `roc_auc_score` gives it: the share of pairs of a positive and a
//! negative example whose scores are in the right order, a tie counting half. And the score that OpenFlamingo gives a
//! Hateful Memes example.

use crate::error::{Error, Result};
use crate::sample::log_sum_exp;

/// The area for `scores` of examples of which some are `positive`.
///
/// # Errors
/// With another number of scores than of labels, a score that is no number, or only one kind of example.
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> Result<f64> {
    if scores.len() != positive.len() {
        let (found, wanted) = (scores.len(), positive.len());
        return Err(Error::argument(format!("ROC-AUC: expected {wanted} scores, one a label, found {found}")));
    }
    if let Some(at) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::argument(format!("ROC-AUC: score {at}: expected a number, found NaN")));
    }
    let positives = positive.iter().filter(|&&label| label).count();
    let negatives = positive.len() - positives;
    if positives == 0 || negatives == 0 {
        let found = format!("{positives} positive and {negatives} negative");
        return Err(Error::argument(format!("ROC-AUC: expected examples of both kinds, found {found}")));
    }
    let mut examples: Vec<(f64, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
    examples.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    // Pairs in the right order, counted in halves: whole numbers, so that the order of examples leaves no trace.
    let mut halves = 0u64;
    let mut negatives_below = 0u64;
    for tied in examples.chunk_by(|(a, _), (b, _)| a == b) {
        let tied_positives = tied.iter().filter(|(_, label)| *label).count() as u64;
        let tied_negatives = tied.len() as u64 - tied_positives;
        halves += tied_positives * (2 * negatives_below + tied_negatives);
        negatives_below += tied_negatives;
    }
    Ok(halves as f64 / (2.0 * positives as f64 * negatives as f64))
}

/// What OpenFlamingo's Hateful Memes evaluation takes for the score of the class `positive`: how likely the best class
/// is among all, or one less that if the best is another. `log_probabilities` has one number a class.
///
/// # Panics
/// If there is no class `positive`.
pub fn class_score(log_probabilities: &[f32], positive: usize) -> f64 {
    assert!(positive < log_probabilities.len(), "a class of those that were scored");
    let mut best = 0;
    for (class, value) in log_probabilities.iter().enumerate() {
        if *value > log_probabilities[best] {
            best = class;
        }
    }
    let share = (f64::from(log_probabilities[best]) - log_sum_exp(log_probabilities)).exp();
    if best == positive { share } else { 1.0 - share }
}

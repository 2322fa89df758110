//! Shares of right answers: top-k for ranked classes (ImageNet, Kinetics, STAR), exact answers (MSVDQA, MSRVTTQA), and
//! iVQA's accuracy among five people (Yang et al. 2021: right when two gave the answer, half right when one did).

use super::mean;
use super::vqa::normalised;
use crate::error::{Error, Result};

/// The share of examples whose label is among the first `k` of their ranked classes.
///
/// # Errors
/// With no example, with another number of labels than of rankings, or with a `k` of 0.
pub fn top_k(ranked: &[impl AsRef<[usize]>], labels: &[usize], k: usize) -> Result<f64> {
    if ranked.is_empty() || ranked.len() != labels.len() || k == 0 {
        let (found, labels) = (ranked.len(), labels.len());
        let wanted = "top-k: expected as many labels as rankings, at least 1, and k of at least 1";
        return Err(Error::argument(format!("{wanted}, found {labels}, {found} and {k}")));
    }
    let right =
        ranked.iter().zip(labels).map(|(ranked, label)| ranked.as_ref().iter().take(k).any(|class| class == label));
    Ok(mean(right.map(f64::from)))
}

/// 1 if an answer is the expected one after both are brought to VQA's form, else 0.
pub fn exact(answer: &str, expected: &str) -> f64 {
    f64::from(normalised(answer) == normalised(expected))
}

/// iVQA's accuracy of one answer: half for each person who gave it, at most 1, all in VQA's form.
pub fn ivqa<'a>(answer: &str, people: impl IntoIterator<Item = &'a str>) -> f64 {
    let answer = normalised(answer);
    let agree = people.into_iter().filter(|given| normalised(given) == answer).count();
    (agree as f64 / 2.0).min(1.0)
}

//! What answers are worth: the metrics of few-shot evaluation, each held against the tool that the published numbers
//! were made with; what little differs is said in its file. They are pure functions of text and numbers and know no
//! model.
//!
//! All scores are shares between 0 and 1 (CIDEr: between 0 and 10), as the tools compute them; papers print them times
//! 100.

pub mod accuracy;
pub mod answers;
pub mod bootstrap;
pub mod cider;
pub mod ndcg;
pub mod okvqa;
pub mod ptb;
pub mod roc_auc;
pub mod score_interval;
pub mod vqa;

/// What Python's `str.split` splits at.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

/// The mean of numbers, which must not be none.
pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

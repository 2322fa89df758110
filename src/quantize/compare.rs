//! How far one model's predictions are from another's.

use std::path::Path;

use crate::backend::Device;
use crate::engine::Options;
use crate::error::Result;
use crate::flamingo::Flamingo;
use crate::prompt::Prompt;

/// What models read where no text is given.
pub const TEXT: &str = "The flamingo stands on one leg in the shallow water of a salt lake. Nobody knows for certain why. \
It may save warmth, since water takes heat from a body much faster than air; or it may save strength, since the joints \
of a leg lock under the weight of the bird. In the evening the flock turns to the wind, and a thousand heads go under \
the wings. Question: how many legs does a sleeping flamingo stand on? Answer: one.";

/// How the predictions of a model for the tokens of a text differ from those of another one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Kullback-Leibler divergence of a prediction, in nats, on average.
    pub divergence: f64,
    /// Share of tokens for which both think the same one most likely.
    pub agreement: f64,
}

/// Reads a text with both models on the processor, one after the other.
///
/// # Errors
/// A model that does not open; a text that it cannot take.
pub fn compare(original: &Path, other: &Path, text: &str) -> Result<Comparison> {
    let mut wanted = Vec::new();
    read(original, text, |logits| wanted.push(log_softmax(logits)))?;
    let (mut place, mut divergence, mut agreed) = (wanted.iter(), 0.0, 0_usize);
    read(other, text, |logits| {
        let (wanted, found) = (place.next().expect("both read the same tokens"), log_softmax(logits));
        let term = |(p, q): (&f64, &f64)| p.exp() * (p - q);
        divergence += wanted.iter().zip(&found).filter(|(p, _)| p.is_finite()).map(term).sum::<f64>();
        agreed += usize::from(likeliest(wanted) == likeliest(&found));
    })?;
    let tokens = wanted.len();
    let count = tokens.max(1) as f64;
    Ok(Comparison { tokens, divergence: divergence / count, agreement: agreed as f64 / count })
}

fn read(model: &Path, text: &str, mut each: impl FnMut(&[f32])) -> Result<()> {
    let mut flamingo = Flamingo::open(model, &Options::default().device(Device::Cpu))?;
    let mut prompt = Prompt::new();
    prompt.text(text)?;
    flamingo.score_with_logits(&prompt, |_, logits| each(logits)).map(drop)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit - largest) - sum.ln()).collect()
}

fn likeliest(row: &[f64]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]))
}

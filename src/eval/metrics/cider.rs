//! CIDEr-D (Vedantam, Zitnick and Parikh 2015), as pycocoevalcap 1.2 computes it (`cider/cider_scorer.py`): n-grams of
//! 1 to 4 tokens weighed by how rare they are among the images' references, counts clipped at the reference's, and a
//! Gaussian penalty of 6 for another length.
//!
//! Captions come as tokens (see [`super::ptb`]). Sums are taken in the order of the n-grams, so a score is the same in
//! every run; it differs from the original's in the last bits, whose order is that of a Python dictionary.

use std::collections::HashMap;

use super::mean;
use crate::error::{Error, Result};

/// The longest n-gram.
const LONGEST: usize = 4;

/// The score of a caption that is its only reference word for word.
pub const BEST: f64 = 10.0;

/// Standard deviation of the penalty for another length.
const SIGMA: f64 = 6.0;

/// One image: the caption a model wrote and those that people wrote, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Example {
    /// Tokens of the caption to be judged.
    pub candidate: Vec<String>,
    /// Tokens of each reference; at least one.
    pub references: Vec<Vec<String>>,
}

impl Example {
    /// The tokens of a caption, and of what people wrote.
    pub fn new(candidate: Vec<String>, references: Vec<Vec<String>>) -> Self {
        Example { candidate, references }
    }
}

/// CIDEr-D of a corpus.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Cider {
    /// The mean over the images, 0 to 10.
    pub score: f64,
    /// The score of each image, in order; it depends on the other images' references, which say what is rare.
    pub examples: Vec<f64>,
}

/// Scores a corpus.
///
/// # Errors
/// With no example, or with one that has no reference.
pub fn cider(examples: &[Example]) -> Result<Cider> {
    if examples.is_empty() {
        return Err(Error::argument("CIDEr: expected at least 1 image, found 0"));
    }
    if let Some(number) = examples.iter().position(|example| example.references.is_empty()) {
        return Err(Error::argument(format!("CIDEr: image {number}: expected at least 1 reference, found 0")));
    }
    let mut words = Words::default();
    let counted: Vec<(Counts, Vec<Counts>)> = examples
        .iter()
        .map(|example| {
            let references = example.references.iter().map(|tokens| words.counts(tokens)).collect();
            (words.counts(&example.candidate), references)
        })
        .collect();
    let rarity = Rarity::new(counted.iter().map(|(_, references)| &references[..]));
    let scores: Vec<f64> = counted
        .iter()
        .map(|(candidate, references)| {
            let candidate = rarity.weigh(candidate);
            BEST * mean(references.iter().map(|reference| candidate.likeness(&rarity.weigh(reference))))
        })
        .collect();
    Ok(Cider { score: mean(scores.iter().copied()), examples: scores })
}

/// Up to four words by number; 0 where there is none.
type Gram = [u32; LONGEST];

/// How often each n-gram occurs, in the order of the n-grams.
type Counts = Vec<(Gram, u32)>;

/// Numbers from 1 for words.
#[derive(Default)]
struct Words<'a>(HashMap<&'a str, u32>);

impl<'a> Words<'a> {
    fn counts(&mut self, tokens: &'a [String]) -> Counts {
        let numbers: Vec<u32> = tokens
            .iter()
            .map(|token| {
                let next = self.0.len() as u32 + 1;
                *self.0.entry(token).or_insert(next)
            })
            .collect();
        let mut grams: Vec<Gram> = (1..=LONGEST)
            .flat_map(|length| numbers.windows(length))
            .map(|window| {
                let mut gram = Gram::default();
                gram[..window.len()].copy_from_slice(window);
                gram
            })
            .collect();
        grams.sort_unstable();
        grams.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32)).collect()
    }
}

/// How many words an n-gram has, less one.
fn order(gram: &Gram) -> usize {
    gram.iter().filter(|&&word| word != 0).count() - 1
}

/// How many images have an n-gram in their references.
struct Rarity {
    images: HashMap<Gram, u32>,
    log_all: f64,
}

impl Rarity {
    fn new<'a>(references: impl ExactSizeIterator<Item = &'a [Counts]>) -> Rarity {
        let log_all = (references.len() as f64).ln();
        let mut images = HashMap::new();
        for of_image in references {
            let mut grams: Vec<Gram> = of_image.iter().flatten().map(|&(gram, _)| gram).collect();
            grams.sort_unstable();
            grams.dedup();
            for gram in grams {
                *images.entry(gram).or_insert(0) += 1;
            }
        }
        Rarity { images, log_all }
    }

    fn weigh(&self, counts: &Counts) -> Weighed {
        let mut squares = [0.0; LONGEST];
        let mut bigrams = 0.0;
        let weights = counts
            .iter()
            .map(|&(gram, count)| {
                let images = self.images.get(&gram).copied().unwrap_or(1);
                let weight = f64::from(count) * (self.log_all - f64::from(images).ln());
                squares[order(&gram)] += weight * weight;
                bigrams += if order(&gram) == 1 { f64::from(count) } else { 0.0 };
                (gram, weight)
            })
            .collect();
        Weighed { weights, norms: squares.map(f64::sqrt), bigrams }
    }
}

/// A caption as a vector for each length of n-gram.
struct Weighed {
    weights: Vec<(Gram, f64)>,
    norms: [f64; LONGEST],
    /// What the original takes for the caption's length: its bigrams.
    bigrams: f64,
}

impl Weighed {
    /// The clipped cosine with a reference, the mean over the lengths of n-grams.
    fn likeness(&self, reference: &Weighed) -> f64 {
        let mut products = [0.0; LONGEST];
        for (gram, weight) in &self.weights {
            if let Ok(at) = reference.weights.binary_search_by_key(gram, |&(gram, _)| gram) {
                let other = reference.weights[at].1;
                products[order(gram)] += weight.min(other) * other;
            }
        }
        let difference = self.bigrams - reference.bigrams;
        let penalty = (-difference * difference / (2.0 * SIGMA * SIGMA)).exp();
        let norms = self.norms.iter().zip(&reference.norms).map(|(a, b)| a * b);
        let cosines =
            products.iter().zip(norms).map(|(product, norm)| if norm == 0.0 { *product } else { product / norm });
        penalty * mean(cosines)
    }
}

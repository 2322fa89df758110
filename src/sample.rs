//! From logits to a token: greedy, or drawn at random after the usual cuts. Also log-probabilities.
//!
//! The cuts are applied in the order of transformers' `generate`: repetition penalty, temperature, top-k, top-p, min-p.

use std::collections::BTreeSet;

use pulp::{Arch, NullaryFnOnce};

use crate::error::{Error, Result};
use crate::setters::setters;

/// Most tokens that may be suppressed: a device looks through them for each token it chooses.
pub(crate) const SUPPRESSED_MAX: usize = 256;

/// The least temperature that divides logits; with less, the most likely token is all that is left.
const TEMPERATURE_MIN: f32 = 1e-20;
/// The least top-p that is looked at: the most likely of 2^24 tokens has more.
const TOP_P_MIN: f32 = 1e-8;
/// The largest penalty; the least is one over it.
const PENALTY_MAX: f32 = 1e4;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// 0: always the most likely token. Else logits are divided by it. Below 1e-20 it counts as 0, whose answers it
    /// has.
    pub temperature: f32,
    /// Only the k most likely tokens; 0: all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1: all.
    pub top_p: f32,
    /// Only tokens at least this share as likely as the most likely one; 0: all.
    pub min_p: f32,
    /// Logits of tokens seen before are divided by it if positive, else multiplied; 1: off. It counts as one from 1e-4
    /// to 1e4, beyond which answers are the same.
    pub repetition_penalty: f32,
    /// Seed of the random choice. The draw for a token depends on the seed and its position alone.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

setters!(Sampling { temperature: f32, top_k: usize, top_p: f32, min_p: f32, repetition_penalty: f32, seed: u64 });

impl Sampling {
    /// Whether every number is usable.
    ///
    /// # Errors
    /// [`Error::Argument`] with the setting, what it may be and what it is.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str, found: f32| {
            Err(Error::argument(format!("{name}: expected {expected}, found {found}")))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("temperature", "a number of 0 or more", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top-p", "a number above 0 and at most 1", self.top_p);
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min-p", "a number from 0 to 1", self.min_p);
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong("repetition-penalty", "a number above 0", self.repetition_penalty);
        }
        Ok(())
    }

    /// The same without numbers at the edge of f32, which differ from device to device in what they make of logits:
    /// each has an answer that it tends to, and another number with this answer.
    pub(crate) fn settled(&self) -> Sampling {
        let mut settled = self.clone();
        settled.repetition_penalty = self.repetition_penalty.clamp(1.0 / PENALTY_MAX, PENALTY_MAX);
        // No token is likelier than the likeliest of a vocabulary, whose share is one of its tokens' at least.
        if self.temperature < TEMPERATURE_MIN || self.top_p < TOP_P_MIN {
            settled.temperature = 0.0;
        }
        settled
    }

    /// The next token after `logits`; `seen` are the tokens before it, `position` is its own.
    ///
    /// # Panics
    /// If a token that was seen has no logit.
    pub fn sample(&self, logits: &[f32], seen: &[u32], position: usize) -> u32 {
        let settled = self.settled();
        let likeliest = || argmax(&penalised(logits, seen, settled.repetition_penalty));
        if settled.temperature == 0.0 {
            return likeliest();
        }
        let candidates = settled.candidates(logits, seen);
        let mut rest = uniform(self.seed, position as u64);
        for &(token, probability) in &candidates {
            rest -= probability;
            if rest < 0.0 {
                return token;
            }
        }
        // Of logits that are too large to be divided, or are no numbers, nothing can be drawn.
        match candidates.last() {
            Some(&(token, probability)) if probability.is_finite() => token,
            _ => likeliest(),
        }
    }

    /// The tokens that survive all cuts with their probabilities, most likely first. Temperature must not be 0.
    pub fn candidates(&self, logits: &[f32], seen: &[u32]) -> Vec<(u32, f64)> {
        let logits = penalised(logits, seen, self.repetition_penalty);
        let scaled = logits.iter().map(|logit| logit / self.temperature);
        let mut order: Vec<(u32, f32)> = (0..).zip(scaled).filter(|(_, logit)| *logit > f32::NEG_INFINITY).collect();
        if self.top_k > 0 && self.top_k < order.len() {
            // Ties with the k-th stay, as in transformers.
            let mut logits: Vec<f32> = order.iter().map(|(_, logit)| *logit).collect();
            let last = *logits.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a)).1;
            order.retain(|(_, logit)| *logit >= last);
        }
        // Equal logits keep the order of their ids.
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        if self.top_p < 1.0 {
            let mut reached = 0.0;
            let mut kept = 0;
            for (_, probability) in probabilities(&order) {
                if kept > 0 && reached >= f64::from(self.top_p) {
                    break;
                }
                reached += probability;
                kept += 1;
            }
            order.truncate(kept);
        }
        let mut all = probabilities(&order);
        if self.min_p > 0.0 {
            let least = all.first().map_or(0.0, |first| first.1) * f64::from(self.min_p);
            let kept = all.iter().take_while(|(_, probability)| *probability >= least).count();
            order.truncate(kept);
            all = probabilities(&order);
        }
        all
    }
}

/// Logits with those of tokens seen before pushed towards less likely (Keskar et al. 2019).
fn penalised(logits: &[f32], seen: &[u32], penalty: f32) -> Vec<f32> {
    let mut logits = logits.to_vec();
    if penalty != 1.0 {
        let seen: BTreeSet<u32> = seen.iter().copied().collect();
        for token in seen {
            let logit = &mut logits[token as usize];
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
    logits
}

/// Logits, most likely first, to probabilities.
fn probabilities(order: &[(u32, f32)]) -> Vec<(u32, f64)> {
    let most = order.first().map_or(0.0, |first| f64::from(first.1));
    let raw: Vec<f64> = order.iter().map(|(_, logit)| (f64::from(*logit) - most).exp()).collect();
    let total: f64 = raw.iter().sum();
    order.iter().zip(raw).map(|((token, _), value)| (*token, value / total)).collect()
}

/// The first of the largest entries.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

/// ln Σ e^logit: what turns logits into log-probabilities.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    Arch::new().dispatch(LogSumExp(logits))
}

/// [`log_sum_exp`] in vectors: a vocabulary has tens of thousands of logits, and each row of a step needs it.
struct LogSumExp<'a>(&'a [f32]);

impl NullaryFnOnce for LogSumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        /// Sums side by side, whatever the machine has.
        const LANES: usize = 16;
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        let mut largest = [f32::NEG_INFINITY; LANES];
        for chunk in chunks {
            for (largest, &logit) in largest.iter_mut().zip(chunk) {
                *largest = largest.max(logit);
            }
        }
        let most = f64::from(largest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max));
        let mut sums = [0.0; LANES];
        for chunk in chunks {
            for (sum, &logit) in sums.iter_mut().zip(chunk) {
                *sum += exp(f64::from(logit) - most);
            }
        }
        for (sum, &logit) in sums.iter_mut().zip(rest) {
            *sum += exp(f64::from(logit) - most);
        }
        most + sums.iter().sum::<f64>().ln()
    }
}

/// e^x of a number not above 0, to the last places of f64, without branches; 0 below the smallest normal number.
#[inline(always)]
fn exp(x: f64) -> f64 {
    /// A number so large that its last bits count ones: adding it rounds, and leaves the exponent of 2^n in those bits.
    const ROUND: f64 = 1.5 * (1u64 << 52) as f64 + 1023.0;
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let clamped = x.clamp(-708.0, 0.0);
    let rounded = clamped.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, clamped));
    // Taylor's series: |r| <= ln 2 / 2, and what is left out is below 2e-16.
    let mut p = 1.0;
    let mut k = 12.0;
    while k > 0.0 {
        p = (p * r).mul_add(1.0 / k, 1.0);
        k -= 1.0;
    }
    if x < -708.0 { 0.0 } else { p * f64::from_bits(rounded.to_bits() << 52) }
}

/// Log-probability of one token, which must have a logit.
pub fn log_probability(logits: &[f32], token: u32) -> f64 {
    f64::from(logits[token as usize]) - log_sum_exp(logits)
}

/// A token that may come next.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Likely {
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
}

/// The `count` most likely tokens after a text of this `score`, a log-probability: in the order of what score and
/// log-probability add up to in f32, lower tokens first among equals. What is `suppressed`, ascending, is
/// minus infinitely likely.
pub fn most_likely(logits: &[f32], suppressed: &[u32], score: f32, count: usize) -> Vec<Likely> {
    most_likely_of(logits, log_sum_exp(logits), suppressed, score, count)
}

/// [`most_likely`] of logits whose log-sum-exp is known.
pub(crate) fn most_likely_of(logits: &[f32], total: f64, suppressed: &[u32], score: f32, count: usize) -> Vec<Likely> {
    let likely = |(token, &logit): (u32, &f32)| {
        let logprob = if suppressed.binary_search(&token).is_ok() {
            f32::NEG_INFINITY
        } else {
            (f64::from(logit) - total) as f32
        };
        (score + logprob, Likely { token, logprob })
    };
    let order = |a: &(f32, Likely), b: &(f32, Likely)| b.0.total_cmp(&a.0).then(a.1.token.cmp(&b.1.token));
    let mut all: Vec<(f32, Likely)> = (0..).zip(logits).map(likely).collect();
    if all.len() > count {
        all.select_nth_unstable_by(count, order);
        all.truncate(count);
    }
    all.sort_by(order);
    all.into_iter().map(|(_, likely)| likely).collect()
}

/// The `count` tokens of the largest logits, the largest first, lower tokens first among equals.
pub(crate) fn likeliest(logits: impl Iterator<Item = (u32, f32)>, count: usize) -> Vec<(u32, f32)> {
    let mut listed: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (token, logit) in logits {
        let before = |&(other, larger): &(u32, f32)| larger > logit || larger == logit && other < token;
        if listed.len() == count && listed.last().is_none_or(before) {
            continue;
        }
        listed.insert(listed.partition_point(before), (token, logit));
        listed.truncate(count);
    }
    listed
}

/// The tokens, ascending, that would end a run of `size` tokens that has been there before: what transformers'
/// `NoRepeatNGramLogitsProcessor` forbids after `ids`. With 1, every token that has been there.
///
/// # Panics
/// With a size of 0.
pub fn repeating(ids: &[u32], size: usize) -> Vec<u32> {
    let Some(kept) = ids.len().checked_sub(size - 1) else { return Vec::new() };
    let end = &ids[kept..];
    let runs = ids.windows(size).filter(|run| run[..size - 1] == *end);
    let found: BTreeSet<u32> = runs.map(|run| run[size - 1]).collect();
    found.into_iter().collect()
}

/// A number in [0, 1) that depends on seed and counter alone (SplitMix64's finaliser over both).
pub(crate) fn uniform(seed: u64, counter: u64) -> f64 {
    let mut z = seed.wrapping_add((counter + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let sampling = Sampling { temperature: 1.0, seed: 7, ..Sampling::default() };
        let logits = [0.7f32, 0.2, 0.1].map(f32::ln);
        let mut counts = [0; 3];
        for position in 0..20_000 {
            counts[sampling.sample(&logits, &[], position) as usize] += 1;
        }
        for (count, want) in counts.into_iter().zip([0.7, 0.2, 0.1]) {
            assert!((f64::from(count) / 20_000.0 - want).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn the_same_seed_and_position_draw_the_same_token() {
        let logits: Vec<f32> = (0..50).map(|i| (i * 37 % 11) as f32 * 0.3).collect();
        let sampling = Sampling { temperature: 0.8, top_k: 20, top_p: 0.9, seed: 3, ..Sampling::default() };
        assert_eq!(sampling.sample(&logits, &[], 5), sampling.sample(&logits, &[], 5));
        let other = Sampling { seed: 4, ..sampling.clone() };
        assert!(
            (0..50).any(|position| sampling.sample(&logits, &[], position) != other.sample(&logits, &[], position))
        );
    }

    #[test]
    fn sums_of_exponentials_are_those_of_the_library() {
        for count in [1, 7, 16, 50, 1000] {
            for spread in [0.0, 0.3, 20.0, 2000.0] {
                let logits: Vec<f32> = (0..count).map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * spread).collect();
                let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                let want = most + logits.iter().map(|&x| (f64::from(x) - most).exp()).sum::<f64>().ln();
                let found = log_sum_exp(&logits);
                assert!((found - want).abs() <= 1e-14 * want.abs().max(1.0), "{found} is not {want}");
            }
        }
        // What is never generated counts for nothing.
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY, 1.5, f32::NEG_INFINITY]), 1.5);
        assert!(log_sum_exp(&[1.5, f32::NAN]).is_nan());
        for x in (0..7080).map(|i| f64::from(i) * -0.1) {
            assert!((exp(x) - x.exp()).abs() <= 4e-16 * x.exp(), "exp({x})");
        }
    }

    #[test]
    fn settings_at_the_edge_of_f32_have_the_answers_that_they_tend_to() {
        let logits = [0.5f32, 2.0, -1.0, 1.5];
        let drawn = |sampling: &Sampling, seen: &[u32]| sampling.sample(&logits, seen, 3);
        for penalty in [1e-40, 1e-4, 1e-10] {
            for temperature in [0.0, 1.0, 1e-40] {
                let sampling = Sampling::default().repetition_penalty(penalty).temperature(temperature);
                assert_eq!(drawn(&sampling, &[0, 2]), 0, "what was seen and is likely is all there is");
            }
        }
        for penalty in [3e38, 1e4] {
            let sampling = Sampling::default().repetition_penalty(penalty);
            assert_eq!((drawn(&sampling, &[1]), drawn(&sampling, &[1, 3])), (3, 0));
        }
        // Divided by the temperature they are no numbers, on any device.
        let sampling = Sampling::default().temperature(1e-20);
        assert_eq!(sampling.sample(&[1e30, 2e30, f32::NEG_INFINITY], &[], 0), 1);
        assert_eq!(sampling.sample(&[f32::NEG_INFINITY; 2], &[], 0), 0);
        // At the highest temperature all are alike.
        let sampling = Sampling::default().temperature(f32::MAX);
        let found: BTreeSet<u32> = (0..200).map(|position| sampling.sample(&logits, &[], position)).collect();
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn log_probabilities_add_up() {
        let logits = [1.0f32, -2.0, 300.0, 299.0];
        let total: f64 = (0..4).map(|token| log_probability(&logits, token).exp()).sum();
        assert!((total - 1.0).abs() < 1e-12);
        assert_eq!(argmax(&logits), 2);
    }
}

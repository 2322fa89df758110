//! From logits to a token: greedy, or drawn at random after the usual cuts. Also log-probabilities.
//!
//! The cuts are applied in the order of transformers' `generate`: repetition penalty, temperature, top-k, top-p, min-p.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0: always the most likely token. Else logits are divided by it.
    pub temperature: f32,
    /// Only the k most likely tokens; 0: all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1: all.
    pub top_p: f32,
    /// Only tokens at least this share as likely as the most likely one; 0: all.
    pub min_p: f32,
    /// Logits of tokens seen before are divided by it if positive, else multiplied; 1: off.
    pub repetition_penalty: f32,
    /// Seed of the random choice. The draw for a token depends on the seed and its position alone.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

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

    /// The next token after `logits`; `seen` are the tokens before it, `position` is its own.
    ///
    /// # Panics
    /// If a token that was seen has no logit.
    pub fn choose(&self, logits: &[f32], seen: &[u32], position: usize) -> u32 {
        if self.temperature == 0.0 {
            return argmax(&penalised(logits, seen, self.repetition_penalty));
        }
        let candidates = self.candidates(logits, seen);
        let mut rest = uniform(self.seed, position as u64);
        for &(token, probability) in &candidates {
            rest -= probability;
            if rest < 0.0 {
                return token;
            }
        }
        // Settings at the edge of f32, or weights that are no numbers, may leave nothing to draw from.
        candidates.last().map_or_else(|| argmax(logits), |&(token, _)| token)
    }

    /// The tokens that survive all cuts with their probabilities, most likely first. Temperature must not be 0.
    pub fn candidates(&self, logits: &[f32], seen: &[u32]) -> Vec<(u32, f64)> {
        let logits = penalised(logits, seen, self.repetition_penalty);
        let scaled = logits.iter().map(|logit| logit / self.temperature);
        let mut order: Vec<(u32, f32)> = (0..).zip(scaled).filter(|(_, logit)| *logit > f32::NEG_INFINITY).collect();
        // Equal logits keep the order of their ids.
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        if self.top_k > 0 && !order.is_empty() {
            // Ties with the k-th stay, as in transformers.
            let last = order[self.top_k.min(order.len()) - 1].1;
            order.retain(|(_, logit)| *logit >= last);
        }
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
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum();
    most + total.ln()
}

/// Log-probability of one token, which must have a logit.
pub fn log_probability(logits: &[f32], token: u32) -> f64 {
    f64::from(logits[token as usize]) - log_sum_exp(logits)
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
            counts[sampling.choose(&logits, &[], position) as usize] += 1;
        }
        for (count, want) in counts.into_iter().zip([0.7, 0.2, 0.1]) {
            assert!((f64::from(count) / 20_000.0 - want).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn the_same_seed_and_position_draw_the_same_token() {
        let logits: Vec<f32> = (0..50).map(|i| (i * 37 % 11) as f32 * 0.3).collect();
        let sampling = Sampling { temperature: 0.8, top_k: 20, top_p: 0.9, seed: 3, ..Sampling::default() };
        assert_eq!(sampling.choose(&logits, &[], 5), sampling.choose(&logits, &[], 5));
        let other = Sampling { seed: 4, ..sampling.clone() };
        assert!(
            (0..50).any(|position| sampling.choose(&logits, &[], position) != other.choose(&logits, &[], position))
        );
    }

    #[test]
    fn log_probabilities_add_up() {
        let logits = [1.0f32, -2.0, 300.0, 299.0];
        let total: f64 = (0..4).map(|token| log_probability(&logits, token).exp()).sum();
        assert!((total - 1.0).abs() < 1e-12);
        assert_eq!(argmax(&logits), 2);
    }
}

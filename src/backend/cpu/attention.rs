//! softmax(q kᵀ scale + bias) v for a few queries of one head, over keys that lie anywhere.

use pulp::{Simd, WithSimd};

use super::simd::{dispatch, dots, exp};

/// `R` queries of one head that attend to the same keys. `key(j)` and `value(j)` are rows of the head's width.
pub(super) struct Attend<'a, 'o, const R: usize, K, V, B> {
    pub queries: [&'a [f32]; R],
    pub keys: usize,
    pub key: K,
    pub value: V,
    /// Added to the scaled score of key `j`.
    pub bias: B,
    pub scale: f32,
    pub scores: &'o mut Vec<f32>,
    pub out: [&'o mut [f32]; R],
}

impl<'a, const R: usize, K, V, B> Attend<'a, '_, R, K, V, B>
where
    K: Fn(usize) -> &'a [f32],
    V: Fn(usize) -> &'a [f32],
    B: Fn(usize) -> f32,
{
    /// Writes the output rows; without keys they are exact zeros.
    pub fn run(self) {
        dispatch(self);
    }

    /// Scaled and biased scores, (R, keys).
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S) {
        const TILE: usize = 4;
        let keys = self.keys;
        self.scores.clear();
        self.scores.resize(R * keys, 0.0);
        let whole = keys - keys % TILE;
        for first in (0..whole).step_by(TILE) {
            let mut tile: [&[f32]; TILE] = [&[]; TILE];
            for (c, row) in tile.iter_mut().enumerate() {
                *row = (self.key)(first + c);
            }
            let sums = dots(simd, self.queries, tile);
            for (r, sums) in sums.iter().enumerate() {
                for (c, &sum) in sums.iter().enumerate() {
                    self.scores[r * keys + first + c] = sum * self.scale + (self.bias)(first + c);
                }
            }
        }
        for j in whole..keys {
            let sums = dots(simd, self.queries, [(self.key)(j)]);
            for (r, sum) in sums.iter().enumerate() {
                self.scores[r * keys + j] = sum[0] * self.scale + (self.bias)(j);
            }
        }
    }
}

impl<'a, const R: usize, K, V, B> WithSimd for Attend<'a, '_, R, K, V, B>
where
    K: Fn(usize) -> &'a [f32],
    V: Fn(usize) -> &'a [f32],
    B: Fn(usize) -> f32,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.score(simd);
        let keys = self.keys;
        let mut totals = [0.0; R];
        for (scores, total) in self.scores.chunks_exact_mut(keys.max(1)).zip(&mut totals) {
            *total = exponentiate(scores);
        }
        let factors = totals.map(|total: f32| if keys == 0 { 0.0 } else { 1.0 / total });
        // One vector of output columns at a time, summed over the keys in order.
        let width = self.queries[0].len();
        let whole = width - width % S::F32_LANES;
        for (vector, from) in (0..whole).step_by(S::F32_LANES).enumerate() {
            let mut sums = [simd.splat_f32s(0.0); R];
            for j in 0..keys {
                let value = S::as_simd_f32s(&(self.value)(j)[..whole]).0[vector];
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = simd.mul_add_f32s(simd.splat_f32s(self.scores[r * keys + j]), value, *sum);
                }
            }
            for r in 0..R {
                let out = S::as_mut_simd_f32s(&mut self.out[r][from..from + S::F32_LANES]).0;
                out[0] = simd.mul_f32s(sums[r], simd.splat_f32s(factors[r]));
            }
        }
        for column in whole..width {
            for (r, factor) in factors.iter().enumerate() {
                let scores = &self.scores[r * keys..][..keys];
                let sum: f32 = scores.iter().enumerate().map(|(j, score)| score * (self.value)(j)[column]).sum();
                self.out[r][column] = sum * factor;
            }
        }
    }
}

/// Scores to e^(score - maximum); their sum.
#[inline(always)]
fn exponentiate(scores: &mut [f32]) -> f32 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = exp(*score - most);
    }
    super::simd::sum_by(scores, |score| score)
}

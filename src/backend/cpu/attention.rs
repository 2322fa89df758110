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

    /// Columns of the output from `vector` on, `W` vectors of them, of the first `whole` columns.
    #[inline(always)]
    fn sum<S: Simd, const W: usize>(&mut self, simd: S, vector: usize, whole: usize, factors: &[f32; R]) {
        let keys = self.keys;
        let mut sums = [[simd.splat_f32s(0.0); W]; R];
        for j in 0..keys {
            let values = &S::as_simd_f32s(&(self.value)(j)[..whole]).0[vector..vector + W];
            for (r, sums) in sums.iter_mut().enumerate() {
                let score = simd.splat_f32s(self.scores[r * keys + j]);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = simd.mul_add_f32s(score, *value, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut S::as_mut_simd_f32s(&mut self.out[r][..whole]).0[vector..vector + W];
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = simd.mul_f32s(*sum, simd.splat_f32s(factors[r]));
            }
        }
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

/// Vectors of output columns that are summed together.
const WIDE: usize = 4;

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
        // A few vectors of output columns at a time, summed over the keys in order.
        let width = self.queries[0].len();
        let whole = width - width % S::F32_LANES;
        let vectors = whole / S::F32_LANES;
        let wide = vectors - vectors % WIDE;
        for vector in (0..wide).step_by(WIDE) {
            self.sum::<S, WIDE>(simd, vector, whole, &factors);
        }
        for vector in wide..vectors {
            self.sum::<S, 1>(simd, vector, whole, &factors);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_meets_a_plain_softmax_at_ragged_sizes() {
        for (keys, width) in [(1, 4), (3, 16), (17, 20), (64, 80), (257, 64)] {
            let noise = |count: usize, seed: usize| -> Vec<f32> {
                (0..count).map(|i| ((i * 37 + seed * 101) % 53) as f32 / 26.0 - 1.0).collect()
            };
            let (query, key, value) = (noise(width, 1), noise(keys * width, 2), noise(keys * width, 3));
            let mut out = vec![f32::NAN; width];
            Attend {
                queries: [&query[..]],
                keys,
                key: |j| &key[j * width..][..width],
                value: |j| &value[j * width..][..width],
                bias: |j| -0.1 * j as f32,
                scale: 0.3,
                scores: &mut Vec::new(),
                out: [&mut out],
            }
            .run();
            let score = |j: usize| -> f64 {
                let dot: f64 = (0..width).map(|i| f64::from(query[i]) * f64::from(key[j * width + i])).sum();
                dot * 0.3 - 0.1 * j as f64
            };
            let total: f64 = (0..keys).map(|j| score(j).exp()).sum();
            let want: Vec<f32> = (0..width)
                .map(|i| {
                    ((0..keys).map(|j| score(j).exp() * f64::from(value[j * width + i])).sum::<f64>() / total) as f32
                })
                .collect();
            for (found, want) in out.iter().zip(want) {
                assert!((found - want).abs() < 1e-5, "{found} is not {want}");
            }
        }
    }

    #[test]
    fn attention_to_nothing_is_exactly_zero() {
        let mut out = [f32::NAN; 20];
        let none = |_: usize| -> &[f32] { unreachable!("there are no keys") };
        let (queries, scores) = ([&[1.0; 20][..]], &mut Vec::new());
        Attend { queries, keys: 0, key: none, value: none, bias: |_| 0.0, scale: 1.0, scores, out: [&mut out[..]] }
            .run();
        assert_eq!(out, [0.0; 20]);
    }
}

//! softmax(q kᵀ scale + bias) v for a few queries of one head of keys. Keys and values lie in strips; those that all
//! queries have in common come first and are read once for all. The sums of a query run over its own keys in order,
//! whatever stands beside it.

use pulp::{Simd, WithSimd};

use super::simd::{dispatch, dots, exp};

/// Most queries of one pass over keys.
pub(super) const QUERIES_MAX: usize = 8;

/// Rows of memory at even distances.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    /// From the first row on.
    pub values: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(self, index: usize, width: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..width]
    }
}

/// Consecutive keys of one head, and their values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip<'a> {
    pub keys: Rows<'a>,
    pub values: Rows<'a>,
    /// How many there are.
    pub count: usize,
}

/// `R` queries of one head of keys.
pub(super) struct Attend<'a, 'o, const R: usize> {
    pub queries: [&'a [f32]; R],
    /// Keys of each query, shared and own.
    pub lengths: [usize; R],
    /// The keys that all queries begin with.
    pub shared: &'o [Strip<'a>],
    /// The keys of each query after those.
    pub own: [&'o [Strip<'a>]; R],
    pub scale: f32,
    /// What a score of each query loses for each key from its own to the query's last.
    pub slopes: [f32; R],
    pub scores: &'o mut Vec<f32>,
    pub out: [&'o mut [f32]; R],
}

impl<'a, const R: usize> Attend<'a, '_, R> {
    /// Writes the output rows; without keys they are exact zeros.
    pub fn run(self) {
        let shared = count(self.shared);
        assert!(self.lengths.iter().zip(self.own).all(|(&length, own)| length == shared + count(own)));
        dispatch(self);
    }

    /// Scores of a query stand this far from those of the next.
    #[inline(always)]
    fn pitch(&self) -> usize {
        let mut longest = 0;
        for length in self.lengths {
            longest = length.max(longest);
        }
        longest
    }

    /// Scores of `N` queries from `first` on with strips that begin with key `at`, `C` keys at a time.
    #[inline(always)]
    fn score<S: Simd, const N: usize, const C: usize>(
        &mut self,
        simd: S,
        first: usize,
        strips: &[Strip<'a>],
        mut at: usize,
    ) {
        let width = self.queries[0].len();
        let mut queries: [&[f32]; N] = [&[]; N];
        queries.copy_from_slice(&self.queries[first..first + N]);
        for strip in strips {
            let tiled = strip.count - strip.count % C;
            for j in (0..tiled).step_by(C) {
                let mut keys: [&[f32]; C] = [&[]; C];
                for (c, key) in keys.iter_mut().enumerate() {
                    *key = strip.keys.row(j + c, width);
                }
                self.put(first, at + j, &dots(simd, queries, keys));
            }
            for j in tiled..strip.count {
                self.put(first, at + j, &dots(simd, queries, [strip.keys.row(j, width)]));
            }
            at += strip.count;
        }
    }

    /// Scales products of `N` queries from `first` on with `C` keys from `at` on, and adds the bias.
    #[inline(always)]
    fn put<const N: usize, const C: usize>(&mut self, first: usize, at: usize, products: &[[f32; C]; N]) {
        let pitch = self.pitch();
        for (query, products) in (first..).zip(products) {
            let scores = &mut self.scores[query * pitch + at..][..C];
            for (c, product) in products.iter().enumerate() {
                let distance = self.lengths[query] - 1 - (at + c);
                scores[c] = product * self.scale - self.slopes[query] * distance as f32;
            }
        }
    }

    /// Columns of the output from `vector` on, `W` vectors of them, of the first `whole` columns.
    #[inline(always)]
    fn sum<S: Simd, const W: usize>(&mut self, simd: S, vector: usize, whole: usize, factors: &[f32; R]) {
        let pitch = self.pitch();
        let columns = Columns::<W> { vector, whole };
        let mut sums = [[simd.splat_f32s(0.0); W]; R];
        let mut scores: [&[f32]; R] = [&[]; R];
        for (r, scores) in scores.iter_mut().enumerate() {
            *scores = &self.scores[r * pitch..][..self.lengths[r]];
        }
        columns.add(simd, self.shared, &mut scores, &mut sums);
        for r in 0..R {
            let (scores, sums) = (std::array::from_mut(&mut scores[r]), std::array::from_mut(&mut sums[r]));
            columns.add(simd, self.own[r], scores, sums);
        }
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut S::as_mut_simd_f32s(&mut self.out[r][..whole]).0[vector..vector + W];
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = simd.mul_f32s(*sum, simd.splat_f32s(factors[r]));
            }
        }
    }
}

/// `W` vectors of columns from `vector` on, of the first `whole` columns.
#[derive(Clone, Copy)]
struct Columns<const W: usize> {
    vector: usize,
    whole: usize,
}

impl<const W: usize> Columns<W> {
    /// Adds values times the scores of `N` queries, which are those of the strips' keys and go on after them.
    #[inline(always)]
    fn add<S: Simd, const N: usize>(
        self,
        simd: S,
        strips: &[Strip],
        scores: &mut [&[f32]; N],
        sums: &mut [[S::f32s; W]; N],
    ) {
        for strip in strips {
            let mut of_strip: [&[f32]; N] = [&[]; N];
            for (of_strip, scores) in of_strip.iter_mut().zip(scores.iter_mut()) {
                (*of_strip, *scores) = scores.split_at(strip.count);
            }
            for j in 0..strip.count {
                let values = strip.values.row(j, self.whole);
                let values = &S::as_simd_f32s(values).0[self.vector..self.vector + W];
                for (scores, sums) in of_strip.iter().zip(sums.iter_mut()) {
                    let score = simd.splat_f32s(scores[j]);
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = simd.mul_add_f32s(score, *value, *sum);
                    }
                }
            }
        }
    }
}

/// Keys in strips.
fn count(strips: &[Strip]) -> usize {
    strips.iter().map(|strip| strip.count).sum()
}

impl<'a, const R: usize> WithSimd for Attend<'a, '_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let pitch = self.pitch();
        self.scores.resize(R * pitch, 0.0);
        let shared = count(self.shared);
        // As many keys at a time, and as many vectors of columns, as the registers hold sums for.
        let registers = S::REGISTER_COUNT * 3 / 4;
        if R * 4 <= registers {
            self.score::<S, R, 4>(simd, 0, self.shared, 0);
        } else {
            self.score::<S, R, 2>(simd, 0, self.shared, 0);
        }
        for r in 0..R {
            self.score::<S, 1, 4>(simd, r, self.own[r], shared);
        }
        let mut factors = [0.0; R];
        for (r, factor) in factors.iter_mut().enumerate() {
            if self.lengths[r] > 0 {
                *factor = 1.0 / exponentiate(&mut self.scores[r * pitch..][..self.lengths[r]]);
            }
        }
        let width = self.queries[0].len();
        let whole = width - width % S::F32_LANES;
        let vectors = whole / S::F32_LANES;
        let mut vector = 0;
        while vector < vectors {
            if vector + 4 <= vectors && R * 4 <= registers {
                self.sum::<S, 4>(simd, vector, whole, &factors);
                vector += 4;
            } else if vector + 2 <= vectors {
                self.sum::<S, 2>(simd, vector, whole, &factors);
                vector += 2;
            } else {
                self.sum::<S, 1>(simd, vector, whole, &factors);
                vector += 1;
            }
        }
        for column in whole..width {
            for (r, factor) in factors.iter().enumerate() {
                let strips = self.shared.iter().chain(self.own[r]);
                let values = strips.flat_map(|strip| (0..strip.count).map(|j| strip.values.row(j, width)[column]));
                let scores = &self.scores[r * pitch..][..self.lengths[r]];
                let sum: f32 = scores.iter().zip(values).map(|(score, value)| score * value).sum();
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

    fn noise(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 101) % 53) as f32 / 26.0 - 1.0).collect()
    }

    fn strip<'a>(key: &'a [f32], value: &'a [f32], width: usize) -> Strip<'a> {
        let rows = |values| Rows { values, stride: width };
        Strip { keys: rows(key), values: rows(value), count: key.len() / width }
    }

    #[test]
    fn attention_meets_a_plain_softmax_at_ragged_sizes() {
        for (keys, width) in [(1, 4), (3, 16), (17, 20), (64, 80), (257, 64)] {
            let (query, key, value) = (noise(width, 1), noise(keys * width, 2), noise(keys * width, 3));
            let mut out = vec![f32::NAN; width];
            Attend {
                queries: [&query[..]],
                lengths: [keys],
                shared: &[],
                own: [&[strip(&key, &value, width)]],
                scale: 0.3,
                slopes: [0.1],
                scores: &mut Vec::new(),
                out: [&mut out],
            }
            .run();
            let score = |j: usize| -> f64 {
                let dot: f64 = (0..width).map(|i| f64::from(query[i]) * f64::from(key[j * width + i])).sum();
                dot * 0.3 - 0.1 * (keys - 1 - j) as f64
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

    /// However its keys are cut into strips and whoever shares them.
    #[test]
    fn a_query_has_the_same_bits_beside_others() {
        const QUERIES: usize = 5;
        for (keys, width) in [(1, 4), (19, 20), (70, 80), (130, 64)] {
            let (query, key, value) = (noise(QUERIES * width, 1), noise(keys * width, 2), noise(keys * width, 3));
            let cut =
                |from: usize, to: usize| strip(&key[from * width..to * width], &value[from * width..to * width], width);
            let query = |r: usize| &query[r * width..][..width];
            for shared in [0, keys / 3, keys / 2] {
                let lengths: [usize; QUERIES] = std::array::from_fn(|r| (shared + r * keys / 7).min(keys));
                let common = [cut(0, shared / 2), cut(shared / 2, shared)];
                let own = lengths.map(|length| [cut(shared, length)]);
                let mut together = vec![f32::NAN; QUERIES * width];
                let mut out = together.chunks_exact_mut(width);
                let (scale, slope, scores) = (0.3, 0.07, &mut Vec::new());
                Attend {
                    queries: std::array::from_fn(query),
                    lengths,
                    shared: &common,
                    own: std::array::from_fn(|r| &own[r][..]),
                    scale,
                    slopes: [slope; QUERIES],
                    scores,
                    out: std::array::from_fn(|_| out.next().unwrap()),
                }
                .run();
                for (r, (together, length)) in together.chunks_exact(width).zip(lengths).enumerate() {
                    let mut alone = vec![f32::NAN; width];
                    let (queries, own, out) = ([query(r)], [&[cut(0, length)][..]], [&mut alone[..]]);
                    Attend { queries, lengths: [length], shared: &[], own, scale, slopes: [slope], scores, out }.run();
                    assert_eq!(together, alone, "{shared} of {length} keys of width {width}");
                }
            }
        }
    }

    #[test]
    fn attention_to_nothing_is_exactly_zero() {
        let mut out = [f32::NAN; 20];
        let (queries, own, scores) = ([&[1.0; 20][..]], [&[][..]], &mut Vec::new());
        let out_row = [&mut out[..]];
        Attend { queries, lengths: [0], shared: &[], own, scale: 1.0, slopes: [0.0], scores, out: out_row }.run();
        assert_eq!(out, [0.0; 20]);
    }
}

//! softmax(q kᵀ scale + bias) v for a few queries of one head of keys. Keys and values lie in strips; those that all
//! queries have in common come first and are read once for all. The sums of a query run over its own keys in order,
//! whatever stands beside it. Keys and values in 8 bits are widened strip by strip where they are used, to the numbers
//! that they stand for.

use std::ops::Range;

use half::bf16;
use pulp::{Simd, WithSimd};

use super::simd::{dispatch, dots, exp};
use crate::kv::widen;

/// Most queries of one pass over keys.
pub(super) const QUERIES_MAX: usize = 8;

/// Rows of memory at even distances.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Numbers, from the first row on; from one row to the next.
    Plain { values: &'a [f32], stride: usize },
    /// Codes ([`crate::kv::quantise`]), row after row, and the scale of each.
    Int8 { codes: &'a [i8], scales: &'a [bf16] },
}

impl<'a> Rows<'a> {
    /// Some columns of the first `count` of these rows of `width`: where they lie, or widened in `widened`.
    #[inline(always)]
    fn columns<'s>(self, count: usize, width: usize, columns: Range<usize>, widened: &'s mut Vec<f32>) -> Columns<'s>
    where
        'a: 's,
    {
        match self {
            // No rows may have no columns either.
            Rows::Plain { values, stride } => Columns { values: values.get(columns.start..).unwrap_or(&[]), stride },
            Rows::Int8 { codes, scales } => {
                let stride = columns.len();
                if widened.len() < count * stride {
                    widened.resize(count * stride, 0.0);
                }
                for j in 0..count {
                    let codes = &codes[j * width..][..width][columns.clone()];
                    widen(codes, scales[j], &mut widened[j * stride..][..stride]);
                }
                Columns { values: widened, stride }
            }
        }
    }

    /// One number.
    fn number(self, index: usize, width: usize, column: usize) -> f32 {
        match self {
            Rows::Plain { values, stride } => values[index * stride + column],
            Rows::Int8 { codes, scales } => f32::from(codes[index * width + column]) * scales[index].to_f32(),
        }
    }
}

/// Columns of rows, as numbers.
#[derive(Clone, Copy)]
struct Columns<'a> {
    values: &'a [f32],
    stride: usize,
}

impl<'a> Columns<'a> {
    #[inline(always)]
    fn row(self, index: usize, width: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..width]
    }
}

/// Memory that passes use one after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    scores: Vec<f32>,
    /// Of a strip in 8 bits what is being used.
    widened: Vec<f32>,
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
    pub scratch: &'o mut Scratch,
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
        widened: &mut Vec<f32>,
    ) {
        let width = self.queries[0].len();
        let mut queries: [&[f32]; N] = [&[]; N];
        queries.copy_from_slice(&self.queries[first..first + N]);
        for strip in strips {
            let rows = strip.keys.columns(strip.count, width, 0..width, widened);
            let tiled = strip.count - strip.count % C;
            for j in (0..tiled).step_by(C) {
                let mut keys: [&[f32]; C] = [&[]; C];
                for (c, key) in keys.iter_mut().enumerate() {
                    *key = rows.row(j + c, width);
                }
                self.put(first, at + j, &dots(simd, queries, keys));
            }
            for j in tiled..strip.count {
                self.put(first, at + j, &dots(simd, queries, [rows.row(j, width)]));
            }
            at += strip.count;
        }
    }

    /// Scales products of `N` queries from `first` on with `C` keys from `at` on, and adds the bias.
    #[inline(always)]
    fn put<const N: usize, const C: usize>(&mut self, first: usize, at: usize, products: &[[f32; C]; N]) {
        let pitch = self.pitch();
        for (query, products) in (first..).zip(products) {
            let scores = &mut self.scratch.scores[query * pitch + at..][..C];
            for (c, product) in products.iter().enumerate() {
                let distance = self.lengths[query] - 1 - (at + c);
                scores[c] = product * self.scale - self.slopes[query] * distance as f32;
            }
        }
    }

    /// Columns of the output from `vector` on, `W` vectors of them, of the first `whole` columns.
    #[inline(always)]
    fn sum<S: Simd, const W: usize>(
        &mut self,
        simd: S,
        vector: usize,
        whole: usize,
        factors: &[f32; R],
        widened: &mut Vec<f32>,
    ) {
        let pitch = self.pitch();
        let columns = Vectors::<W> { vector, width: self.queries[0].len() };
        let mut sums = [[simd.splat_f32s(0.0); W]; R];
        let mut scores: [&[f32]; R] = [&[]; R];
        for (r, scores) in scores.iter_mut().enumerate() {
            *scores = &self.scratch.scores[r * pitch..][..self.lengths[r]];
        }
        columns.add(simd, self.shared, &mut scores, &mut sums, widened);
        for r in 0..R {
            let (scores, sums) = (std::array::from_mut(&mut scores[r]), std::array::from_mut(&mut sums[r]));
            columns.add(simd, self.own[r], scores, sums, widened);
        }
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut S::as_mut_simd_f32s(&mut self.out[r][..whole]).0[vector..vector + W];
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = simd.mul_f32s(*sum, simd.splat_f32s(factors[r]));
            }
        }
    }
}

/// `W` vectors of columns from `vector` on, of rows so wide.
#[derive(Clone, Copy)]
struct Vectors<const W: usize> {
    vector: usize,
    width: usize,
}

impl<const W: usize> Vectors<W> {
    /// Adds values times the scores of `N` queries, which are those of the strips' keys and go on after them.
    #[inline(always)]
    fn add<S: Simd, const N: usize>(
        self,
        simd: S,
        strips: &[Strip],
        scores: &mut [&[f32]; N],
        sums: &mut [[S::f32s; W]; N],
        widened: &mut Vec<f32>,
    ) {
        let first = self.vector * S::F32_LANES;
        for strip in strips {
            let rows = strip.values.columns(strip.count, self.width, first..first + W * S::F32_LANES, widened);
            let mut of_strip: [&[f32]; N] = [&[]; N];
            for (of_strip, scores) in of_strip.iter_mut().zip(scores.iter_mut()) {
                (*of_strip, *scores) = scores.split_at(strip.count);
            }
            for j in 0..strip.count {
                let values = &S::as_simd_f32s(rows.row(j, W * S::F32_LANES)).0[..W];
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
        self.scratch.scores.resize(R * pitch, 0.0);
        let mut widened = std::mem::take(&mut self.scratch.widened);
        let shared = count(self.shared);
        // As many keys at a time, and as many vectors of columns, as the registers hold sums for.
        let registers = S::REGISTER_COUNT * 3 / 4;
        if R * 4 <= registers {
            self.score::<S, R, 4>(simd, 0, self.shared, 0, &mut widened);
        } else {
            self.score::<S, R, 2>(simd, 0, self.shared, 0, &mut widened);
        }
        for r in 0..R {
            self.score::<S, 1, 4>(simd, r, self.own[r], shared, &mut widened);
        }
        let mut factors = [0.0; R];
        for (r, factor) in factors.iter_mut().enumerate() {
            if self.lengths[r] > 0 {
                *factor = 1.0 / exponentiate(&mut self.scratch.scores[r * pitch..][..self.lengths[r]]);
            }
        }
        let width = self.queries[0].len();
        let whole = width - width % S::F32_LANES;
        let vectors = whole / S::F32_LANES;
        let mut vector = 0;
        while vector < vectors {
            if vector + 4 <= vectors && R * 4 <= registers {
                self.sum::<S, 4>(simd, vector, whole, &factors, &mut widened);
                vector += 4;
            } else if vector + 2 <= vectors {
                self.sum::<S, 2>(simd, vector, whole, &factors, &mut widened);
                vector += 2;
            } else {
                self.sum::<S, 1>(simd, vector, whole, &factors, &mut widened);
                vector += 1;
            }
        }
        for column in whole..width {
            for (r, factor) in factors.iter().enumerate() {
                let strips = self.shared.iter().chain(self.own[r]);
                let number = |strip: &Strip, j| strip.values.number(j, width, column);
                let values = strips.flat_map(|strip| (0..strip.count).map(|j| number(strip, j)));
                let scores = &self.scratch.scores[r * pitch..][..self.lengths[r]];
                let sum: f32 = scores.iter().zip(values).map(|(score, value)| score * value).sum();
                self.out[r][column] = sum * factor;
            }
        }
        self.scratch.widened = widened;
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
    use crate::kv::quantise;

    fn noise(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 101) % 53) as f32 / 26.0 - 1.0).collect()
    }

    fn strip<'a>(key: &'a [f32], value: &'a [f32], width: usize) -> Strip<'a> {
        let rows = |values| Rows::Plain { values, stride: width };
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
                scratch: &mut Scratch::default(),
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
                let (scale, slope, scratch) = (0.3, 0.07, &mut Scratch::default());
                Attend {
                    queries: std::array::from_fn(query),
                    lengths,
                    shared: &common,
                    own: std::array::from_fn(|r| &own[r][..]),
                    scale,
                    slopes: [slope; QUERIES],
                    scratch,
                    out: std::array::from_fn(|_| out.next().unwrap()),
                }
                .run();
                for (r, (together, length)) in together.chunks_exact(width).zip(lengths).enumerate() {
                    let mut alone = vec![f32::NAN; width];
                    let (queries, own, out) = ([query(r)], [&[cut(0, length)][..]], [&mut alone[..]]);
                    Attend { queries, lengths: [length], shared: &[], own, scale, slopes: [slope], scratch, out }.run();
                    assert_eq!(together, alone, "{shared} of {length} keys of width {width}");
                }
            }
        }
    }

    /// Rows in 8 bits, and the numbers that they stand for.
    struct Coded {
        width: usize,
        codes: Vec<i8>,
        scales: Vec<bf16>,
        numbers: Vec<f32>,
    }

    impl Coded {
        fn new(numbers: &[f32], width: usize) -> Coded {
            let mut coded =
                Coded { width, codes: vec![0; numbers.len()], scales: Vec::new(), numbers: numbers.to_vec() };
            let rows = coded.numbers.chunks_exact_mut(width).zip(coded.codes.chunks_exact_mut(width));
            for (numbers, codes) in rows {
                let scale = quantise(numbers, codes);
                widen(codes, scale, numbers);
                coded.scales.push(scale);
            }
            coded
        }

        fn rows(&self, rows: Range<usize>, plain: bool) -> Rows<'_> {
            let numbers = rows.start * self.width..rows.end * self.width;
            match plain {
                true => Rows::Plain { values: &self.numbers[numbers], stride: self.width },
                false => Rows::Int8 { codes: &self.codes[numbers], scales: &self.scales[rows] },
            }
        }
    }

    /// Keys and values in 8 bits give what the numbers give that they stand for.
    #[test]
    fn codes_are_the_numbers_that_they_stand_for() {
        const QUERIES: usize = 3;
        for (keys, width) in [(1, 4), (19, 20), (70, 80), (130, 64)] {
            let query = noise(QUERIES * width, 1);
            let [key, value] = [2, 3].map(|seed| Coded::new(&noise(keys * width, seed), width));
            let attend = |plain: bool| {
                let cut = |range: Range<usize>| Strip {
                    count: range.len(),
                    keys: key.rows(range.clone(), plain),
                    values: value.rows(range, plain),
                };
                let (shared, own) = ([cut(0..keys / 3)], [cut(keys / 3..keys)]);
                let mut found = vec![f32::NAN; QUERIES * width];
                let mut out = found.chunks_exact_mut(width);
                Attend {
                    queries: std::array::from_fn::<_, QUERIES, _>(|r| &query[r * width..][..width]),
                    lengths: [keys; QUERIES],
                    shared: &shared,
                    own: [&own; QUERIES],
                    scale: 0.3,
                    slopes: [0.1; QUERIES],
                    scratch: &mut Scratch::default(),
                    out: std::array::from_fn(|_| out.next().unwrap()),
                }
                .run();
                found
            };
            assert_eq!(attend(false), attend(true), "{keys} keys of width {width}");
        }
    }

    #[test]
    fn attention_to_nothing_is_exactly_zero() {
        let mut out = [f32::NAN; 20];
        let (queries, own, scratch) = ([&[1.0; 20][..]], [&[][..]], &mut Scratch::default());
        let out_row = [&mut out[..]];
        Attend { queries, lengths: [0], shared: &[], own, scale: 1.0, slopes: [0.0], scratch, out: out_row }.run();
        assert_eq!(out, [0.0; 20]);
    }
}

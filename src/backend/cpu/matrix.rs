//! The matrix product x Wᵀ. Both operands have their common dimension contiguous, so a tile of dot products needs no
//! packing: weights are read where they lie, each once for a block of rows, and 16-bit ones are widened on the way.

use std::cell::RefCell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{dispatch, vectorised};
use crate::checkpoint::Dtype;

/// Weight rows of a tile of dot products.
const TILE: usize = 4;
/// Products with fewer multiply-adds stay on one thread: waking another costs more.
const PARALLEL_MIN: usize = 1 << 17;
/// Most weight rows of one task, so that there are tasks for all threads.
const BLOCK_ROWS_MAX: usize = 128;
/// Words of the weight rows that one task works through; half of a usual second-level cache.
const BLOCK_WORDS: usize = 1 << 17;

/// Values as they lie in a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    /// Ready to be used where they are.
    F32(&'a [f32]),
    /// bf16 in pairs: the value of an even column in the lower half of a word, of the odd one after it in the upper.
    Pairs(&'a [u32]),
    /// Little-endian numbers at any alignment, widened on the way.
    Bytes(Dtype, &'a [u8]),
}

impl<'a> Values<'a> {
    /// The values of `range`, in place where they are f32, else widened into `scratch`.
    fn widen<'b>(self, range: std::ops::Range<usize>, scratch: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Values::F32(values) => return &values[range],
            Values::Pairs(words) => {
                return Values::Bytes(Dtype::Bf16, bytemuck::cast_slice(words)).widen(range, scratch);
            }
            Values::Bytes(dtype, bytes) => {
                let bytes = &bytes[range.start * dtype.size()..range.end * dtype.size()];
                match dtype {
                    Dtype::F32 => widen(bytes, scratch, f32::from_le_bytes),
                    Dtype::F16 => widen(bytes, scratch, |bytes| f16_to_f32(u16::from_le_bytes(bytes))),
                    Dtype::Bf16 => {
                        widen(bytes, scratch, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
                    }
                }
            }
        }
        scratch
    }
}

fn widen<const N: usize>(bytes: &[u8], out: &mut [f32], each: impl Fn([u8; N]) -> f32) {
    vectorised(
        #[inline(always)]
        || {
            let (numbers, _) = bytes.as_chunks();
            out.iter_mut().zip(numbers).for_each(|(out, bytes)| *out = each(*bytes));
        },
    );
}

/// f16 to f32 in arithmetic that vectorises: the exponent is rebased by a multiplication, which also makes subnormal
/// numbers right; infinities and NaN keep their meaning.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    const REBASE: f32 = f32::from_bits((254 - 15) << 23);
    let bits = u32::from(bits);
    let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    let finite = (f32::from_bits(rest) * REBASE).to_bits();
    let magnitude = if rest >= 0x0f80_0000 { rest | 0x7f80_0000 } else { finite };
    f32::from_bits(sign | magnitude)
}

/// A matrix of weights: stacked parts, each (rows, columns), row-major.
#[derive(Debug, Clone)]
pub(super) struct Matrix<'a> {
    pub parts: Vec<(usize, Values<'a>)>,
    pub columns: usize,
}

impl<'a> Matrix<'a> {
    /// One row as f32.
    pub fn row<'b>(&self, mut row: usize, scratch: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        scratch.resize(self.columns, 0.0);
        for &(rows, values) in &self.parts {
            if row < rows {
                return values.widen(row * self.columns..(row + 1) * self.columns, scratch);
            }
            row -= rows;
        }
        panic!("row {row} past the end of a weight");
    }

    /// The words of rows `from..to`, part by part: `each(row, words)` gets the first row's number and whole rows. With
    /// `pairs` they are as they lie, else values are widened to one f32 a word.
    fn rows(&self, from: usize, to: usize, pairs: bool, scratch: &mut Vec<f32>, mut each: impl FnMut(usize, &[u32])) {
        let mut start = 0;
        for &(rows, values) in &self.parts {
            let (first, last) = (from.max(start), to.min(start + rows));
            if first < last {
                let range = (first - start) * self.columns..(last - start) * self.columns;
                match values {
                    Values::Pairs(words) if pairs => each(first, &words[range.start / 2..range.end / 2]),
                    _ => {
                        scratch.resize(range.len(), 0.0);
                        each(first, bytemuck::cast_slice(values.widen(range, scratch)));
                    }
                }
            }
            start += rows;
        }
    }
}

/// From so many rows of `x` on, taking pairs apart once costs less than doing so for each tile.
const MANY_ROWS: usize = 8;

/// The product of `x` (rows, columns) with the first `width` rows of `weight`, transposed: (width, rows).
/// `panels` is memory for a copy of `x`, kept between calls.
pub(super) fn product(x: &[&[f32]], weight: &Matrix, width: usize, panels: &mut Vec<f32>, out: &mut [f32]) {
    let (rows, columns) = (x.len(), weight.columns);
    assert_eq!(out.len(), width * rows);
    let parallel = rows * columns * width >= PARALLEL_MIN;
    let pairs = weight.parts.iter().all(|(_, values)| matches!(values, Values::Pairs(_)));
    dispatch(Pack { x, columns, pairs, parallel, panels });
    let words = if pairs { columns / 2 } else { columns };
    let block = (BLOCK_WORDS / words).clamp(TILE, BLOCK_ROWS_MAX).next_multiple_of(TILE);
    let panels = &*panels;
    let task = |(index, out): (usize, &mut [f32])| {
        let from = index * block;
        WIDENED.with_borrow_mut(|[widened, unpaired]| {
            weight.rows(from, from + out.len() / rows, pairs, widened, |first, w| {
                let out = &mut out[(first - from) * rows..][..w.len() / words * rows];
                if pairs && rows >= MANY_ROWS {
                    let w: &[u32] = bytemuck::cast_slice(dispatch(Unpair { pairs: w, words, out: &mut *unpaired }));
                    let words = w.len() * rows / out.len();
                    dispatch(Block { panels, w, words, pairs: false, rows, out });
                } else {
                    dispatch(Block { panels, w, words, pairs, rows, out });
                }
            });
        });
    };
    if parallel {
        out.par_chunks_mut(block * rows).enumerate().for_each(task);
    } else {
        out.chunks_mut(block * rows).enumerate().for_each(task);
    }
}

/// The dot products of `x` with each row of `w`, which has as many columns: (rows of w, rows of x). `panels` is memory
/// kept between calls.
#[cfg(feature = "eval")]
pub(crate) fn dot_products(x: &[&[f32]], w: &[f32], panels: &mut Vec<f32>, out: &mut [f32]) {
    let columns = x[0].len();
    let rows = w.len() / columns;
    let matrix = Matrix { parts: vec![(rows, Values::F32(w))], columns };
    product(x, &matrix, rows, panels, out);
}

thread_local! {
    /// A worker's memory for a block of weights that are widened, and for one of pairs taken apart: kept, since memory
    /// as large as this is given back when it is freed, and costs more to get anew than to fill.
    static WIDENED: RefCell<[Vec<f32>; 2]> = const { RefCell::new([const { Vec::new() }; 2]) };
}

/// Rows of a panel: as many as the registers hold sums for, beside one vector of each weight row of a tile.
const fn panel_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 6 } else { 2 }
}

/// Cuts `x` into panels of rows, vector by vector interleaved, so that a tile reads one stream; the last panel has the
/// rows that are left. For pairs, a vector of even columns comes before one of odd columns. Columns are filled up with
/// zeros.
struct Pack<'a> {
    x: &'a [&'a [f32]],
    columns: usize,
    pairs: bool,
    parallel: bool,
    panels: &'a mut Vec<f32>,
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Pack { x, columns, pairs, parallel, panels } = self;
        let lanes = S::F32_LANES;
        let group = if pairs { 2 * lanes } else { lanes };
        let padded = columns.next_multiple_of(group);
        panels.resize(x.len() * padded, 0.0);
        let parts = group / lanes;
        let fill = |rows: &[&[f32]], panel: &mut [f32]| {
            for (r, row) in rows.iter().enumerate() {
                for (k, from) in row.chunks(group).enumerate() {
                    for part in 0..parts {
                        let vector = (k * parts + part) * rows.len() + r;
                        let to = &mut panel[vector * lanes..][..lanes];
                        if from.len() < group {
                            to.fill(0.0);
                        }
                        to.iter_mut()
                            .zip(from[part.min(from.len())..].iter().step_by(parts))
                            .for_each(|(to, x)| *to = *x);
                    }
                }
            }
        };
        let size = panel_rows::<S>();
        let panels = &mut panels[..x.len() * padded];
        if parallel {
            let panels = panels.par_chunks_mut(size * padded);
            x.par_chunks(size).zip(panels).for_each(|(rows, panel)| fill(rows, panel));
        } else {
            x.chunks(size).zip(panels.chunks_mut(size * padded)).for_each(|(rows, panel)| fill(rows, panel));
        }
    }
}

/// Takes pairs apart, to a vector of even columns, then one of odd ones, as [`Pack`] has them: a product is then the
/// same to the last bit. Returns the rows, each filled up with zeros.
struct Unpair<'a> {
    pairs: &'a [u32],
    words: usize,
    out: &'a mut Vec<f32>,
}

impl<'a> WithSimd for Unpair<'a> {
    type Output = &'a [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> &'a [f32] {
        let Unpair { pairs, words, out } = self;
        let padded = 2 * words.next_multiple_of(S::F32_LANES);
        out.resize(pairs.len() / words * padded, 0.0);
        for (row, out) in pairs.chunks_exact(words).zip(out.chunks_exact_mut(padded)) {
            let halves = S::as_mut_simd_f32s(out).0;
            for (word, halves) in row.chunks(S::F32_LANES).zip(halves.chunks_exact_mut(2)) {
                let word = match S::as_simd_u32s(word).0 {
                    [word] => *word,
                    _ => simd.partial_load_u32s(word),
                };
                (halves[0], halves[1]) = (even_columns(simd, word), odd_columns(simd, word));
            }
        }
        out
    }
}

/// The lower bf16 of each word: a bf16 is the upper half of the f32 of the same value.
#[inline(always)]
fn even_columns<S: Simd>(simd: S, word: S::u32s) -> S::f32s {
    simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(word, simd.splat_u32s(16)))
}

/// The upper bf16 of each word.
#[inline(always)]
fn odd_columns<S: Simd>(simd: S, word: S::u32s) -> S::f32s {
    simd.transmute_f32s_u32s(simd.and_u32s(word, simd.splat_u32s(0xffff_0000)))
}

/// All rows of `x` with a block of weight rows that fits the cache; `words` of 32 bits make a weight row.
struct Block<'a> {
    panels: &'a [f32],
    w: &'a [u32],
    words: usize,
    pairs: bool,
    rows: usize,
    out: &'a mut [f32],
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.pairs { self.panels::<S, 2>(simd) } else { self.panels::<S, 1>(simd) }
    }
}

impl Block<'_> {
    /// Panel by panel; `V` values in a word.
    #[inline(always)]
    fn panels<S: Simd, const V: usize>(self, simd: S) {
        let Block { panels, w, words, rows, out, .. } = self;
        let vectors = words.div_ceil(S::F32_LANES) * V;
        let most = panel_rows::<S>();
        let panels = S::as_simd_f32s(panels).0[..rows * vectors].chunks(most * vectors);
        for (panel, first) in panels.zip((0..).step_by(most)) {
            match panel.len() / vectors {
                1 => panel_product::<S, 1, V>(simd, panel, w, words, rows, first, out),
                2 => panel_product::<S, 2, V>(simd, panel, w, words, rows, first, out),
                // Vectors of machines with few registers end here.
                3 if most > 2 => panel_product::<S, 3, V>(simd, panel, w, words, rows, first, out),
                4 if most > 2 => panel_product::<S, 4, V>(simd, panel, w, words, rows, first, out),
                5 if most > 2 => panel_product::<S, 5, V>(simd, panel, w, words, rows, first, out),
                6 if most > 2 => panel_product::<S, 6, V>(simd, panel, w, words, rows, first, out),
                count => unreachable!("a panel of {count} rows"),
            }
        }
    }
}

/// One panel with every weight row; its first row of `x` is row `first` of (width, rows).
#[inline(always)]
fn panel_product<S: Simd, const R: usize, const V: usize>(
    simd: S,
    panel: &[S::f32s],
    w: &[u32],
    words: usize,
    rows: usize,
    first: usize,
    out: &mut [f32],
) {
    let tiles = w.chunks_exact(TILE * words);
    let rest = tiles.remainder();
    let (out, out_rest) = out.split_at_mut((w.len() - rest.len()) / words * rows);
    for (w, out) in tiles.zip(out.chunks_exact_mut(TILE * rows)) {
        let mut lines: [&[u32]; TILE] = [&[]; TILE];
        for (line, w) in lines.iter_mut().zip(w.chunks_exact(words)) {
            *line = w;
        }
        tile::<S, R, TILE, V>(simd, panel, lines, rows, first, out);
    }
    for (w, out) in rest.chunks_exact(words).zip(out_rest.chunks_exact_mut(rows)) {
        tile::<S, R, 1, V>(simd, panel, [w], rows, first, out);
    }
}

/// `R` rows of `x` with `C` weight rows. Each sum runs along the columns in the same order for every tile shape.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize, const V: usize>(
    simd: S,
    panel: &[S::f32s],
    w: [&[u32]; C],
    rows: usize,
    first: usize,
    out: &mut [f32],
) {
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    let whole = w[0].len() - w[0].len() % S::F32_LANES;
    let mut body: [&[S::u32s]; C] = [&[]; C];
    for c in 0..C {
        body[c] = S::as_simd_u32s(&w[c][..whole]).0;
    }
    let (panel, last) = panel.split_at(whole / S::F32_LANES * R * V);
    let mut words = [simd.splat_u32s(0); C];
    for (k, x) in panel.chunks_exact(R * V).enumerate() {
        for c in 0..C {
            words[c] = body[c][k];
        }
        add_products::<S, R, C, V>(simd, x, words, &mut sums);
    }
    if last.len() == R * V {
        for c in 0..C {
            words[c] = simd.partial_load_u32s(&w[c][whole..]);
        }
        add_products::<S, R, C, V>(simd, last, words, &mut sums);
    }
    for c in 0..C {
        let out = &mut out[c * rows + first..][..R];
        for r in 0..R {
            out[r] = simd.reduce_sum_f32s(sums[r][c]);
        }
    }
}

/// Adds the products of one vector of words of each weight row with the columns of `x` that they belong to.
#[inline(always)]
fn add_products<S: Simd, const R: usize, const C: usize, const V: usize>(
    simd: S,
    x: &[S::f32s],
    words: [S::u32s; C],
    sums: &mut [[S::f32s; C]; R],
) {
    if V == 1 {
        for r in 0..R {
            for c in 0..C {
                sums[r][c] = simd.mul_add_f32s(x[r], simd.transmute_f32s_u32s(words[c]), sums[r][c]);
            }
        }
        return;
    }
    for c in 0..C {
        let (even, odd) = (even_columns(simd, words[c]), odd_columns(simd, words[c]));
        for r in 0..R {
            sums[r][c] = simd.mul_add_f32s(x[r], even, sums[r][c]);
            sums[r][c] = simd.mul_add_f32s(x[R + r], odd, sums[r][c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn products_meet_a_plain_sum_and_never_depend_on_the_batch() {
        for (rows, columns, width) in [(1, 5, 3), (4, 16, 8), (7, 33, 21), (9, 64, 13), (16, 64, 130), (5, 1000, 70)] {
            let x = noise(rows * columns, 1);
            let w = noise(width * columns, 2);
            let split = width / 3 * columns;
            let parts = vec![(width / 3, Values::F32(&w[..split])), (width - width / 3, Values::F32(&w[split..]))];
            assert_product(&x, &w, &Matrix { parts, columns });
        }
    }

    #[test]
    fn products_with_pairs_meet_it_too() {
        for (rows, columns, width) in [(1, 6, 3), (4, 32, 8), (7, 34, 21), (9, 64, 13), (16, 64, 130), (5, 1000, 70)] {
            let x = noise(rows * columns, 1);
            let halves: Vec<half::bf16> = noise(width * columns, 2).into_iter().map(half::bf16::from_f32).collect();
            let w: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
            let words: Vec<u32> = halves
                .chunks(2)
                .map(|pair| u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16)
                .collect();
            let parts = vec![(width, Values::Pairs(&words))];
            assert_product(&x, &w, &Matrix { parts, columns });
        }
    }

    fn assert_product(x: &[f32], w: &[f32], matrix: &Matrix) {
        let columns = matrix.columns;
        let (rows, width) = (x.len() / columns, w.len() / columns);
        let rows_of: Vec<&[f32]> = x.chunks_exact(columns).collect();
        let mut out = vec![f32::NAN; rows * width];
        let mut panels = Vec::new();
        product(&rows_of, matrix, width, &mut panels, &mut out);
        for (r, x) in rows_of.iter().enumerate() {
            let mut alone = vec![f32::NAN; width];
            product(&[x], matrix, width, &mut panels, &mut alone);
            for (c, w) in w.chunks_exact(columns).enumerate() {
                let want: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                assert!((f64::from(out[c * rows + r]) - want).abs() < 1e-5 * columns as f64);
                assert_eq!(out[c * rows + r], alone[c]);
            }
        }
    }

    #[test]
    fn sixteen_bit_weights_are_widened_exactly() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut scratch = vec![0.0; 1 << 16];
        let same = |found: f32, want: f32| found.to_bits() == want.to_bits() || (found.is_nan() && want.is_nan());
        let found = Values::Bytes(Dtype::F16, &bytes).widen(0..1 << 16, &mut scratch);
        assert!((0..=u16::MAX).zip(found).all(|(bits, &found)| same(found, half::f16::from_bits(bits).to_f32())));
        let found = Values::Bytes(Dtype::Bf16, &bytes).widen(0..1 << 16, &mut scratch);
        assert!((0..=u16::MAX).zip(found).all(|(bits, &found)| same(found, half::bf16::from_bits(bits).to_f32())));
    }

    #[test]
    fn unaligned_weights_are_read_where_they_lie() {
        let values = [1.5f32, -2.0, 3.25];
        let bytes: Vec<u8> = [7u8].into_iter().chain(values.into_iter().flat_map(f32::to_le_bytes)).collect();
        let mut scratch = vec![0.0; 2];
        assert_eq!(Values::Bytes(Dtype::F32, &bytes[1..]).widen(1..3, &mut scratch), [-2.0, 3.25]);
    }
}

//! The matrix product x Wᵀ. Both operands have their common dimension contiguous, so a tile of dot products needs no
//! packing: weights are read where they lie, each once for a block of rows, and 16-bit ones are widened on the way.

use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{dispatch, dots, vectorised};

/// Weight rows of a tile of dot products.
const TILE: usize = 4;
/// Products with fewer multiply-adds stay on one thread: waking another costs more.
const PARALLEL_MIN: usize = 1 << 17;
/// f32 values of the weight rows that one task works through; half of a usual second-level cache.
const BLOCK_VALUES: usize = 1 << 16;

/// Values as they lie in a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    /// The values of `range`, in place where they are f32, else widened into `scratch`.
    fn widen<'b>(self, range: std::ops::Range<usize>, scratch: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Values::F32(values) => return &values[range],
            Values::F16(values) => widen_f16(&values[range], scratch),
            Values::Bf16(values) => widen_bf16(&values[range], scratch),
        }
        scratch
    }
}

fn widen_bf16(values: &[bf16], out: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (out, value) in out.iter_mut().zip(values) {
                *out = f32::from_bits(u32::from(value.to_bits()) << 16);
            }
        },
    );
}

/// f16 to f32 in integer arithmetic that vectorises: the exponent is rebased by a multiplication, which also makes
/// subnormal numbers right; infinities and NaN keep their meaning.
fn widen_f16(values: &[f16], out: &mut [f32]) {
    const REBASE: f32 = f32::from_bits((254 - 15) << 23);
    vectorised(
        #[inline(always)]
        || {
            for (out, value) in out.iter_mut().zip(values) {
                let bits = u32::from(value.to_bits());
                let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
                let finite = (f32::from_bits(rest) * REBASE).to_bits();
                let special = rest | 0x7f80_0000;
                let magnitude = if rest >= 0x0f80_0000 { special } else { finite };
                *out = f32::from_bits(sign | magnitude);
            }
        },
    );
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

    /// Rows `from..to` as f32, part by part: `each(row, values)` gets the first row's number and whole rows.
    fn rows(&self, from: usize, to: usize, scratch: &mut Vec<f32>, mut each: impl FnMut(usize, &[f32])) {
        let mut start = 0;
        for &(rows, values) in &self.parts {
            let (first, last) = (from.max(start), to.min(start + rows));
            if first < last {
                scratch.resize((last - first) * self.columns, 0.0);
                let range = (first - start) * self.columns..(last - start) * self.columns;
                each(first, values.widen(range, scratch));
            }
            start += rows;
        }
    }
}

/// The product of `x` (rows, columns) with the first `width` rows of `weight`, transposed: (width, rows).
pub(super) fn product(x: &[&[f32]], weight: &Matrix, width: usize, out: &mut [f32]) {
    let (rows, columns) = (x.len(), weight.columns);
    assert_eq!(out.len(), width * rows);
    let block = (BLOCK_VALUES / columns).clamp(TILE, 64).next_multiple_of(TILE);
    let task = |scratch: &mut Vec<f32>, (index, out): (usize, &mut [f32])| {
        let from = index * block;
        weight.rows(from, from + out.len() / rows, scratch, |first, w| {
            let out = &mut out[(first - from) * rows..][..w.len() / columns * rows];
            dispatch(Block { x, w, columns, out });
        });
    };
    if rows * columns * width < PARALLEL_MIN {
        let mut scratch = Vec::new();
        out.chunks_mut(block * rows).enumerate().for_each(|chunk| task(&mut scratch, chunk));
    } else {
        out.par_chunks_mut(block * rows).enumerate().for_each_init(Vec::new, task);
    }
}

/// All rows of `x` with a block of weight rows that fits the cache.
struct Block<'a> {
    x: &'a [&'a [f32]],
    w: &'a [f32],
    columns: usize,
    out: &'a mut [f32],
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many rows as the registers hold sums for.
        match S::REGISTER_COUNT {
            32.. => self.tiles::<S, 6>(simd),
            _ => self.tiles::<S, 3>(simd),
        }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(self, simd: S) {
        let Block { x, w, columns, out } = self;
        let rows = x.len();
        let whole = rows - rows % R;
        let tiles = w.chunks_exact(TILE * columns);
        let rest = tiles.remainder();
        let tiled = w.len() - rest.len();
        for first in (0..whole).step_by(R) {
            let x: [&[f32]; R] = std::array::from_fn(|r| x[first + r]);
            for (w, out) in tiles.clone().zip(out.chunks_exact_mut(TILE * rows)) {
                let w: [&[f32]; TILE] = std::array::from_fn(|c| &w[c * columns..][..columns]);
                let sums = dots(simd, x, w);
                for (r, sums) in sums.iter().enumerate() {
                    for (c, &sum) in sums.iter().enumerate() {
                        out[c * rows + first + r] = sum;
                    }
                }
            }
        }
        for (row, x) in x.iter().enumerate().skip(whole) {
            for (w, out) in tiles.clone().zip(out.chunks_exact_mut(TILE * rows)) {
                let w: [&[f32]; TILE] = std::array::from_fn(|c| &w[c * columns..][..columns]);
                let [sums] = dots(simd, [x], w);
                for (c, &sum) in sums.iter().enumerate() {
                    out[c * rows + row] = sum;
                }
            }
        }
        for (w, out) in rest.chunks_exact(columns).zip(out[tiled / columns * rows..].chunks_exact_mut(rows)) {
            for (x, out) in x.iter().zip(out) {
                *out = dots(simd, [x], [w])[0][0];
            }
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
        for (rows, columns, width) in [(1, 5, 3), (4, 16, 8), (7, 33, 21), (13, 64, 130), (2, 1000, 70)] {
            let x = noise(rows * columns, 1);
            let w = noise(width * columns, 2);
            let split = width / 3 * columns;
            let parts = vec![(width / 3, Values::F32(&w[..split])), (width - width / 3, Values::F32(&w[split..]))];
            let matrix = Matrix { parts, columns };
            let rows_of: Vec<&[f32]> = x.chunks_exact(columns).collect();
            let mut out = vec![f32::NAN; rows * width];
            product(&rows_of, &matrix, width, &mut out);
            for (r, x) in rows_of.iter().enumerate() {
                let mut alone = vec![f32::NAN; width];
                product(&[x], &matrix, width, &mut alone);
                for (c, w) in w.chunks_exact(columns).enumerate() {
                    let want: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    assert!((f64::from(out[c * rows + r]) - want).abs() < 1e-5 * columns as f64);
                    assert_eq!(out[c * rows + r], alone[c]);
                }
            }
        }
    }

    #[test]
    fn sixteen_bit_weights_are_widened_exactly() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let bfloats: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let mut out = vec![0.0; halves.len()];
        widen_f16(&halves, &mut out);
        assert!(halves.iter().zip(&out).all(|(h, o)| h.to_f32() == *o || (h.is_nan() && o.is_nan())));
        widen_bf16(&bfloats, &mut out);
        assert!(bfloats.iter().zip(&out).all(|(h, o)| h.to_f32() == *o || (h.is_nan() && o.is_nan())));
    }
}

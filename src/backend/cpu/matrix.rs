//! The matrix product x Wᵀ. Both operands have their common dimension contiguous, so a tile of dot products needs no
//! packing: weights are read where they lie, each once for a block of rows, and 16-bit ones are widened on the way.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{dispatch, vectorised};
use crate::checkpoint::Dtype;

/// Weight rows of a tile of dot products.
const TILE: usize = 4;
/// Products with fewer multiply-adds stay on one thread: waking another costs more.
const PARALLEL_MIN: usize = 1 << 17;
/// f32 values of the weight rows that one task works through; half of a usual second-level cache.
const BLOCK_VALUES: usize = 1 << 16;

/// Values as they lie in a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    /// Ready to be used where they are.
    F32(&'a [f32]),
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

/// See [`product`].
const FEW_ROWS: usize = 8;

/// The product of `x` (rows, columns) with the first `width` rows of `weight`, transposed: (width, rows).
pub(super) fn product(x: &[&[f32]], weight: &Matrix, width: usize, out: &mut [f32]) {
    let (rows, columns) = (x.len(), weight.columns);
    assert_eq!(out.len(), width * rows);
    let panels = dispatch(Pack { x, columns });
    let block = (BLOCK_VALUES / columns).clamp(TILE, 64).next_multiple_of(TILE);
    // For few rows of `x`, widened weights are used up at once, so they should not leave the first-level cache.
    let step = if rows < FEW_ROWS { TILE } else { block };
    let task = |scratch: &mut Vec<f32>, (index, out): (usize, &mut [f32])| {
        for (sub, out) in out.chunks_mut(step * rows).enumerate() {
            let from = index * block + sub * step;
            weight.rows(from, from + out.len() / rows, scratch, |first, w| {
                let out = &mut out[(first - from) * rows..][..w.len() / columns * rows];
                dispatch(Block { panels: &panels, w, columns, rows, out });
            });
        }
    };
    if rows * columns * width < PARALLEL_MIN {
        let mut scratch = Vec::new();
        out.chunks_mut(block * rows).enumerate().for_each(|chunk| task(&mut scratch, chunk));
    } else {
        out.par_chunks_mut(block * rows).enumerate().for_each_init(Vec::new, task);
    }
}

/// Rows of a panel: as many as the registers hold sums for, beside one vector of each weight row of a tile.
const fn panel_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 6 } else { 2 }
}

/// Cuts `x` into panels of rows, vector by vector interleaved, so that a tile reads one stream; the last rows stand
/// alone. Columns are filled up with zeros to whole vectors.
struct Pack<'a> {
    x: &'a [&'a [f32]],
    columns: usize,
}

impl WithSimd for Pack<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f32> {
        let Pack { x, columns } = self;
        let lanes = S::F32_LANES;
        let padded = columns.next_multiple_of(lanes);
        let whole = x.len() - x.len() % panel_rows::<S>();
        let (tiled, alone) = x.split_at(whole);
        let mut panels = Vec::with_capacity(x.len() * padded);
        for panel in tiled.chunks_exact(panel_rows::<S>()).chain(alone.chunks_exact(1)) {
            for from in (0..columns).step_by(lanes) {
                for row in panel {
                    panels.extend_from_slice(&row[from..columns.min(from + lanes)]);
                    panels.resize(panels.len().next_multiple_of(lanes), 0.0);
                }
            }
        }
        panels
    }
}

/// All rows of `x` with a block of weight rows that fits the cache.
struct Block<'a> {
    panels: &'a [f32],
    w: &'a [f32],
    columns: usize,
    rows: usize,
    out: &'a mut [f32],
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if panel_rows::<S>() == 6 { self.tiles::<S, 6>(simd) } else { self.tiles::<S, 2>(simd) }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(self, simd: S) {
        let Block { panels, w, columns, rows, out } = self;
        let padded = columns.next_multiple_of(S::F32_LANES);
        let whole = rows - rows % R;
        let (tiled, alone) = S::as_simd_f32s(panels).0.split_at(whole * padded / S::F32_LANES);
        for (panel, first) in tiled.chunks_exact(R * padded / S::F32_LANES).zip((0..).step_by(R)) {
            panel_product::<S, R>(simd, panel, w, columns, rows, first, out);
        }
        for (panel, first) in alone.chunks_exact(padded / S::F32_LANES).zip(whole..) {
            panel_product::<S, 1>(simd, panel, w, columns, rows, first, out);
        }
    }
}

/// One panel with every weight row; its first row of `x` is row `first` of (width, rows).
#[inline(always)]
fn panel_product<S: Simd, const R: usize>(
    simd: S,
    panel: &[S::f32s],
    w: &[f32],
    columns: usize,
    rows: usize,
    first: usize,
    out: &mut [f32],
) {
    let tiles = w.chunks_exact(TILE * columns);
    let rest = tiles.remainder();
    let (out, out_rest) = out.split_at_mut((w.len() - rest.len()) / columns * rows);
    for (w, out) in tiles.zip(out.chunks_exact_mut(TILE * rows)) {
        let mut lines: [&[f32]; TILE] = [&[]; TILE];
        for (line, w) in lines.iter_mut().zip(w.chunks_exact(columns)) {
            *line = w;
        }
        tile::<S, R, TILE>(simd, panel, lines, rows, first, out);
    }
    for (w, out) in rest.chunks_exact(columns).zip(out_rest.chunks_exact_mut(rows)) {
        tile::<S, R, 1>(simd, panel, [w], rows, first, out);
    }
}

/// `R` rows of `x` with `C` weight rows. Each sum runs along the columns in the same order for every tile shape.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(
    simd: S,
    panel: &[S::f32s],
    w: [&[f32]; C],
    rows: usize,
    first: usize,
    out: &mut [f32],
) {
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    let whole = w[0].len() - w[0].len() % S::F32_LANES;
    let mut body: [&[S::f32s]; C] = [&[]; C];
    for c in 0..C {
        body[c] = S::as_simd_f32s(&w[c][..whole]).0;
    }
    let (panel, last) = panel.split_at(whole / S::F32_LANES * R);
    let mut weights = [simd.splat_f32s(0.0); C];
    for (k, x) in panel.chunks_exact(R).enumerate() {
        for c in 0..C {
            weights[c] = body[c][k];
        }
        for r in 0..R {
            for c in 0..C {
                sums[r][c] = simd.mul_add_f32s(x[r], weights[c], sums[r][c]);
            }
        }
    }
    if last.len() == R {
        for c in 0..C {
            let weights = simd.partial_load_f32s(&w[c][whole..]);
            for r in 0..R {
                sums[r][c] = simd.mul_add_f32s(last[r], weights, sums[r][c]);
            }
        }
    }
    for c in 0..C {
        let out = &mut out[c * rows + first..][..R];
        for r in 0..R {
            out[r] = simd.reduce_sum_f32s(sums[r][c]);
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

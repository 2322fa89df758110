//! Matrices of weights as they lie in a checkpoint or in memory.

use std::ops::Range;

use super::simd::vectorised;
use crate::checkpoint::Dtype;
use crate::checkpoint::quantised::{Codes, Quantised};

/// Values as they lie, row by row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    /// Little-endian numbers at any alignment.
    Plain(Dtype, &'a [u8]),
    /// Codes with scales.
    Quantised(Quantised<'a>),
}

impl<'a> Values<'a> {
    pub fn of_f32(values: &'a [f32]) -> Self {
        Values::Plain(Dtype::F32, bytemuck::cast_slice(values))
    }

    /// Bits of a value, without scales.
    pub fn bits(&self) -> usize {
        match self {
            Values::Plain(dtype, _) => 8 * dtype.size(),
            Values::Quantised(Quantised { codes: Codes::Int8 | Codes::Fp8, .. }) => 8,
            Values::Quantised(Quantised { codes: Codes::Int4 | Codes::Table(_), .. }) => 4,
        }
    }

    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Values::Plain(_, bytes) => bytes,
            Values::Quantised(quantised) => quantised.bytes,
        }
    }

    /// One row as f32.
    fn widen(&self, row: usize, out: &mut [f32]) {
        match self {
            Values::Quantised(quantised) => quantised.widen(row, out),
            Values::Plain(dtype, bytes) => {
                let size = out.len() * dtype.size();
                let bytes = &bytes[row * size..][..size];
                match dtype {
                    Dtype::F32 => widen(bytes, out, f32::from_le_bytes),
                    Dtype::F16 => widen(bytes, out, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
                    Dtype::Bf16 => {
                        widen(bytes, out, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16));
                    }
                }
            }
        }
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

/// A matrix of weights: stacked parts, each (rows, columns), row-major.
#[derive(Debug, Clone)]
pub(super) struct Matrix<'a> {
    pub parts: Vec<(usize, Values<'a>)>,
    pub columns: usize,
}

impl<'a> Matrix<'a> {
    /// One row as f32.
    pub fn row<'b>(&self, row: usize, scratch: &'b mut Vec<f32>) -> &'b [f32] {
        let Source { values, rows, .. } = self.source(row..row + 1);
        scratch.resize(self.columns, 0.0);
        values.widen(rows.start, scratch);
        scratch
    }

    /// The same matrix with words of two columns each, if all of it is bf16 and there are pairs of columns.
    pub fn pairs(&self) -> Option<Matrix<'a>> {
        let words = |&(rows, values): &(usize, Values<'a>)| match values {
            Values::Plain(Dtype::Bf16, bytes) => Some((rows, Values::Plain(Dtype::F32, bytes))),
            _ => None,
        };
        let parts = self.parts.iter().map(words).collect::<Option<Vec<_>>>()?;
        self.columns.is_multiple_of(2).then_some(Matrix { parts, columns: self.columns / 2 })
    }

    /// Where these rows are: within one part.
    pub fn source(&self, rows: Range<usize>) -> Source<'a> {
        let mut start = 0;
        for &(count, values) in &self.parts {
            if rows.end <= start + count {
                return Source { values, columns: self.columns, rows: rows.start - start..rows.end - start };
            }
            start += count;
        }
        panic!("rows {rows:?} of {start}");
    }
}

/// Some rows of a part of a matrix.
#[derive(Debug, Clone)]
pub(super) struct Source<'a> {
    pub values: Values<'a>,
    /// Columns of the matrix.
    pub columns: usize,
    pub rows: Range<usize>,
}

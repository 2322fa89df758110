//! Numbers on their way to a device: from the checkpoint's formats to the one that kernels store.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::checkpoint::Dtype;
use crate::weights::Format;

/// Bytes of one number of activations, keys or values.
pub const BYTES: usize = 2;
/// Devices that run kernels refuse to open for f32.
const NO_KERNEL: &str = "no kernel stores activations in f32";
/// Columns of a row in memory are a multiple of it: 16 bytes, what one thread reads at once.
const ROW_COLUMNS: usize = 8;

/// Columns of a buffer's row in memory.
pub fn padded(columns: usize) -> usize {
    columns.next_multiple_of(ROW_COLUMNS)
}

/// `source` (rows of `columns` numbers) into rows of `pitch` bytes of `out`; what is beyond becomes zero. False if a
/// finite number is beyond the range of f16.
pub fn store_rows(format: Format, dtype: Dtype, source: &[u8], columns: usize, pitch: usize, out: &mut [u8]) -> bool {
    let stored_bytes = format.bytes(1, columns) as usize;
    let row_bytes = columns * dtype.size();
    let store = |(out, row): (&mut [u8], &[u8])| {
        let (values, rest) = out.split_at_mut(stored_bytes);
        rest.fill(0);
        match (format, dtype) {
            (Format::Bf16, Dtype::Bf16) | (Format::F16, Dtype::F16) | (Format::F32, Dtype::F32) => {
                values.copy_from_slice(row);
                true
            }
            (Format::Bf16, Dtype::F32) => each(row, values, |bytes| (round_to_bf16(f32::from_le_bytes(bytes)), true)),
            (Format::Bf16, Dtype::F16) => {
                each(row, values, |bytes| (round_to_bf16(f16::from_le_bytes(bytes).to_f32()), true))
            }
            (Format::F16, Dtype::F32) => each(row, values, |bytes| to_f16(f32::from_le_bytes(bytes))),
            (Format::F16, Dtype::Bf16) => each(row, values, |bytes| to_f16(bf16::from_le_bytes(bytes).to_f32())),
            (Format::F32, Dtype::F16) => {
                each(row, values, |bytes| (f16::from_le_bytes(bytes).to_f32().to_le_bytes(), true))
            }
            (Format::F32, Dtype::Bf16) => {
                each(row, values, |bytes| (bf16::from_le_bytes(bytes).to_f32().to_le_bytes(), true))
            }
            (Format::Int8 { .. } | Format::Fp8 { .. } | Format::Int4 { .. }, _) => {
                unreachable!("codes are made numbers before they are stored")
            }
        }
    };
    let rows = out.par_chunks_exact_mut(pitch).zip(source.par_chunks_exact(row_bytes));
    rows.map(store).reduce(|| true, |a, b| a & b)
}

/// f32 values into stored ones.
pub fn store_values(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let stored = values.iter().flat_map(|&value| match dtype {
        Dtype::Bf16 => round_to_bf16(value),
        Dtype::F16 => to_f16(value).0,
        Dtype::F32 => unreachable!("{NO_KERNEL}"),
    });
    stored.collect()
}

/// Stored values as f32.
pub fn load_values(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks();
    let load = |word: &[u8; 2]| match dtype {
        Dtype::Bf16 => bf16::from_le_bytes(*word).to_f32(),
        Dtype::F16 => f16::from_le_bytes(*word).to_f32(),
        Dtype::F32 => unreachable!("{NO_KERNEL}"),
    };
    words.iter().map(load).collect()
}

/// `f` of each number; whether it said true of all.
fn each<const N: usize, const M: usize>(row: &[u8], out: &mut [u8], f: impl Fn([u8; N]) -> ([u8; M], bool)) -> bool {
    let (from, _) = row.as_chunks();
    let (to, _) = out.as_chunks_mut();
    let mut all = true;
    for (to, from) in to.iter_mut().zip(from) {
        let (stored, fits) = f(*from);
        *to = stored;
        all &= fits;
    }
    all
}

/// To nearest, ties to even, in arithmetic that vectorises.
fn round_to_bf16(value: f32) -> [u8; BYTES] {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let bits = if value.is_nan() { bits | 0x40_0000 } else { rounded };
    ((bits >> 16) as u16).to_le_bytes()
}

fn to_f16(value: f32) -> ([u8; BYTES], bool) {
    let stored = f16::from_f32(value);
    (stored.to_le_bytes(), stored.is_infinite() <= value.is_infinite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_half_crate() {
        let values = [0.0, -0.0, 1.0, 1.003_906_3, 1.011_718_8, -3.7e30, 1e-40, f32::MAX, f32::INFINITY, f32::NAN];
        for value in values {
            assert_eq!(round_to_bf16(value), bf16::from_f32(value).to_le_bytes(), "{value}");
        }
    }

    #[test]
    fn rows_are_padded_and_overflow_is_seen() {
        let source: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut out = [0xff; 16];
        assert!(store_rows(Format::F16, Dtype::F32, &source, 2, 8, &mut out));
        assert_eq!(load_values(Dtype::F16, &out), [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0]);
        let large = 1e5f32.to_le_bytes();
        assert!(!store_rows(Format::F16, Dtype::F32, &large, 1, 2, &mut out[..2]));
        assert!(store_rows(Format::F16, Dtype::F32, &f32::INFINITY.to_le_bytes(), 1, 2, &mut out[..2]));
    }
}

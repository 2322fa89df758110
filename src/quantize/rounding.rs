//! From numbers to codes with scales, row by row.

use half::bf16;
use rayon::prelude::*;

use crate::checkpoint::quantised::e4m3;

/// What codes there are, and how many columns share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// -127..=127, a scale for a row.
    Int8,
    /// e4m3, a scale for a row.
    Fp8,
    /// 0..=15, less a zero point of each group, or less 8 where it is symmetric.
    Int4 { group: usize, symmetric: bool },
}

/// The codes of a matrix, a byte each, and what makes numbers of them.
#[derive(Debug, Default)]
pub(super) struct Rounded {
    pub codes: Vec<u8>,
    /// (rows, groups)
    pub scales: Vec<bf16>,
    /// (rows, groups); 8 where there are none.
    pub zeros: Vec<u8>,
    /// The largest difference from what was rounded.
    pub error: f32,
}

/// Part of the largest magnitude that a scale of symmetric groups may be, from least to most.
const SEARCHED: (f32, f32, u8) = (0.60, 1.15, 23);
/// The largest number of e4m3.
const FP8_MAX: f32 = 448.0;

impl Rounding {
    /// Columns that share a scale, of so many.
    pub fn group(self, columns: usize) -> usize {
        match self {
            Rounding::Int8 | Rounding::Fp8 => columns,
            Rounding::Int4 { group, .. } => group,
        }
    }

    /// Rounds a matrix of so many columns.
    pub fn round(self, values: &[f32], columns: usize) -> Rounded {
        let group = self.group(columns);
        let mut codes = vec![0; values.len()];
        let groups = values.par_chunks_exact(group).zip(codes.par_chunks_exact_mut(group));
        let rounded = groups.map(|(values, codes)| self.round_group(values, codes));
        let (scales, (zeros, errors)): (Vec<bf16>, (Vec<u8>, Vec<f32>)) =
            rounded.map(|(scale, zero, error)| (scale, (zero, error))).unzip();
        Rounded { codes, scales, zeros, error: errors.into_iter().fold(0.0, f32::max) }
    }

    /// The scale, the zero point and the largest error of numbers that share them.
    fn round_group(self, values: &[f32], codes: &mut [u8]) -> (bf16, u8, f32) {
        let largest = values.iter().copied().fold(0.0, |a: f32, b| if b.abs() > a.abs() { b } else { a });
        let (low, high) = values.iter().fold((0_f32, 0_f32), |(low, high), &value| (low.min(value), high.max(value)));
        let scale = match self {
            Rounding::Int8 => largest.abs() / 127.0,
            Rounding::Fp8 => largest.abs() / FP8_MAX,
            Rounding::Int4 { symmetric: false, .. } => (high - low) / 15.0,
            Rounding::Int4 { symmetric: true, .. } => searched(values, largest),
        };
        // A group of zeros, or of numbers so small that their scale is none.
        let stored = match bf16::from_f32(scale) {
            scale if scale.to_f32() == 0.0 => bf16::ONE,
            scale => scale,
        };
        let scale = stored.to_f32();
        let zero = match self {
            Rounding::Int4 { symmetric: false, .. } => (-low / scale).round_ties_even().clamp(0.0, 15.0),
            _ => 8.0,
        };
        let mut error = 0_f32;
        for (code, &value) in codes.iter_mut().zip(values) {
            let steps = (value / scale).round_ties_even();
            let stands_for = match self {
                Rounding::Int8 => {
                    let q = steps.clamp(-127.0, 127.0);
                    *code = q as i8 as u8;
                    q
                }
                Rounding::Fp8 => {
                    *code = to_e4m3(value / scale);
                    e4m3(*code)
                }
                Rounding::Int4 { .. } => {
                    let u = (steps + zero).clamp(0.0, 15.0);
                    *code = u as u8;
                    u - zero
                }
            };
            error = error.max((stands_for * scale - value).abs());
        }
        (stored, zero as u8, error)
    }
}

/// The scale of least squared error among those that put a part of the largest magnitude on the lowest code.
fn searched(values: &[f32], largest: f32) -> f32 {
    let (least, most, steps) = SEARCHED;
    let squared = |scale: f32| -> f32 {
        let scale = bf16::from_f32(scale).to_f32();
        let error = |value: &f32| (value / scale).round_ties_even().clamp(-8.0, 7.0) * scale - value;
        values.iter().map(error).map(|error| error * error).sum()
    };
    let scale = |step: u8| -largest / 8.0 * (least + (most - least) / f32::from(steps - 1) * f32::from(step));
    let candidates = (0..steps).map(scale).map(|scale| (squared(scale), scale));
    candidates.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0.0, |(_, scale)| scale)
}

/// To the nearest e4m3, ties to even; what is beyond the largest becomes it.
fn to_e4m3(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = value.abs().min(FP8_MAX);
    // Steps of an eighth of a power of two, of none smaller than 2^-6.
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-6);
    let step = f32::from_bits(((exponent - 3 + 127) as u32) << 23);
    let steps = (magnitude / step).round_ties_even() as u32;
    // Eight steps of the lowest exponent begin the next, whose code follows; so it is with sixteen of the others.
    (sign | ((((exponent + 6) as u32) << 3) + steps)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_a_byte_are_the_nearest() {
        let all: Vec<f32> = (0..0x7f).map(e4m3).collect();
        for code in 0..0x7f_u8 {
            assert_eq!((to_e4m3(e4m3(code)), to_e4m3(-e4m3(code))), (code, code | 0x80));
        }
        for (code, pair) in all.windows(2).enumerate() {
            let between = (pair[0] + pair[1]) / 2.0;
            let even = (code + code % 2) as u8;
            assert_eq!(to_e4m3(between), even, "{between}");
            assert_eq!(to_e4m3(between * 0.999), code as u8, "{between}");
            assert_eq!(to_e4m3(between * 1.001), code as u8 + 1, "{between}");
        }
        assert_eq!([to_e4m3(1e30), to_e4m3(-1e30)], [0x7e, 0xfe]);
    }

    /// Two groups, the second of them zeros.
    fn rounded(rounding: Rounding) -> Rounded {
        rounding.round(&[-1.0, 0.5, 0.25, 1.27, 0.0, 0.0, 0.0, 0.0], 4)
    }

    #[test]
    fn codes_are_those_of_the_rule() {
        let int8 = rounded(Rounding::Int8);
        let scale = bf16::from_f32(1.27 / 127.0).to_f32();
        assert_eq!(int8.scales, [bf16::from_f32(scale), bf16::ONE]);
        let codes = [-1.0, 0.5, 0.25, 1.27].map(|value: f32| (value / scale).round() as i8 as u8);
        assert_eq!(int8.codes, [codes, [0; 4]].concat());
        assert!(int8.error <= scale * 0.75, "{}", int8.error);

        let int4 = rounded(Rounding::Int4 { group: 4, symmetric: false });
        assert_eq!((int4.zeros.as_slice(), &int4.codes[4..]), (&[7_u8, 0][..], &[0_u8; 4][..]));
        assert_eq!(int4.codes[..4], [0, 10, 9, 15]);

        let symmetric = rounded(Rounding::Int4 { group: 4, symmetric: true });
        assert!(symmetric.scales[0].to_f32() < 0.0, "the largest magnitude is on the lowest code");
        assert_eq!((symmetric.codes[3], &symmetric.zeros[..]), (0, &[8, 8][..]));
    }
}

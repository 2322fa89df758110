//! How pages store keys and values.

use std::fmt;
use std::str::FromStr;

use half::bf16;

use crate::error::{Error, Result};

/// How pages store keys and values, of text and of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvDtype {
    /// As the device stores activations: f32 on the processor, bf16 or f16 where kernels run.
    #[default]
    Auto,
    /// A byte each, and a scale in bf16 for each row and head (`docs/kv-cache.md`). A row has a scale of its own as a
    /// page fills token by token: with one a page, what a token's keys become would depend on what came with it.
    Int8,
}

impl KvDtype {
    /// Bytes of a row of keys, or of values, on a device whose numbers have so many.
    pub(crate) fn row_bytes(self, kv_heads: usize, head_width: usize, number: usize) -> usize {
        match self {
            KvDtype::Auto => kv_heads * head_width * number,
            KvDtype::Int8 => kv_heads * (head_width + size_of::<bf16>()),
        }
    }
}

impl FromStr for KvDtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(KvDtype::Auto),
            "int8" => Ok(KvDtype::Int8),
            _ => Err(Error::argument(format!("kv-dtype: expected auto or int8, found {text}"))),
        }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            KvDtype::Auto => "auto",
            KvDtype::Int8 => "int8",
        })
    }
}

/// Largest code.
const CODE_MAX: f32 = 127.0;

/// One head of a row in int8: code i stands for fl32(code * scale), which is exact. The scale is max |x| / 127 in bf16,
/// whose rounding leaves x / scale below 127.5; a code is that, rounded to the nearest, ties to even, or 0 where the
/// scale is no normal number. With NaN or infinity in it a row is nowhere finite, by its scale: a request is known by
/// that ([`Error::NotFinite`]).
pub(crate) fn quantise(x: &[f32], codes: &mut [i8]) -> bf16 {
    // The order of bits is that of absolute values, and NaN is above all.
    let largest = x.iter().map(|x| x.to_bits() << 1 >> 1).max().unwrap_or(0);
    let scale = bf16::from_f32(f32::from_bits(largest) / CODE_MAX);
    let divisor = scale.to_f32();
    for (code, x) in codes.iter_mut().zip(x) {
        *code = if scale.is_normal() { (x / divisor).round_ties_even() as i8 } else { 0 };
    }
    scale
}

/// What codes of one head of a row stand for.
#[inline(always)]
pub(crate) fn widen(codes: &[i8], scale: bf16, out: &mut [f32]) {
    let scale = scale.to_f32();
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = f32::from(code) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(x: &[f32]) -> Vec<f32> {
        let (mut codes, mut out) = (vec![0; x.len()], vec![f32::NAN; x.len()]);
        let scale = quantise(x, &mut codes);
        widen(&codes, scale, &mut out);
        out
    }

    #[test]
    fn codes_are_within_half_a_step() {
        for size in [1e-30, 3e-5, 1.0, 700.0, 3e38f32] {
            let x: Vec<f32> = (0..40).map(|i| ((i * 37) % 41 - 20) as f32 / 20.0 * size).collect();
            let largest = x.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (found, x) in again(&x).iter().zip(&x) {
                // Half a step, and what the scale loses in bf16.
                assert!((found - x).abs() <= largest / 127.0 * 0.502 + largest / 512.0, "{x} became {found}");
            }
        }
    }

    #[test]
    fn codes_round_to_even_and_end_at_127() {
        // The scale is 1; then one that bf16 makes smaller, so that the largest quotient is above 127.
        assert_eq!(again(&[127.0, 0.5, 1.5, -2.5, -127.0]), [127.0, 0.0, 2.0, -2.0, -127.0]);
        let scale = 1.0 + 1.0 / 128.0;
        let x = 127.0 * (scale + 1.0 / 260.0);
        assert_eq!(again(&[x]), [127.0 * scale]);
        assert_eq!(again(&[0.0, -0.0, 1e-45]), [0.0; 3]);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(again(&[1.0, x, -3.0]).iter().all(|found| !found.is_finite()), "{x}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for dtype in [KvDtype::Auto, KvDtype::Int8] {
            assert_eq!(dtype.to_string().parse::<KvDtype>().unwrap(), dtype);
        }
        let error = "fp8".parse::<KvDtype>().unwrap_err().to_string();
        assert_eq!(error, "kv-dtype: expected auto or int8, found fp8");
    }
}

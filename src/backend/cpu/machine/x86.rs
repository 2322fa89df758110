//! x86-64 with AVX2 and FMA, and with AVX-512, through pulp's safe intrinsics. Both turn and widen weights in 256 bits:
//! sixteen rows at a distance of whole pages would not fit a set of the first-level cache. Pairs of bf16 are multiplied
//! by `vdpbf16ps` where there is one, which pulp has no word for.
#![allow(unsafe_code)]

use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps, _mm512_set1_ps, _mm512_setzero_ps};

use pulp::x86::{V3, V4};
use pulp::{NullaryFnOnce, Simd, f32x8, u32x8};

use super::{Machine, PANEL, Sums};

/// A closure that pulp compiles for a machine.
struct Body<F>(F);

impl<R, F: FnOnce() -> R> NullaryFnOnce for Body<F> {
    type Output = R;

    #[inline(always)]
    fn call(self) -> R {
        (self.0)()
    }
}

#[inline(always)]
fn transpose(simd: V3, rows: [u32x8; 8]) -> [u32x8; 8] {
    let avx = simd.avx;
    let mut r = [avx._mm256_setzero_ps(); 8];
    for (r, row) in r.iter_mut().zip(rows) {
        *r = pulp::cast(row);
    }
    // Pairs of rows, then fours, then halves.
    let mut pairs = r;
    let mut fours = r;
    let mut out = rows;
    for i in 0..4 {
        pairs[2 * i] = avx._mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = avx._mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..2 {
        for j in 0..2 {
            let (a, b) = (pairs[4 * i + j], pairs[4 * i + 2 + j]);
            fours[4 * i + 2 * j] = avx._mm256_shuffle_ps::<0x44>(a, b);
            fours[4 * i + 2 * j + 1] = avx._mm256_shuffle_ps::<0xee>(a, b);
        }
    }
    for i in 0..4 {
        out[i] = pulp::cast(avx._mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]));
        out[4 + i] = pulp::cast(avx._mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]));
    }
    out
}

/// `R` rows of `x`, which has lines of `L`, from `row` on, with `V` vectors of the panel from `vector` on.
#[inline(always)]
fn multiply_vectors<S: Simd, const L: usize, const R: usize, const V: usize>(
    simd: S,
    panel: &[f32],
    x: &[f32],
    (row, vector): (usize, usize),
    sums: &mut Sums,
) {
    let mut totals = [[simd.splat_f32s(0.0); V]; R];
    for (totals, sums) in totals.iter_mut().zip(&sums.0[row..row + R]) {
        totals.copy_from_slice(&S::as_simd_f32s(sums).0[vector..vector + V]);
    }
    for (line, x) in panel.as_chunks::<PANEL>().0.iter().zip(x.as_chunks::<L>().0) {
        let line = &S::as_simd_f32s(line).0[vector..vector + V];
        for (totals, &x) in totals.iter_mut().zip(&x[row..row + R]) {
            let x = simd.splat_f32s(x);
            for (total, &w) in totals.iter_mut().zip(line) {
                *total = simd.mul_add_f32s(x, w, *total);
            }
        }
    }
    for (totals, sums) in totals.iter().zip(&mut sums.0[row..row + R]) {
        S::as_mut_simd_f32s(sums).0[vector..vector + V].copy_from_slice(totals);
    }
}

/// See [`Machine::multiply_pairs`]: the instruction is that, to the bit.
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_pairs<const R: usize>(panel: &[f32], x: &[f32], sums: &mut Sums) {
    let pairs = |vector: __m512| -> __m512bh {
        // SAFETY: both are 512 bits, of which any are valid.
        unsafe { std::mem::transmute(vector) }
    };
    let mut totals = [[_mm512_setzero_ps(); PANEL / 16]; R];
    for (totals, sums) in totals.iter_mut().zip(&sums.0) {
        for (total, sums) in totals.iter_mut().zip(sums.as_chunks::<16>().0) {
            *total = pulp::cast(*sums);
        }
    }
    for (line, x) in panel.as_chunks::<PANEL>().0.iter().zip(x.as_chunks::<R>().0) {
        let mut w = [_mm512_setzero_ps(); PANEL / 16];
        for (w, line) in w.iter_mut().zip(line.as_chunks::<16>().0) {
            *w = pulp::cast(*line);
        }
        for (totals, &x) in totals.iter_mut().zip(x) {
            let x = pairs(_mm512_set1_ps(x));
            for (total, &w) in totals.iter_mut().zip(&w) {
                *total = _mm512_dpbf16_ps(*total, x, pairs(w));
            }
        }
    }
    for (totals, sums) in totals.iter().zip(&mut sums.0) {
        for (total, sums) in totals.iter().zip(sums.as_chunks_mut::<16>().0) {
            *sums = pulp::cast(*total);
        }
    }
}

/// What both machines do alike, in 256 bits.
macro_rules! eight_lanes {
    () => {
        type Words = u32x8;
        type Floats = f32x8;

        #[inline(always)]
        fn run<R>(self, body: impl FnOnce() -> R) -> R {
            self.vectorize(Body(body))
        }

        #[inline(always)]
        fn load(self, bytes: &[u8; 32]) -> u32x8 {
            pulp::cast(*bytes)
        }

        #[inline(always)]
        fn splat(self, word: u32) -> u32x8 {
            self.splat_u32x8(word)
        }

        #[inline(always)]
        fn and(self, a: u32x8, b: u32x8) -> u32x8 {
            self.and_u32x8(a, b)
        }

        #[inline(always)]
        fn or(self, a: u32x8, b: u32x8) -> u32x8 {
            self.or_u32x8(a, b)
        }

        #[inline(always)]
        fn shift_left<const BITS: i32>(self, a: u32x8) -> u32x8 {
            self.shl_const_u32x8::<BITS>(a)
        }

        #[inline(always)]
        fn shift_right<const BITS: i32>(self, a: u32x8) -> u32x8 {
            self.shr_const_u32x8::<BITS>(a)
        }

        #[inline(always)]
        fn shift_right_signed<const BITS: i32>(self, a: u32x8) -> u32x8 {
            pulp::cast(self.shr_const_i32x8::<BITS>(pulp::cast(a)))
        }

        #[inline(always)]
        fn subtract(self, a: u32x8, b: u32x8) -> u32x8 {
            pulp::cast(self.avx2._mm256_sub_epi32(pulp::cast(a), pulp::cast(b)))
        }

        #[inline(always)]
        fn where_greater(self, a: u32x8, b: u32x8, then: u32x8, otherwise: u32x8) -> u32x8 {
            let mask = self.avx2._mm256_cmpgt_epi32(pulp::cast(a), pulp::cast(b));
            pulp::cast(self.avx2._mm256_blendv_epi8(pulp::cast(otherwise), pulp::cast(then), mask))
        }

        #[inline(always)]
        fn to_floats(self, a: u32x8) -> f32x8 {
            pulp::cast(self.avx._mm256_cvtepi32_ps(pulp::cast(a)))
        }

        #[inline(always)]
        fn as_floats(self, bits: u32x8) -> f32x8 {
            pulp::cast(bits)
        }

        #[inline(always)]
        fn as_words(self, a: f32x8) -> u32x8 {
            pulp::cast(a)
        }

        #[inline(always)]
        fn multiply(self, a: f32x8, b: f32x8) -> f32x8 {
            self.mul_f32x8(a, b)
        }

        #[inline(always)]
        fn look_up(self, table: &[f32; 16], index: u32x8) -> f32x8 {
            let [low, high]: [f32x8; 2] = pulp::cast(*table);
            let (index, low, high) = (pulp::cast(index), pulp::cast(low), pulp::cast(high));
            let low = self.avx2._mm256_permutevar8x32_ps(low, index);
            let high = self.avx2._mm256_permutevar8x32_ps(high, index);
            // Bit 3 of an index, as the sign that the blend goes by.
            let sign = self.avx2._mm256_slli_epi32::<28>(index);
            pulp::cast(self.avx._mm256_blendv_ps(low, high, pulp::cast(sign)))
        }

        #[inline(always)]
        fn store(self, a: f32x8, to: &mut [f32; 8]) {
            *to = pulp::cast(a);
        }

        #[inline(always)]
        fn prefetch(self, bytes: &[u8], at: usize) {
            self.sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(bytes.as_ptr().wrapping_add(at).cast());
        }
    };
}

impl Machine for V3 {
    eight_lanes!();

    #[inline(always)]
    fn transpose(self, rows: [u32x8; 8]) -> [u32x8; 8] {
        transpose(self, rows)
    }

    /// Four rows and two vectors of eight: as many sums as two units take to be busy.
    #[inline(always)]
    fn multiply_panel<const R: usize>(self, panel: &[f32], x: &[f32], sums: &mut Sums) {
        for vector in [0, 2, 4] {
            if R == 8 {
                multiply_vectors::<V3, R, 4, 2>(self, panel, x, (0, vector), sums);
                multiply_vectors::<V3, R, 4, 2>(self, panel, x, (4, vector), sums);
            } else {
                multiply_vectors::<V3, R, R, 2>(self, panel, x, (0, vector), sums);
            }
        }
    }
}

impl Machine for V4 {
    eight_lanes!();

    #[inline(always)]
    fn transpose(self, rows: [u32x8; 8]) -> [u32x8; 8] {
        transpose(*self, rows)
    }

    #[inline(always)]
    fn multiply_panel<const R: usize>(self, panel: &[f32], x: &[f32], sums: &mut Sums) {
        multiply_vectors::<V4, R, R, 3>(self, panel, x, (0, 0), sums);
    }

    #[inline(always)]
    fn multiply_pairs<const R: usize>(self, panel: &[f32], x: &[f32], sums: &mut Sums) {
        if is_x86_feature_detected!("avx512bf16") {
            // SAFETY: the machine has both features, one by the type and one as just found.
            unsafe { multiply_pairs::<R>(panel, x, sums) }
        } else {
            super::multiply_pairs::<R>(panel, x, sums);
        }
    }
}

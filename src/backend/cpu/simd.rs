//! Vector arithmetic on slices. Every sum has one order, fixed by the length alone, so that a row's result never
//! depends on what else is in the batch.

use pulp::{Arch, Simd, WithSimd};

/// Lanes of the sums in [`sum_by`], whatever the machine has.
const LANES: usize = 16;

/// Runs `body` with the machine's vector instructions; what is inlined into it is compiled for them.
#[inline(always)]
pub(super) fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Body<F> {
        type Output = R;

        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    Arch::new().dispatch(Body(body))
}

/// Σ f(x), in 16 interleaved partial sums.
#[inline(always)]
pub(super) fn sum_by(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += f(value);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += f(value);
    }
    sums.iter().sum()
}

/// e^x to about 1 unit in the last place, branch-free; 0 below the smallest normal number.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.0, 88.0);
    let n = (clamped * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-LN_2_HIGH, clamped);
    let r = n.mul_add(-LN_2_LOW, r);
    // Minimax polynomial of (e^r - 1 - r) / r² on |r| <= ln 2 / 2 (Cephes).
    let p = r.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    let p = r.mul_add(p, 8.333_452e-3);
    let p = r.mul_add(p, 4.166_579_6e-2);
    let p = r.mul_add(p, 0.166_666_65);
    let p = r.mul_add(p, 0.5);
    let p = (r * r).mul_add(p, r) + 1.0;
    let scale = f32::from_bits(((n as i32 + 127) as u32) << 23);
    if x < -87.0 { 0.0 } else { p * scale }
}

/// The error function, within 2e-7 (Abramowitz and Stegun 7.1.26 with refitted working in f32).
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let z = x.abs();
    let t = 1.0 / 0.327_591_1f32.mul_add(z, 1.0);
    let p = t.mul_add(1.061_405_4, -1.453_152);
    let p = t.mul_add(p, 1.421_413_7);
    let p = t.mul_add(p, -0.284_496_74);
    let p = t.mul_add(p, 0.254_829_6);
    let y = 1.0 - p * t * exp(-z * z);
    y.copysign(x)
}

/// x to σ(x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Dot products of `R` rows with `C` others, all of one length.
///
/// Loops stand where `map` would be shorter: a closure handed to a library function is compiled without the vector
/// instructions that this is inlined for.
#[inline(always)]
pub(super) fn dots<S: Simd, const R: usize, const C: usize>(simd: S, x: [&[f32]; R], w: [&[f32]; C]) -> [[f32; C]; R] {
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    let whole = x[0].len() - x[0].len() % S::F32_LANES;
    let mut x_body: [&[S::f32s]; R] = [&[]; R];
    let mut w_body: [&[S::f32s]; C] = [&[]; C];
    for r in 0..R {
        x_body[r] = S::as_simd_f32s(&x[r][..whole]).0;
    }
    for c in 0..C {
        w_body[c] = S::as_simd_f32s(&w[c][..whole]).0;
    }
    for k in 0..whole / S::F32_LANES {
        for c in 0..C {
            for r in 0..R {
                sums[r][c] = simd.mul_add_f32s(x_body[r][k], w_body[c][k], sums[r][c]);
            }
        }
    }
    if whole < x[0].len() {
        for c in 0..C {
            let w = simd.partial_load_f32s(&w[c][whole..]);
            for r in 0..R {
                sums[r][c] = simd.mul_add_f32s(simd.partial_load_f32s(&x[r][whole..]), w, sums[r][c]);
            }
        }
    }
    let mut totals = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            totals[r][c] = simd.reduce_sum_f32s(sums[r][c]);
        }
    }
    totals
}

/// Runs a kernel that is written for any vector width with the machine's own.
pub(super) fn dispatch<K: WithSimd>(kernel: K) -> K::Output {
    Arch::new().dispatch(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_range() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= 2e-7 * want, "exp({x})");
        }
        assert_eq!(exp(-1000.0), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_meets_known_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, want) in [(0.0, 0.0), (0.1, 0.112_462_916), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)]
        {
            assert!((erf(x) - want).abs() < 3e-7 && (erf(-x) + want).abs() < 3e-7, "erf({x}) = {}", erf(x));
        }
    }

    #[test]
    fn dots_do_not_depend_on_the_tile() {
        struct Both<'a>(&'a [Vec<f32>]);
        impl WithSimd for Both<'_> {
            type Output = bool;
            fn with_simd<S: Simd>(self, simd: S) -> bool {
                let rows: Vec<&[f32]> = self.0.iter().map(Vec::as_slice).collect();
                let tile = dots(simd, [rows[0], rows[1]], [rows[2], rows[3], rows[4]]);
                (0..2).all(|r| (0..3).all(|c| tile[r][c] == dots(simd, [rows[r]], [rows[2 + c]])[0][0]))
            }
        }
        for length in [1, 7, 16, 31, 64, 100] {
            let rows: Vec<Vec<f32>> =
                (0..5).map(|r| (0..length).map(|i| ((r * 31 + i * 17) % 23) as f32 * 0.1 - 1.0).collect()).collect();
            assert!(dispatch(Both(&rows)));
        }
    }
}

//! What matrix products need of a machine: eight weight rows at a time, turned and widened, and a block of sums. Every
//! machine gives the same bits; [`Portable`] says what they are.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::LazyLock;

/// Weight rows of a panel: its lines are three cache lines.
pub(super) const PANEL: usize = 48;
/// Rows of `x` that are multiplied at a time.
pub(super) const STRIP: usize = 8;

/// Sums of up to [`STRIP`] rows of `x` with a panel.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Sums(pub [[f32; PANEL]; STRIP]);

impl Sums {
    pub const ZERO: Sums = Sums([[0.0; PANEL]; STRIP]);
}

/// Vectors of eight 32-bit lanes, and the kernel over panels.
pub(super) trait Machine: Copy + Send + Sync {
    /// Eight words; how they are read is each method's own business.
    type Words: Copy;
    /// Eight f32.
    type Floats: Copy;

    /// Runs `body`, compiled for this machine with all that is inlined into it.
    fn run<R>(self, body: impl FnOnce() -> R) -> R;

    /// Eight little-endian words at any alignment.
    fn load(self, bytes: &[u8; 32]) -> Self::Words;
    /// Word i of vector j to word j of vector i.
    fn transpose(self, rows: [Self::Words; 8]) -> [Self::Words; 8];
    fn splat(self, word: u32) -> Self::Words;
    fn and(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn shift_left<const BITS: i32>(self, a: Self::Words) -> Self::Words;
    /// Zeros come in from above.
    fn shift_right<const BITS: i32>(self, a: Self::Words) -> Self::Words;
    /// Copies of the highest bit come in from above.
    fn shift_right_signed<const BITS: i32>(self, a: Self::Words) -> Self::Words;
    fn subtract(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `then` where a > b, as i32; else `otherwise`.
    fn where_greater(self, a: Self::Words, b: Self::Words, then: Self::Words, otherwise: Self::Words) -> Self::Words;
    /// The value of each i32.
    fn to_floats(self, a: Self::Words) -> Self::Floats;
    /// The f32 with these bits.
    fn as_floats(self, bits: Self::Words) -> Self::Floats;
    fn as_words(self, a: Self::Floats) -> Self::Words;
    fn multiply(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `table[index]` of each index 0..=15.
    fn look_up(self, table: &[f32; 16], index: Self::Words) -> Self::Floats;
    fn store(self, a: Self::Floats, to: &mut [f32; 8]);
    /// Has the cache line at so many bytes past the start of `bytes`, or past its end, come to the second-level cache.
    fn prefetch(self, bytes: &[u8], at: usize);

    /// Adds to each sum of row r and feature c the products `x[k][r] * panel[k][c]`, k ascending, each fused with its
    /// addition. `panel` has lines of [`PANEL`], `x` of `R`, as many of them.
    fn multiply_panel<const R: usize>(self, panel: &[f32], x: &[f32], sums: &mut Sums);

    /// The same where each of the 32 bits of `panel` and `x` are a pair of bf16: of each pair first the product of the
    /// upper halves is added, then that of the lower ones. Numbers and sums below the smallest normal f32 are zero.
    #[inline(always)]
    fn multiply_pairs<const R: usize>(self, panel: &[f32], x: &[f32], sums: &mut Sums) {
        multiply_pairs::<R>(panel, x, sums);
    }
}

/// See [`Machine::multiply_pairs`].
#[inline(always)]
fn multiply_pairs<const R: usize>(panel: &[f32], x: &[f32], sums: &mut Sums) {
    for (line, x) in panel.as_chunks::<PANEL>().0.iter().zip(x.as_chunks::<R>().0) {
        for (sums, &x) in sums.0.iter_mut().zip(x) {
            for (sum, &w) in sums.iter_mut().zip(line) {
                *sum = flushed(upper(x).mul_add(upper(w), *sum));
                *sum = flushed(lower(x).mul_add(lower(w), *sum));
            }
        }
    }
}

/// The bf16 in the upper half of these 32 bits.
#[inline(always)]
fn upper(bits: f32) -> f32 {
    flushed(f32::from_bits(bits.to_bits() & 0xffff_0000))
}

/// The bf16 in the lower half.
#[inline(always)]
fn lower(bits: f32) -> f32 {
    flushed(f32::from_bits(bits.to_bits() << 16))
}

/// What is below the smallest normal number as zero, with its sign.
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { f32::from_bits(x.to_bits() & 0x8000_0000) } else { x }
}

/// Plain Rust, for machines without a kernel of their own.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Each lane by itself.
#[inline(always)]
fn each<A: Copy, B: Copy, C: Default + Copy>(a: [A; 8], b: [B; 8], f: impl Fn(A, B) -> C) -> [C; 8] {
    let mut out = [C::default(); 8];
    for i in 0..8 {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Machine for Portable {
    type Words = [u32; 8];
    type Floats = [f32; 8];

    #[inline(always)]
    fn run<R>(self, body: impl FnOnce() -> R) -> R {
        body()
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; 32]) -> [u32; 8] {
        let words = bytes.as_chunks::<4>().0;
        std::array::from_fn(|i| u32::from_le_bytes(words[i]))
    }

    #[inline(always)]
    fn transpose(self, rows: [[u32; 8]; 8]) -> [[u32; 8]; 8] {
        let mut out = [[0; 8]; 8];
        for (j, row) in rows.iter().enumerate() {
            for (i, word) in row.iter().enumerate() {
                out[i][j] = *word;
            }
        }
        out
    }

    #[inline(always)]
    fn splat(self, word: u32) -> [u32; 8] {
        [word; 8]
    }

    #[inline(always)]
    fn and(self, a: [u32; 8], b: [u32; 8]) -> [u32; 8] {
        each(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, a: [u32; 8], b: [u32; 8]) -> [u32; 8] {
        each(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: [u32; 8]) -> [u32; 8] {
        a.map(|a| a << BITS)
    }

    #[inline(always)]
    fn shift_right<const BITS: i32>(self, a: [u32; 8]) -> [u32; 8] {
        a.map(|a| a >> BITS)
    }

    #[inline(always)]
    fn shift_right_signed<const BITS: i32>(self, a: [u32; 8]) -> [u32; 8] {
        a.map(|a| (a as i32 >> BITS) as u32)
    }

    #[inline(always)]
    fn subtract(self, a: [u32; 8], b: [u32; 8]) -> [u32; 8] {
        each(a, b, u32::wrapping_sub)
    }

    #[inline(always)]
    fn where_greater(self, a: [u32; 8], b: [u32; 8], then: [u32; 8], otherwise: [u32; 8]) -> [u32; 8] {
        let mut out = otherwise;
        for i in 0..8 {
            if a[i] as i32 > b[i] as i32 {
                out[i] = then[i];
            }
        }
        out
    }

    #[inline(always)]
    fn to_floats(self, a: [u32; 8]) -> [f32; 8] {
        a.map(|a| a as i32 as f32)
    }

    #[inline(always)]
    fn as_floats(self, bits: [u32; 8]) -> [f32; 8] {
        bits.map(f32::from_bits)
    }

    #[inline(always)]
    fn as_words(self, a: [f32; 8]) -> [u32; 8] {
        a.map(f32::to_bits)
    }

    #[inline(always)]
    fn multiply(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn look_up(self, table: &[f32; 16], index: [u32; 8]) -> [f32; 8] {
        index.map(|index| table[index as usize % 16])
    }

    #[inline(always)]
    fn store(self, a: [f32; 8], to: &mut [f32; 8]) {
        *to = a;
    }

    #[inline(always)]
    fn prefetch(self, _: &[u8], _: usize) {}

    #[inline(always)]
    fn multiply_panel<const R: usize>(self, panel: &[f32], x: &[f32], sums: &mut Sums) {
        for (line, x) in panel.as_chunks::<PANEL>().0.iter().zip(x.as_chunks::<R>().0) {
            for (sums, &x) in sums.0.iter_mut().zip(x) {
                for (sum, &w) in sums.iter_mut().zip(line) {
                    *sum = x.mul_add(w, *sum);
                }
            }
        }
    }
}

/// The machines that there are kernels for.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Portable(Portable),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "AVX2",
            Kind::Portable(_) => "portable",
        })
    }
}

impl Kind {
    /// All that this machine is, the fastest first.
    pub fn all() -> Vec<Kind> {
        #[allow(unused_mut, reason = "other architectures have one")]
        let mut kinds = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            kinds.extend(pulp::x86::V4::try_new().map(Kind::Avx512));
            kinds.extend(pulp::x86::V3::try_new().map(Kind::Avx2));
        }
        kinds.push(Kind::Portable(Portable));
        kinds
    }

    /// The fastest.
    pub fn best() -> Kind {
        static BEST: LazyLock<Kind> = LazyLock::new(|| Kind::all()[0]);
        *BEST
    }
}

/// Runs an expression over the machine of a [`Kind`], whose type it is generic in.
macro_rules! on {
    ($kind:expr, $machine:ident => $body:expr) => {
        match $kind {
            #[cfg(target_arch = "x86_64")]
            $crate::backend::cpu::machine::Kind::Avx512($machine) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::backend::cpu::machine::Kind::Avx2($machine) => $body,
            $crate::backend::cpu::machine::Kind::Portable($machine) => $body,
        }
    };
}
pub(super) use on;

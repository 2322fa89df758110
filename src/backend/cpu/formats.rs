//! Weights as they lie in memory, to panels of f32: eight rows at a time, turned a vector of words at a time, each word
//! taken apart by its format. What comes out is to the bit the matrix that the numbers stand for.

use std::ops::Range;

use super::machine::{Machine, PANEL};
use super::matrix::{Source, Values};
use crate::checkpoint::Dtype;
use crate::checkpoint::quantised::{Codes, Quantised};

/// Weight rows that are turned together.
const OCTET: usize = 8;
/// Bytes of a row that are turned together: eight words.
const STEP: usize = 32;
/// How far ahead in a row bytes are asked for.
const AHEAD: usize = 1024;

/// How a word of 32 bits is taken apart.
trait Format<M: Machine>: Copy {
    /// Columns in a word.
    const COLUMNS: usize;
    /// Whether values have scales.
    const SCALED: bool;

    /// The values of column `column` of eight words, before their scales.
    fn value(self, machine: M, words: M::Words, zeros: M::Words, column: usize) -> M::Floats;
}

#[derive(Clone, Copy)]
struct F32;

impl<M: Machine> Format<M> for F32 {
    const COLUMNS: usize = 1;
    const SCALED: bool = false;

    #[inline(always)]
    fn value(self, machine: M, words: M::Words, _: M::Words, _: usize) -> M::Floats {
        machine.as_floats(words)
    }
}

/// The upper half of an f32.
#[derive(Clone, Copy)]
struct Bf16;

impl<M: Machine> Format<M> for Bf16 {
    const COLUMNS: usize = 2;
    const SCALED: bool = false;

    #[inline(always)]
    fn value(self, machine: M, words: M::Words, _: M::Words, column: usize) -> M::Floats {
        machine.as_floats(match column {
            0 => machine.shift_left::<16>(words),
            _ => machine.and(words, machine.splat(0xffff_0000)),
        })
    }
}

#[derive(Clone, Copy)]
struct F16;

impl<M: Machine> Format<M> for F16 {
    const COLUMNS: usize = 2;
    const SCALED: bool = false;

    /// The exponent is rebased by a multiplication, which also makes subnormal numbers right; infinities and NaN keep
    /// their meaning.
    #[inline(always)]
    fn value(self, machine: M, words: M::Words, _: M::Words, column: usize) -> M::Floats {
        const REBASE: u32 = (254 - 15) << 23;
        let upper = match column {
            0 => machine.shift_left::<16>(words),
            _ => words,
        };
        let sign = machine.and(upper, machine.splat(0x8000_0000));
        let rest = machine.shift_right::<3>(machine.and(upper, machine.splat(0x7fff_0000)));
        let rebased = machine.multiply(machine.as_floats(rest), machine.as_floats(machine.splat(REBASE)));
        let infinite = machine.or(rest, machine.splat(0x7f80_0000));
        let largest = machine.splat(0x0f7f_ffff);
        let magnitude = machine.where_greater(rest, largest, infinite, machine.as_words(rebased));
        machine.as_floats(machine.or(sign, magnitude))
    }
}

#[derive(Clone, Copy)]
struct Int8;

impl<M: Machine> Format<M> for Int8 {
    const COLUMNS: usize = 4;
    const SCALED: bool = true;

    #[inline(always)]
    fn value(self, machine: M, words: M::Words, _: M::Words, column: usize) -> M::Floats {
        let upper = match column {
            0 => machine.shift_left::<24>(words),
            1 => machine.shift_left::<16>(words),
            2 => machine.shift_left::<8>(words),
            _ => words,
        };
        machine.to_floats(machine.shift_right_signed::<24>(upper))
    }
}

/// e4m3 as the f32 of value * 2^-120; scales are multiplied by 2^120, which is exact.
#[derive(Clone, Copy)]
struct Fp8;

impl<M: Machine> Format<M> for Fp8 {
    const COLUMNS: usize = 4;
    const SCALED: bool = true;

    #[inline(always)]
    fn value(self, machine: M, words: M::Words, _: M::Words, column: usize) -> M::Floats {
        let upper = match column {
            0 => machine.shift_left::<24>(words),
            1 => machine.shift_left::<16>(words),
            2 => machine.shift_left::<8>(words),
            _ => words,
        };
        let sign = machine.and(upper, machine.splat(0x8000_0000));
        let magnitude = machine.and(machine.shift_right::<4>(upper), machine.splat(0x07f0_0000));
        machine.as_floats(machine.or(sign, magnitude))
    }
}

/// Nibble `column` of each word.
#[inline(always)]
fn nibble<M: Machine>(machine: M, words: M::Words, column: usize) -> M::Words {
    let shifted = match column {
        0 => words,
        1 => machine.shift_right::<4>(words),
        2 => machine.shift_right::<8>(words),
        3 => machine.shift_right::<12>(words),
        4 => machine.shift_right::<16>(words),
        5 => machine.shift_right::<20>(words),
        6 => machine.shift_right::<24>(words),
        _ => machine.shift_right::<28>(words),
    };
    machine.and(shifted, machine.splat(15))
}

#[derive(Clone, Copy)]
struct Int4;

impl<M: Machine> Format<M> for Int4 {
    const COLUMNS: usize = 8;
    const SCALED: bool = true;

    #[inline(always)]
    fn value(self, machine: M, words: M::Words, zeros: M::Words, column: usize) -> M::Floats {
        machine.to_floats(machine.subtract(nibble(machine, words, column), zeros))
    }
}

#[derive(Clone, Copy)]
struct Table<'a>(&'a [f32; 16]);

impl<M: Machine> Format<M> for Table<'_> {
    const COLUMNS: usize = 8;
    const SCALED: bool = true;

    #[inline(always)]
    fn value(self, machine: M, words: M::Words, _: M::Words, column: usize) -> M::Floats {
        machine.look_up(self.0, nibble(machine, words, column))
    }
}

/// Scales and zero points of a matrix.
#[derive(Clone, Copy)]
struct Scales<'a> {
    scales: &'a [f32],
    zeros: Option<&'a [u8]>,
    /// Columns of a group, and groups of a row.
    group: usize,
    groups: usize,
    /// Every scale is multiplied by this power of two.
    factor: f32,
}

impl Scales<'_> {
    const NONE: Scales<'static> = Scales { scales: &[], zeros: None, group: usize::MAX, groups: 0, factor: 1.0 };

    /// Those of a group for eight rows, of which the last may stand for those past the end.
    #[inline(always)]
    fn of<M: Machine>(&self, machine: M, rows: [usize; OCTET], group: usize) -> (M::Floats, M::Words) {
        let (mut scales, mut zeros) = ([0; STEP], [0; STEP]);
        for (i, row) in rows.into_iter().enumerate() {
            let at = row * self.groups + group;
            scales[4 * i..4 * i + 4].copy_from_slice(&(self.scales[at] * self.factor).to_le_bytes());
            zeros[4 * i] = self.zeros.map_or(8, |zeros| zeros[at]);
        }
        (machine.as_floats(machine.load(&scales)), machine.load(&zeros))
    }
}

/// Whether the words of a matrix can be taken apart where they lie: else its rows are widened first.
pub(super) fn is_packed_in_place(quantised: &Quantised) -> bool {
    let columns = match quantised.codes {
        Codes::Int8 | Codes::Fp8 => 4,
        Codes::Int4 | Codes::Table(_) => 8,
    };
    quantised.order.is_none() && (quantised.group == quantised.columns || quantised.group.is_multiple_of(columns))
}

/// Writes some columns of up to [`PANEL`] rows to lines of a panel, one line a column. The columns begin at a multiple
/// of 64.
pub(super) fn pack<M: Machine>(machine: M, source: &Source, columns: Range<usize>, panel: &mut [f32]) {
    let bits = source.values.bits();
    let bytes = source.values.bytes();
    let rows = Packed { source, bytes, row_bytes: source.columns * bits / 8, columns };
    match source.values {
        Values::Plain(Dtype::F32, _) => rows.pack(machine, F32, Scales::NONE, panel),
        Values::Plain(Dtype::Bf16, _) => rows.pack(machine, Bf16, Scales::NONE, panel),
        Values::Plain(Dtype::F16, _) => rows.pack(machine, F16, Scales::NONE, panel),
        Values::Quantised(quantised) => {
            let Quantised { scales, zeros, group, .. } = quantised;
            let scales = Scales { scales, zeros, group, groups: source.columns / group, factor: 1.0 };
            match quantised.codes {
                Codes::Int8 => rows.pack(machine, Int8, scales, panel),
                Codes::Fp8 => {
                    let factor = f32::from_bits((127 + 120) << 23);
                    rows.pack(machine, Fp8, Scales { factor, ..scales }, panel);
                }
                Codes::Int4 => rows.pack(machine, Int4, scales, panel),
                Codes::Table(table) => rows.pack(machine, Table(table), scales, panel),
            }
        }
    }
}

/// Bytes of rows on their way to a panel.
struct Packed<'a> {
    source: &'a Source<'a>,
    bytes: &'a [u8],
    row_bytes: usize,
    columns: Range<usize>,
}

impl Packed<'_> {
    fn pack<M: Machine, F: Format<M>>(&self, machine: M, format: F, scales: Scales, panel: &mut [f32]) {
        machine.run(
            #[inline(always)]
            || {
                for first in (0..self.source.rows.len()).step_by(OCTET) {
                    self.octet(machine, format, scales, first, panel);
                }
            },
        );
    }

    #[inline(always)]
    fn octet<M: Machine, F: Format<M>>(&self, machine: M, format: F, scales: Scales, first: usize, panel: &mut [f32]) {
        // Rows past the end are the last one again; their sums are never looked at.
        let last = self.source.rows.len() - 1;
        let rows: [usize; OCTET] = std::array::from_fn(|i| self.source.rows.start + (first + i).min(last));
        assert!(first <= PANEL - OCTET);
        let mut lines: [&[u8]; OCTET] = [&[]; OCTET];
        for (line, row) in lines.iter_mut().zip(rows) {
            *line = &self.bytes[row * self.row_bytes..][..self.row_bytes];
        }
        let mut groups =
            Groups { scales, rows, end: 0, current: (machine.as_floats(machine.splat(0)), machine.splat(0)) };
        let step = OCTET * F::COLUMNS;
        let starts = (self.columns.start..).step_by(step);
        for (panel, at) in panel.as_chunks_mut::<PANEL>().0.chunks_mut(step).zip(starts) {
            let from = at / F::COLUMNS * 4;
            let mut words = [machine.splat(0); OCTET];
            for (words, line) in words.iter_mut().zip(lines) {
                *words = match line.get(from..from + STEP) {
                    Some(bytes) => machine.load(bytes.first_chunk().expect("a step of bytes")),
                    None => load_last(machine, &line[from..]),
                };
            }
            if from.is_multiple_of(64) {
                // Past the end of a row, the row that comes after all of these: the next task's.
                let ahead = from + AHEAD;
                let past = if ahead < self.row_bytes { 0 } else { (self.source.rows.len() - 1) * self.row_bytes };
                for line in lines {
                    machine.prefetch(line, ahead + past);
                }
            }
            let words = machine.transpose(words);
            // A step of known length needs no checks inside.
            if panel.len() == step {
                take_apart(machine, format, &words, at, &mut groups, first, &mut panel[..step]);
            } else {
                take_apart(machine, format, &words, at, &mut groups, first, panel);
            }
        }
    }
}

/// The scales of eight rows, up to the end of a group.
struct Groups<'a, M: Machine> {
    scales: Scales<'a>,
    rows: [usize; OCTET],
    /// The first column of the next group.
    end: usize,
    current: (M::Floats, M::Words),
}

/// The columns of eight words, from column `at` on, to eight features of as many lines of a panel.
#[inline(always)]
fn take_apart<M: Machine, F: Format<M>>(
    machine: M,
    format: F,
    words: &[M::Words; OCTET],
    at: usize,
    groups: &mut Groups<M>,
    first: usize,
    panel: &mut [[f32; PANEL]],
) {
    for (index, &words) in words.iter().enumerate() {
        let at = at + index * F::COLUMNS;
        if F::SCALED && at >= groups.end && index * F::COLUMNS < panel.len() {
            let group = at / groups.scales.group;
            groups.current = groups.scales.of(machine, groups.rows, group);
            groups.end = (group + 1) * groups.scales.group;
        }
        for column in 0..F::COLUMNS {
            if let Some(line) = panel.get_mut(index * F::COLUMNS + column) {
                let value = format.value(machine, words, groups.current.1, column);
                let value = if F::SCALED { machine.multiply(value, groups.current.0) } else { value };
                machine.store(value, line[first..].first_chunk_mut().expect("panels hold whole octets"));
            }
        }
    }
}

/// The bytes at the end of a row, and zeros.
#[cold]
#[inline(always)]
fn load_last<M: Machine>(machine: M, bytes: &[u8]) -> M::Words {
    let mut filled = [0; STEP];
    filled[..bytes.len()].copy_from_slice(bytes);
    machine.load(&filled)
}

//! The left operand of a matrix product in strips of rows, a line a column: what a kernel reads in one stream.

use rayon::prelude::*;

use super::machine::{Machine, STRIP};
use super::simd::vectorised;

/// Rows of `x`, strip by strip. A strip has a line of [`STRIP`] values for each column; the last one has shorter lines
/// if a power of two holds the rows that are left. What is no row is zero.
#[derive(Debug, Default)]
pub(super) struct Strips {
    values: Vec<f32>,
    columns: usize,
    rows: usize,
}

/// Values of a line of a strip with so many rows.
fn line(rows: usize) -> usize {
    rows.min(STRIP).next_power_of_two()
}

impl Strips {
    /// Takes in these rows, each of so many columns.
    pub fn fill<M: Machine>(&mut self, machine: M, x: &[&[f32]], columns: usize, parallel: bool) {
        (self.columns, self.rows) = (columns, x.len());
        let whole = x.len() / STRIP * STRIP;
        let size = columns * (whole + if whole < x.len() { line(x.len() - whole) } else { 0 });
        self.values.resize(size.max(self.values.len()), 0.0);
        let strips = |values: &mut [f32]| {
            let fill = |(rows, strip): (&[&[f32]], &mut [f32])| fill_strip(machine, rows, columns, strip);
            if parallel {
                x.par_chunks(STRIP).zip(values.par_chunks_mut(STRIP * columns)).for_each(fill);
            } else {
                x.chunks(STRIP).zip(values.chunks_mut(STRIP * columns)).for_each(fill);
            }
        };
        strips(&mut self.values[..size]);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.div_ceil(STRIP)
    }

    /// Rows of a strip.
    pub fn rows(&self, strip: usize) -> usize {
        STRIP.min(self.rows - strip * STRIP)
    }

    /// The lines of some columns of a strip, and how many values each has.
    pub fn lines(&self, strip: usize, columns: &std::ops::Range<usize>) -> (usize, &[f32]) {
        let line = line(self.rows(strip));
        (line, &self.values[strip * STRIP * self.columns..][columns.start * line..columns.end * line])
    }
}

/// Rows rounded to bf16 in pairs, to the nearest, ties to even: of two columns the second one is the upper half of the
/// 32 bits. Numbers too small for normal ones are zero.
pub(super) fn pairs(x: &[&[f32]], parallel: bool) -> Vec<f32> {
    let words = x[0].len() / 2;
    let mut out = vec![0.0; x.len() * words];
    let round = |(row, out): (&&[f32], &mut [f32])| {
        vectorised(
            #[inline(always)]
            || {
                for (out, pair) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                    *out = f32::from_bits(rounded(pair[0]) >> 16 | rounded(pair[1]));
                }
            },
        );
    };
    if parallel {
        x.par_iter().zip(out.par_chunks_exact_mut(words)).for_each(round);
    } else {
        x.iter().zip(out.chunks_exact_mut(words)).for_each(round);
    }
    out
}

/// The f32 with the bits of the nearest bf16.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    // A fraction that would be lost, or make an infinity of it, keeps NaN what it is.
    let nearest = if x.is_nan() { bits & 0xffff_0000 | 0x0040_0000 } else { nearest };
    if nearest & 0x7f80_0000 == 0 { nearest & 0x8000_0000 } else { nearest }
}

/// One strip of up to [`STRIP`] rows.
fn fill_strip<M: Machine>(machine: M, rows: &[&[f32]], columns: usize, strip: &mut [f32]) {
    let line = line(rows.len());
    if line == 1 {
        return strip.copy_from_slice(&rows[0][..columns]);
    }
    if line < STRIP {
        for (column, line) in strip.chunks_exact_mut(line).enumerate() {
            line.iter_mut().enumerate().for_each(|(r, to)| *to = rows.get(r).map_or(0.0, |row| row[column]));
        }
        return;
    }
    machine.run(
        #[inline(always)]
        || {
            let (squares, rest) = strip.as_chunks_mut::<{ STRIP * 8 }>();
            let whole = squares.len() * 8;
            for (index, square) in squares.iter_mut().enumerate() {
                let mut words = [machine.splat(0); STRIP];
                for (words, row) in words.iter_mut().zip(rows) {
                    let values: &[f32; 8] = row[index * 8..].first_chunk().expect("a square has eight columns");
                    *words = machine.load(bytemuck::cast_ref(values));
                }
                for (to, words) in square.as_chunks_mut().0.iter_mut().zip(machine.transpose(words)) {
                    machine.store(machine.as_floats(words), to);
                }
            }
            for (line, column) in rest.chunks_exact_mut(STRIP).zip(whole..) {
                line.iter_mut().enumerate().for_each(|(r, to)| *to = rows.get(r).map_or(0.0, |row| row[column]));
            }
        },
    );
}

//! The matrix product x Wᵀ in one order of sums, on any machine and for weights in any format: columns in blocks of
//! 256; in a block one chain of fused multiply-adds for each output, columns ascending, from zero; the sums of blocks
//! added in ascending order, the first one taken as it is.
//!
//! Lanes run over weight rows. A task packs some of them, widened, to a panel (column, weight row) and multiplies it
//! with strips (column, row of x); what comes out is finished row by row while it is in the first-level cache.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::formats::{is_packed_in_place, pack};
use super::machine::{Kind, Machine, PANEL, STRIP, Sums, on};
use super::matrix::{Matrix, Source, Values};
use super::panels::{Strips, pairs};
use crate::checkpoint::Dtype;

/// Columns of a block.
const BLOCK: usize = 256;
/// Columns that are packed at a time for a single strip: their panel stays in the first-level cache, and memory is read
/// on while it is multiplied.
const FEW_COLUMNS: usize = 64;
/// Products with fewer multiply-adds stay on one thread: waking another costs more.
const PARALLEL_MIN: usize = 1 << 17;
/// Fewest rows of `x` that a task has of more, so that packing is not what takes its time.
const TASK_ROWS_MIN: usize = 64;

/// What becomes of a row of a product: its number, which columns these are, their sums, those of the matrix' second
/// half if it is paired, and where the results go.
pub(super) type Finish<'a> = dyn Fn(usize, Range<usize>, &mut [f32], &mut [f32], &mut [f32]) + Sync + 'a;

/// A product to compute.
pub(super) struct Product<'a> {
    pub weight: &'a Matrix<'a>,
    /// Columns of the result.
    pub width: usize,
    /// Whether the weight has as many rows again, whose sums come to [`Finish`] beside those of the first.
    pub paired: bool,
    pub finish: &'a Finish<'a>,
}

/// Some rows and columns of the result.
struct Task<'o> {
    strips: Range<usize>,
    columns: Range<usize>,
    /// These columns of each row.
    out: Vec<&'o mut [f32]>,
}

/// A worker's memory, kept: memory as large as this is given back when it is freed, and costs more to get anew than to
/// fill.
struct Scratch {
    /// Lines of a panel.
    panel: Vec<Line>,
    /// The sums of each strip; behind them those of the second half.
    sums: Vec<Sums>,
    /// Rows of weights that cannot be packed where they lie.
    widened: Vec<f32>,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { panel: Vec::new(), sums: Vec::new(), widened: Vec::new() }) };
}

impl Product<'_> {
    /// The product with `x`, finished to `out` (rows of x, width). `strips` is memory kept between calls.
    pub fn run(&self, kind: Kind, x: &[&[f32]], strips: &mut Strips, out: &mut [f32]) {
        on!(kind, machine => self.run_on(machine, false, x, strips, out));
    }

    /// The product of a matrix of [`Matrix::pairs`] with `x`, rounded to bf16: blocks are as many columns as ever, and
    /// of a pair the second column is added first.
    pub fn run_pairs(&self, kind: Kind, x: &[&[f32]], strips: &mut Strips, out: &mut [f32]) {
        let words = self.weight.columns;
        let rounded = pairs(x, x.len() * words >= PARALLEL_MIN);
        let x: Vec<&[f32]> = rounded.chunks_exact(words).collect();
        on!(kind, machine => self.run_on(machine, true, &x, strips, out));
    }

    fn run_on<M: Machine>(&self, machine: M, pairs: bool, x: &[&[f32]], strips: &mut Strips, out: &mut [f32]) {
        let columns = self.weight.columns;
        assert_eq!(out.len(), x.len() * self.width);
        let parallel = out.len() * columns >= PARALLEL_MIN;
        strips.fill(machine, x, columns, parallel);
        let strips = &*strips;
        let task = |task: Task| SCRATCH.with_borrow_mut(|scratch| self.run_task(machine, pairs, strips, task, scratch));
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        let tasks = self.tasks(strips.count(), threads, out);
        if parallel {
            tasks.into_par_iter().with_max_len(1).for_each(task);
        } else {
            tasks.into_iter().for_each(task);
        }
    }

    /// Cuts the result: into panels of columns that end where a part of the matrix does, and if these are too few for
    /// all threads, into rows.
    fn tasks<'o>(&self, strips: usize, threads: usize, out: &'o mut [f32]) -> Vec<Task<'o>> {
        let cuts = self.cuts(self.width.div_ceil(threads).next_multiple_of(8).clamp(8, PANEL));
        let parts = (2 * threads).div_ceil(cuts.len()).min(strips / (TASK_ROWS_MIN / STRIP)).max(1);
        let part = strips.div_ceil(parts);
        let mut tasks: Vec<Task> = Vec::new();
        for (index, out) in out.chunks_mut(part * STRIP * self.width).enumerate() {
            let first = tasks.len();
            let strips = index * part..strips.min((index + 1) * part);
            tasks.extend(cuts.iter().map(|columns| Task {
                strips: strips.clone(),
                columns: columns.clone(),
                out: Vec::with_capacity(strips.len() * STRIP),
            }));
            for mut row in out.chunks_exact_mut(self.width) {
                for task in &mut tasks[first..] {
                    task.out.push(row.split_off_mut(..task.columns.len()).expect("cuts make up the width"));
                }
            }
        }
        tasks
    }

    /// Columns of the result, at most so many together, none of which cross the end of a part.
    fn cuts(&self, most: usize) -> Vec<Range<usize>> {
        let mut ends: Vec<usize> = vec![self.width];
        let mut row = 0;
        for (rows, _) in &self.weight.parts {
            row += rows;
            ends.push(row % self.width);
        }
        ends.sort_unstable();
        let mut cuts = Vec::new();
        let mut from = 0;
        for end in ends {
            while from < end {
                let to = end.min(from + most);
                cuts.push(from..to);
                from = to;
            }
        }
        cuts
    }

    fn run_task<M: Machine>(&self, machine: M, pairs: bool, strips: &Strips, task: Task, scratch: &mut Scratch) {
        let Task { strips: own, columns, mut out } = task;
        let Scratch { panel, sums, widened } = scratch;
        panel.resize(BLOCK * PANEL / 16, Line([0.0; 16]));
        let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
        let halves = if self.paired { 2 } else { 1 };
        sums.resize(sums.len().max(halves * own.len()), Sums::ZERO);
        let (first, second) = sums[..halves * own.len()].split_at_mut(own.len());
        let multiply = Multiply { machine, pairs, strips, own: own.clone() };
        let mut finish = |index: usize, first: &mut Sums, second: &mut Sums| {
            let row = (own.start + index) * STRIP;
            let out = out[index * STRIP..].iter_mut().take(STRIP);
            for (r, ((out, first), second)) in out.zip(&mut first.0).zip(&mut second.0).enumerate() {
                let (first, second) = (&mut first[..columns.len()], &mut second[..columns.len()]);
                (self.finish)(row + r, columns.clone(), first, second, out);
            }
        };
        if self.paired {
            let beyond = self.width + columns.start..self.width + columns.end;
            multiply.run(&widen(self.weight.source(beyond), widened), panel, second, |_, _| {});
        }
        let mut none = Sums::ZERO;
        multiply.run(&widen(self.weight.source(columns.clone()), widened), panel, first, |index, sums| {
            finish(index, sums, second.get_mut(index).unwrap_or(&mut none));
        });
    }
}

/// The dot products of `x` with each row of `w`, which has as many columns: (rows of x, rows of w).
#[cfg(feature = "eval")]
pub(crate) fn dot_products(x: &[&[f32]], w: &[f32], out: &mut [f32]) {
    let columns = x[0].len();
    let width = w.len() / columns;
    let weight = Matrix { parts: vec![(width, Values::of_f32(w))], columns };
    let finish = |_, _, values: &mut [f32], _: &mut [f32], out: &mut [f32]| out.copy_from_slice(values);
    Product { weight: &weight, width, paired: false, finish: &finish }.run(
        Kind::best(),
        x,
        &mut Strips::default(),
        out,
    );
}

/// The rows where they lie, or widened in `scratch` if they cannot be packed from there.
fn widen<'a>(source: Source<'a>, scratch: &'a mut Vec<f32>) -> Source<'a> {
    match source.values {
        Values::Quantised(quantised) if !is_packed_in_place(&quantised) => {
            scratch.resize(source.rows.len() * source.columns, 0.0);
            let rows = scratch.chunks_exact_mut(source.columns);
            source.rows.clone().zip(rows).for_each(|(row, out)| quantised.widen(row, out));
            let values = Values::Plain(Dtype::F32, bytemuck::cast_slice(scratch));
            Source { values, columns: source.columns, rows: 0..source.rows.len() }
        }
        _ => source,
    }
}

/// Some strips, which are multiplied with one panel of weight rows after the other.
struct Multiply<'a, M> {
    machine: M,
    /// Whether columns are pairs of bf16.
    pairs: bool,
    strips: &'a Strips,
    own: Range<usize>,
}

impl<M: Machine> Multiply<'_, M> {
    /// The sums of each strip with these weight rows. `done` has each when it is whole.
    fn run(&self, source: &Source, panel: &mut [f32], sums: &mut [Sums], mut done: impl FnMut(usize, &mut Sums)) {
        // With one strip the sums of a block go on from panel to panel; else a panel is a whole block.
        let block = if self.pairs { BLOCK / 2 } else { BLOCK };
        let together = if self.own.len() == 1 { FEW_COLUMNS } else { block };
        let mut of_block = Sums::ZERO;
        for from in (0..source.columns).step_by(together) {
            let columns = from..source.columns.min(from + together);
            let panel = &mut panel[..columns.len() * PANEL];
            pack(self.machine, source, columns.clone(), panel);
            let ends_block = columns.end == source.columns || columns.end.is_multiple_of(block);
            for (index, total) in sums.iter_mut().enumerate() {
                if from.is_multiple_of(block) {
                    of_block = Sums::ZERO;
                }
                let (line, x) = self.strips.lines(self.own.start + index, &columns);
                match line {
                    1 => self.multiply::<1>(panel, x, &mut of_block),
                    2 => self.multiply::<2>(panel, x, &mut of_block),
                    4 => self.multiply::<4>(panel, x, &mut of_block),
                    _ => self.multiply::<STRIP>(panel, x, &mut of_block),
                }
                if ends_block && from < block {
                    total.clone_from(&of_block);
                } else if ends_block {
                    add(total, &of_block);
                }
                if columns.end == source.columns {
                    done(index, total);
                }
            }
        }
    }

    fn multiply<const R: usize>(&self, panel: &[f32], x: &[f32], sums: &mut Sums) {
        let Multiply { machine, pairs, .. } = *self;
        machine.run(
            #[inline(always)]
            || match pairs {
                true => machine.multiply_pairs::<R>(panel, x, sums),
                false => machine.multiply_panel::<R>(panel, x, sums),
            },
        );
    }
}

fn add(total: &mut Sums, sums: &Sums) {
    let total = total.0.as_flattened_mut();
    total.iter_mut().zip(sums.0.as_flattened()).for_each(|(total, sum)| *total += sum);
}

#[cfg(test)]
mod tests;

//! Codes, scales and zero points of others, put in the order in which a matrix has them.

use rayon::prelude::*;

use super::super::ModelFile;
use super::{Module, Raw, Role};
use crate::error::Result;

/// Rows that are put together at a time: what a line of the cache has of words.
const ROWS_AT_ONCE: usize = 16;

/// Codes of 4 bits, (rows, columns) from `word(row, column / 8)`, in whose half byte `column % 8` the code of a column
/// stands. With an order, column i of the result is column `order[i]`.
pub fn int4([rows, columns]: [usize; 2], order: Option<&[u32]>, word: impl Fn(usize, usize) -> u32 + Sync) -> Vec<u8> {
    let row_bytes = columns / 2;
    let mut bytes = vec![0; rows * row_bytes];
    bytes.par_chunks_mut(ROWS_AT_ONCE * row_bytes).enumerate().for_each(|(index, out)| {
        let first = index * ROWS_AT_ONCE;
        match order {
            None => {
                for at in 0..columns / 8 {
                    for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                        out[4 * at..4 * at + 4].copy_from_slice(&word(first + row, at).to_le_bytes());
                    }
                }
            }
            Some(order) => {
                let code = |row: usize, column: u32| {
                    let column = column as usize;
                    (word(first + row, column / 8) >> (4 * (column % 8)) & 15) as u8
                };
                for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                    for (out, pair) in out.iter_mut().zip(order.as_chunks().0) {
                        let &[even, odd] = pair;
                        *out = code(row, even) | code(row, odd) << 4;
                    }
                }
            }
        }
    });
    bytes
}

/// Codes of a byte, each row in another order of columns.
pub fn bytes_in_order(bytes: &[u8], order: &[u32]) -> Vec<u8> {
    let rows = bytes.par_chunks_exact(order.len());
    rows.flat_map_iter(|row| order.iter().map(|&column| row[column as usize])).collect()
}

/// The order that puts columns of a group side by side, or none where they stand so: each group has as many.
pub fn order(groups: &Raw, module: &Module) -> Result<Option<Vec<u32>>> {
    let of: Vec<u32> = groups.words().collect();
    // Nothing is said.
    if of.iter().all(|&group| group == u32::MAX) {
        return Ok(None);
    }
    let mut order: Vec<u32> = (0..of.len() as u32).collect();
    order.sort_by_key(|&column| of[column as usize]);
    let expected = |at: usize| (at / module.group()) as u32;
    if let Some(at) = (0..order.len()).find(|&at| of[order[at] as usize] != expected(at)) {
        let wanted = format!("{} columns of each of {} groups", module.group(), module.groups());
        let found = of[order[at] as usize] as i32;
        return Err(groups.invalid(wanted, format!("{found} where {} is left", expected(at))));
    }
    Ok(if order.is_sorted() { None } else { Some(order) })
}

/// (groups, rows) to (rows, groups).
pub fn by_rows<T: Copy>(values: &[T], groups: usize) -> Vec<T> {
    let rows = values.len() / groups;
    (0..rows).flat_map(|row| values.iter().skip(row).step_by(rows)).copied().collect()
}

/// A scale for each block of numbers, (rows of blocks, columns of blocks), spread over (rows, groups).
pub fn spread(scales: &[f32], module: &Module) -> Vec<f32> {
    let ([rows, columns], [block_rows, block_columns]) = (module.shape, module.block);
    let across = columns.div_ceil(block_columns);
    let group = module.group();
    let row = |row: usize| (0..module.groups()).map(move |at| row / block_rows * across + at * group / block_columns);
    (0..rows).flat_map(row).map(|at| scales[at]).collect()
}

/// That no code of floats is NaN.
pub fn check_fp8(codes: &Raw) -> Result<()> {
    match codes.bytes.par_iter().position_first(|code| code & 0x7f == 0x7f) {
        None => Ok(()),
        Some(at) => Err(codes.invalid("numbers", format!("NaN at {at}"))),
    }
}

/// Zero points that are all zero, as some writers leave them beside symmetric weights.
pub fn check_no_zeros(module: &Module, files: &[ModelFile]) -> Result<()> {
    match module.find(Role::Zeros, files) {
        Some(zeros) if zeros.bytes.iter().any(|&byte| byte != 0) => {
            Err(zeros.invalid("no zero points beside 8 bits", "some"))
        }
        _ => Ok(()),
    }
}

/// Blocks that a matrix has down and across.
pub fn blocks([rows, columns]: [usize; 2], block: [usize; 2]) -> [usize; 2] {
    [rows.div_ceil(block[0]), columns.div_ceil(block[1])]
}

/// Columns of a group where so many share a scale, which may not divide those that there are: the most that divide
/// both.
pub fn shared(columns: usize, block: usize) -> usize {
    if block >= columns {
        return columns;
    }
    let (mut a, mut b) = (columns, block);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Columns that share a scale, where scales are (groups, rows).
pub fn group_down(scales: &Raw, [rows, columns]: [usize; 2]) -> Result<usize> {
    match *scales.shape {
        [groups, found] if found == rows && groups > 0 && columns.is_multiple_of(groups) => {
            scales.check_floats(&[&[groups, rows]])?;
            Ok(columns / groups)
        }
        _ => {
            let expected = format!("scales of {rows} rows for groups that divide {columns} columns");
            Err(scales.invalid(expected, format!("shape {:?}", scales.shape)))
        }
    }
}

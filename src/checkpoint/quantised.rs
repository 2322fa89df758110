//! A matrix in few bits, as it lies in memory.

use super::Format;

/// What the codes of a matrix stand for, before their scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Codes<'a> {
    /// i8, -128..=127; a byte each.
    Int8,
    /// e4m3 (0x7f and 0xff, NaN, never occur: refused at opening); a byte each.
    Fp8,
    /// A nibble u, column 2i in the low half of byte i, 2i + 1 in the high half: u - zero, zero 8 unless the matrix has
    /// zero points.
    Int4,
    /// A nibble through a table of 16.
    Table(&'a [f32; 16]),
}

/// A matrix (rows, columns), row-major: w = fl32(value * scale), value as `codes` has it ((u - zero) is exact), scale
/// in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantised<'a> {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// What the bytes stand for.
    pub codes: Codes<'a>,
    /// rows * columns bytes, or rows * columns / 2 (columns even).
    pub bytes: &'a [u8],
    /// Columns that share a scale: divides `columns`; `columns` itself: a scale per row.
    pub group: usize,
    /// (rows, columns / group), finite, |scale| < 128.
    pub scales: &'a [f32],
    /// (rows, columns / group), 0..=15; with `Codes::Int4` only.
    pub zeros: Option<&'a [u8]>,
    /// Activation order of GPTQ: column i of the codes multiplies `x[order[i]]`. A permutation.
    pub order: Option<&'a [u32]>,
}

/// What a scale stays below, so that devices may multiply it by powers of two.
pub const SCALE_LIMIT: f32 = 128.0;

impl<'a> Quantised<'a> {
    /// How its numbers are kept.
    pub fn format(&self) -> Format {
        let group = (self.group < self.columns).then_some(self.group);
        match self.codes {
            Codes::Int8 => Format::Int8 { group },
            Codes::Fp8 => Format::Fp8 { group },
            Codes::Int4 | Codes::Table(_) => Format::Int4 { group, zeros: self.zeros.is_some() },
        }
    }

    /// Bytes of the codes of a row.
    pub fn row_bytes(&self) -> usize {
        match self.codes {
            Codes::Int8 | Codes::Fp8 => self.columns,
            Codes::Int4 | Codes::Table(_) => self.columns / 2,
        }
    }

    /// The numbers of one row, in the order in which they multiply x.
    pub fn widen(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.columns);
        let codes = &self.bytes[row * self.row_bytes()..][..self.row_bytes()];
        let groups = self.columns / self.group;
        let scales = &self.scales[row * groups..][..groups];
        let zeros = self.zeros.map(|zeros| &zeros[row * groups..][..groups]);
        let nibble = |column: usize| codes[column / 2] >> (4 * (column % 2)) & 15;
        let value = |column: usize| match self.codes {
            Codes::Int8 => f32::from(codes[column] as i8),
            Codes::Fp8 => e4m3(codes[column]),
            Codes::Int4 => f32::from(nibble(column)) - zeros.map_or(8.0, |zeros| f32::from(zeros[column / self.group])),
            Codes::Table(table) => table[usize::from(nibble(column))],
        };
        for column in 0..self.columns {
            let to = self.order.map_or(column, |order| order[column] as usize);
            out[to] = value(column) * scales[column / self.group];
        }
    }

    /// All numbers, row by row.
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.columns];
        values.chunks_exact_mut(self.columns).enumerate().for_each(|(row, out)| self.widen(row, out));
        values
    }

    /// That the parts fit each other.
    ///
    /// # Panics
    /// Where they do not: whoever made it had to check what came from outside.
    pub fn check(&self) {
        assert!(self.group > 0 && self.columns.is_multiple_of(self.group));
        assert_eq!(self.bytes.len(), self.rows * self.row_bytes());
        let groups = self.rows * self.columns / self.group;
        assert_eq!(self.scales.len(), groups);
        assert!(self.scales.iter().all(|scale| scale.abs() < SCALE_LIMIT));
        match self.codes {
            Codes::Fp8 => assert!(!self.bytes.iter().any(|code| code & 0x7f == 0x7f)),
            Codes::Int4 | Codes::Table(_) => assert!(self.columns.is_multiple_of(2)),
            Codes::Int8 => {}
        }
        if let Some(zeros) = self.zeros {
            assert!(self.codes == Codes::Int4 && zeros.len() == groups && zeros.iter().all(|&zero| zero < 16));
        }
        if let Some(order) = self.order {
            let mut sorted = order.to_vec();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..self.columns as u32));
        }
    }
}

/// What a byte stands for: a sign, 4 bits of exponent, 3 of fraction, no infinities.
pub fn e4m3(code: u8) -> f32 {
    // Rebased by a multiplication, which makes subnormal numbers right, too.
    const REBASE: f32 = f32::from_bits((127 + 120) << 23);
    let magnitude = f32::from_bits(u32::from(code & 0x7f) << 20) * REBASE;
    let magnitude = if code & 0x7f == 0x7f { f32::NAN } else { magnitude };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The codes of an [`Owned`] matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OwnedCodes {
    /// See [`Codes::Int8`].
    Int8,
    /// See [`Codes::Fp8`].
    Fp8,
    /// See [`Codes::Int4`].
    Int4,
    /// See [`Codes::Table`].
    Table([f32; 16]),
}

/// What a matrix in few bits has in memory of its own; see [`Quantised`] for each.
#[derive(Debug, Clone, PartialEq)]
pub struct Owned {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// What the bytes stand for.
    pub codes: OwnedCodes,
    /// None: they lie where a file has them.
    pub bytes: Option<Vec<u8>>,
    /// Columns that share a scale.
    pub group: usize,
    /// Scales.
    pub scales: Vec<f32>,
    /// Zero points.
    pub zeros: Option<Vec<u8>>,
    /// The order of columns.
    pub order: Option<Vec<u32>>,
}

impl Owned {
    /// The matrix, with `mapped` for the bytes that it has not itself.
    pub fn view<'a>(&'a self, mapped: &'a [u8]) -> Quantised<'a> {
        Quantised {
            rows: self.rows,
            columns: self.columns,
            codes: match &self.codes {
                OwnedCodes::Int8 => Codes::Int8,
                OwnedCodes::Fp8 => Codes::Fp8,
                OwnedCodes::Int4 => Codes::Int4,
                OwnedCodes::Table(table) => Codes::Table(table),
            },
            bytes: self.bytes.as_deref().unwrap_or(mapped),
            group: self.group,
            scales: &self.scales,
            zeros: self.zeros.as_deref(),
            order: self.order.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of four columns in two groups.
    fn matrix(codes: Codes<'_>, bytes: &[u8], zeros: Option<&[u8]>, order: Option<&[u32]>) -> Vec<f32> {
        let scales = [0.5, 2.0, 1.0, -0.25];
        let matrix = Quantised { rows: 2, columns: 4, codes, bytes, group: 2, scales: &scales, zeros, order };
        matrix.check();
        matrix.values()
    }

    #[test]
    fn codes_are_scaled_by_their_groups() {
        let bytes = [-128_i8, 127, 1, 2, 3, 4, 5, -8].map(|code| code as u8);
        assert_eq!(matrix(Codes::Int8, &bytes, None, None), [-64.0, 63.5, 2.0, 4.0, 3.0, 4.0, -1.25, 2.0]);
        let nibbles = [0x80, 0xf7, 0x21, 0x98];
        assert_eq!(matrix(Codes::Int4, &nibbles, None, None), [-4.0, 0.0, -2.0, 14.0, -7.0, -6.0, -0.0, -0.25]);
        let zeros = [0, 15, 1, 9];
        let expected = [0.0, 4.0, -16.0, 0.0, 0.0, 1.0, 0.25, -0.0];
        assert_eq!(matrix(Codes::Int4, &nibbles, Some(&zeros), None), expected);
        let table = std::array::from_fn(|code| code as f32 / 16.0);
        let expected = [0.0, 0.25, 0.875, 1.875, 0.0625, 0.125, -0.125, -0.140625];
        assert_eq!(matrix(Codes::Table(&table), &nibbles, None, None), expected);
    }

    #[test]
    fn columns_go_where_their_order_says() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        let expected = [6.0, 0.5, 8.0, 1.0, -1.75, 5.0, -2.0, 6.0];
        assert_eq!(matrix(Codes::Int8, &bytes, None, Some(&[1, 3, 0, 2])), expected);
    }

    #[test]
    fn e4m3_is_what_its_bits_say() {
        for code in 0..=0xff_u8 {
            let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
            let magnitude = match exponent {
                0 => fraction / 8.0 * 2f32.powi(-6),
                _ => (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
            };
            let expected = if code < 0x80 { magnitude } else { -magnitude };
            match code & 0x7f {
                0x7f => assert!(e4m3(code).is_nan()),
                _ => assert_eq!(e4m3(code).to_bits(), expected.to_bits(), "{code:#x}"),
            }
        }
        assert_eq!(e4m3(0x7e), 448.0);
    }
}

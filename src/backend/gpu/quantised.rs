//! Weights in codes on a device: which are kept so, where their parts lie, and how they are packed on the way there, as
//! `kernels/quantised.cuh` has it.

use rayon::prelude::*;

use crate::checkpoint::quantised::{Codes, Quantised};
use crate::weights::Format;

/// Columns of a chunk, whose parts a lane of the matrix units owns.
const CHUNK: usize = 32;
/// Columns of a chunk that a lane owns.
const LANE_COLUMNS: usize = 8;
/// Bytes of a unit of a row.
pub const UNIT_BYTES: usize = 64;
/// Bytes of a unit that a lane reads at once.
const LANE_BYTES: usize = 16;
/// The zero point of those that have none.
const ZERO: u8 = 8;

/// What the codes of a kernel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// -128 to 127.
    Int8,
    /// e4m3.
    Fp8,
    /// 0 to 15, less a zero point.
    Int4,
}

impl Kind {
    /// Of a format; none of numbers.
    pub const fn of(format: Format) -> Option<Kind> {
        match format {
            Format::F32 | Format::F16 | Format::Bf16 => None,
            Format::Int8 { .. } => Some(Kind::Int8),
            Format::Fp8 { .. } => Some(Kind::Fp8),
            Format::Int4 { .. } => Some(Kind::Int4),
        }
    }

    /// Columns of a unit of a row.
    pub const fn unit_columns(self) -> usize {
        match self {
            Kind::Int8 | Kind::Fp8 => UNIT_BYTES,
            Kind::Int4 => 2 * UNIT_BYTES,
        }
    }

    fn of_codes(codes: Codes<'_>) -> Option<Kind> {
        match codes {
            Codes::Int8 => Some(Kind::Int8),
            Codes::Fp8 => Some(Kind::Fp8),
            Codes::Int4 => Some(Kind::Int4),
            Codes::Table(_) => None,
        }
    }
}

/// A matrix in codes on a device: codes, scales and zero points, each in memory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    kind: Kind,
    rows: usize,
    columns: usize,
    /// Columns that share a scale; none: a row does.
    pub group: Option<usize>,
    /// Whether there are zero points.
    pub zeros: bool,
}

impl Packed {
    /// The matrix that these parts are, from the first row to the last; none if no kernel multiplies by it: of a table,
    /// with columns in another order, of several kinds or groups, or of groups that do not begin with units or divide
    /// them into whole chunks.
    pub fn of(parts: &[Quantised<'_>]) -> Option<Packed> {
        let &Quantised { columns, codes, group, .. } = parts.first()?;
        let kind = Kind::of_codes(codes)?;
        let unit = kind.unit_columns();
        let grouped = group < columns;
        let fits =
            !grouped || group.is_multiple_of(CHUNK) && (group.is_multiple_of(unit) || unit.is_multiple_of(group));
        let alike = |part: &Quantised<'_>| {
            Kind::of_codes(part.codes) == Some(kind)
                && part.columns == columns
                && part.group == group
                && part.order.is_none()
        };
        (fits && parts.iter().all(alike)).then(|| Packed {
            kind,
            rows: parts.iter().map(|part| part.rows).sum(),
            columns,
            group: grouped.then_some(group),
            zeros: parts.iter().any(|part| part.zeros.is_some()),
        })
    }

    /// Its format.
    pub fn format(&self) -> Format {
        let &Packed { group, zeros, .. } = self;
        match self.kind {
            Kind::Int8 => Format::Int8 { group },
            Kind::Fp8 => Format::Fp8 { group },
            Kind::Int4 => Format::Int4 { group, zeros },
        }
    }

    /// Bytes of a row of codes.
    pub fn pitch(&self) -> usize {
        self.columns.div_ceil(self.kind.unit_columns()) * UNIT_BYTES
    }

    fn groups(&self) -> usize {
        self.group.map_or(1, |group| self.columns / group)
    }

    /// Bytes of codes, scales and zero points.
    pub fn sizes(&self) -> [u64; 3] {
        let scales = self.groups() * self.rows;
        [self.rows * self.pitch(), scales * size_of::<f32>(), if self.zeros { scales } else { 0 }]
            .map(|bytes| bytes as u64)
    }

    /// The codes of whole rows, in the order in which lanes read them.
    pub fn pack(&self, rows: &[u8], row_bytes: usize, out: &mut [u8]) {
        let pack = |(out, row): (&mut [u8], &[u8])| {
            for (unit, out) in out.chunks_exact_mut(UNIT_BYTES).enumerate() {
                for (lane, out) in out.chunks_exact_mut(LANE_BYTES).enumerate() {
                    let first = unit * self.kind.unit_columns() + lane * LANE_COLUMNS;
                    self.pack_lane(row, first, out);
                }
            }
        };
        out.par_chunks_exact_mut(self.pitch()).zip(rows.par_chunks_exact(row_bytes)).for_each(pack);
    }

    /// What a lane owns of a unit: 8 columns from `first` on of each of its chunks.
    fn pack_lane(&self, row: &[u8], first: usize, out: &mut [u8]) {
        let bytes = match self.kind {
            Kind::Int8 | Kind::Fp8 => 1,
            Kind::Int4 => 2,
        };
        for (chunk, out) in out.chunks_exact_mut(LANE_COLUMNS / bytes).enumerate() {
            let from = (first + chunk * CHUNK) / bytes;
            let there = row.get(from..row.len().min(from + out.len())).unwrap_or_default();
            out[..there.len()].copy_from_slice(there);
            out[there.len()..].fill(0);
            match self.kind {
                Kind::Int8 | Kind::Fp8 => out.chunks_exact_mut(4).for_each(|four| four.swap(1, 2)),
                Kind::Int4 => {
                    let codes = u32::from_le_bytes([out[0], out[1], out[2], out[3]]);
                    out.copy_from_slice(&(gathered(codes) | gathered(codes >> 4) << 16).to_le_bytes());
                }
            }
        }
    }

    /// The scales by group, then row.
    pub fn scales(&self, parts: &[Quantised<'_>]) -> Vec<f32> {
        self.by_group(|group| {
            parts.iter().flat_map(move |part| part.scales.iter().skip(group).step_by(self.groups()).copied())
        })
    }

    /// The zero points by group, then row.
    pub fn zeros(&self, parts: &[Quantised<'_>]) -> Vec<u8> {
        self.by_group(|group| {
            parts.iter().flat_map(move |part| {
                let of = move |row: usize| part.zeros.map_or(ZERO, |zeros| zeros[row * self.groups() + group]);
                (0..part.rows).map(of)
            })
        })
    }

    fn by_group<T: Send, I: Iterator<Item = T>>(&self, of: impl Fn(usize) -> I + Sync) -> Vec<T> {
        let groups = (0..self.groups()).into_par_iter().map(|group| of(group).collect::<Vec<T>>());
        groups.collect::<Vec<_>>().into_iter().flatten().collect()
    }
}

/// Every other nibble of 8, from the lowest on, side by side.
fn gathered(nibbles: u32) -> u32 {
    let even = nibbles & 0x0f0f_0f0f;
    let pairs = (even | even >> 4) & 0x00ff_00ff;
    (pairs | pairs >> 8) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix<'a>(codes: Codes<'a>, bytes: &'a [u8], columns: usize, group: usize, scales: &'a [f32]) -> Quantised<'a> {
        let rows = scales.len() / (columns / group);
        Quantised { rows, columns, codes, bytes, group, scales, zeros: None, order: None }
    }

    fn packed(part: &Quantised<'_>) -> Vec<u8> {
        let packed = Packed::of(std::slice::from_ref(part)).unwrap();
        let mut out = vec![0xee; packed.sizes()[0] as usize];
        packed.pack(part.bytes, part.row_bytes(), &mut out);
        out
    }

    #[test]
    fn bytes_lie_as_lanes_read_them() {
        let bytes: Vec<u8> = (0..72).collect();
        let found = packed(&matrix(Codes::Int8, &bytes, 72, 72, &[1.0]));
        assert_eq!(found.len(), 128, "two units");
        // Lane 1: columns 8 to 15 of the first chunk, 40 to 47 of the second.
        assert_eq!(found[16..32], [8, 10, 9, 11, 12, 14, 13, 15, 40, 42, 41, 43, 44, 46, 45, 47]);
        assert_eq!(found[64..72], [64, 66, 65, 67, 68, 70, 69, 71]);
        assert!(found[72..].iter().all(|&code| code == 0));
    }

    #[test]
    fn nibbles_lie_as_lanes_read_them() {
        let nibble = |column: usize| (column * 7 % 16) as u8;
        let bytes: Vec<u8> = (0..80).map(|byte| nibble(2 * byte) | nibble(2 * byte + 1) << 4).collect();
        let found = packed(&matrix(Codes::Int4, &bytes, 160, 32, &[1.0; 5]));
        assert_eq!(found.len(), 128, "two units");
        let order = [0, 2, 4, 6, 1, 3, 5, 7];
        for column in 0..256 {
            let (unit, chunk, lane) = (column / 128, column / 32 % 4, column / 8 % 4);
            let at = order.iter().position(|&place| place == column % 8).unwrap();
            let byte = found[unit * 64 + lane * 16 + chunk * 4 + at / 2];
            let expected = if column < 160 { nibble(column) } else { 0 };
            assert_eq!(byte >> (at % 2 * 4) & 15, expected, "column {column}");
        }
    }

    #[test]
    fn scales_stand_by_group() {
        let bytes = [0; 192];
        let (one, other) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0]);
        let zeros = [1, 2];
        let first = matrix(Codes::Int4, &bytes[..64], 64, 32, &one);
        let second = Quantised { zeros: Some(&zeros), ..matrix(Codes::Int4, &bytes[..32], 64, 32, &other) };
        let parts = [first, second];
        let packed = Packed::of(&parts).unwrap();
        assert_eq!(packed.scales(&parts), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        assert_eq!(packed.zeros(&parts), [8, 8, 1, 8, 8, 2]);
        assert_eq!(packed.sizes(), [3 * 64, 6 * 4, 6]);
    }

    #[test]
    fn what_no_kernel_multiplies_is_not_packed() {
        let bytes = [0; 192];
        let scales = [1.0; 4];
        let of = |codes, columns, group| {
            let bytes = &bytes[..columns * 2 / if codes == Codes::Int8 { 1 } else { 2 }];
            Packed::of(&[matrix(codes, bytes, columns, group, &scales[..2 * columns / group])])
        };
        assert!(of(Codes::Int8, 96, 48).is_none(), "groups that divide chunks");
        assert!(of(Codes::Int8, 40, 40).is_some(), "a row of any length");
        assert!(of(Codes::Int4, 64, 32).is_some() && of(Codes::Int4, 96, 96).is_some());
        assert!(of(Codes::Table(&[0.0; 16]), 64, 32).is_none());
        let order: Vec<u32> = (0..64).collect();
        let plain = matrix(Codes::Int8, &bytes[..128], 64, 64, &scales[..2]);
        assert!(Packed::of(&[Quantised { order: Some(&order), ..plain }]).is_none());
        let grouped = matrix(Codes::Int8, &bytes[..128], 64, 32, &scales);
        assert!(Packed::of(&[plain, grouped]).is_none(), "rows with one scale and with two");
        assert!(Packed::of(&[plain, plain]).is_some() && Packed::of(&[]).is_none());
    }
}

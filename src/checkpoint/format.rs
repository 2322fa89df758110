//! How the numbers of one weight are kept.

use std::fmt;

use super::Dtype;

/// How the numbers of one weight are kept, in a file or on a device. Activations have a format of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Integers in a byte.
    Int8 {
        /// Columns that share a scale; none: a row does.
        group: Option<usize>,
    },
    /// e4m3 in a byte.
    Fp8 {
        /// As for [`Format::Int8`].
        group: Option<usize>,
    },
    /// Integers, or places in a table of 16, in half a byte.
    Int4 {
        /// As for [`Format::Int8`].
        group: Option<usize>,
        /// Whether each scale has a zero point.
        zeros: bool,
    },
}

impl Format {
    /// Bytes of a matrix as it lies in memory: with scales of 4 bytes each, and zero points of one.
    pub fn bytes(self, rows: usize, columns: usize) -> u64 {
        let scaled = |group: Option<usize>, row_bytes: usize, each: usize| {
            let groups = group.map_or(1, |group| columns.div_ceil(group));
            (rows * (row_bytes + groups * each)) as u64
        };
        match self {
            Format::F32 => (rows * columns) as u64 * 4,
            Format::F16 | Format::Bf16 => (rows * columns) as u64 * 2,
            Format::Int8 { group } | Format::Fp8 { group } => scaled(group, columns, 4),
            Format::Int4 { group, zeros } => scaled(group, columns.div_ceil(2), 4 + usize::from(zeros)),
        }
    }

    /// Whether numbers are codes, with scales beside them.
    pub fn is_quantised(self) -> bool {
        !matches!(self, Format::F32 | Format::F16 | Format::Bf16)
    }

    /// The one that has the numbers of both.
    pub(crate) fn common(self, other: Format) -> Format {
        if self == other { self } else { Format::F32 }
    }
}

impl From<Dtype> for Format {
    fn from(dtype: Dtype) -> Format {
        match dtype {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::Bf16 => Format::Bf16,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, group, zeros) = match *self {
            Format::F32 => ("f32", None, false),
            Format::F16 => ("f16", None, false),
            Format::Bf16 => ("bf16", None, false),
            Format::Int8 { group } => ("int8", group, false),
            Format::Fp8 { group } => ("fp8", group, false),
            Format::Int4 { group, zeros } => ("int4", group, zeros),
        };
        formatter.write_str(name)?;
        if let Some(group) = group {
            write!(formatter, " by {group}")?;
        }
        formatter.write_str(if zeros { " with zero points" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_says_what_its_numbers_take() {
        assert_eq!([Format::F32, Format::F16, Format::Bf16].map(|format| format.bytes(3, 5)), [60, 30, 30]);
        let (row, grouped) = (None, Some(64));
        assert_eq!([Format::Int8 { group: row }, Format::Fp8 { group: grouped }].map(|f| f.bytes(3, 128)), [396, 408]);
        let int4 = |group, zeros| Format::Int4 { group, zeros }.bytes(3, 128);
        assert_eq!([int4(row, false), int4(grouped, false), int4(grouped, true)], [204, 216, 222]);
    }

    #[test]
    fn a_format_has_a_name() {
        let int4 = Format::Int4 { group: Some(128), zeros: true };
        assert_eq!(int4.to_string(), "int4 by 128 with zero points");
        assert_eq!(Format::Int8 { group: None }.to_string(), "int8");
    }

    #[test]
    fn formats_have_one_in_common() {
        assert_eq!(Format::F16.common(Format::F16), Format::F16);
        assert_eq!(Format::F16.common(Format::Bf16), Format::F32, "neither has the numbers of the other");
    }
}

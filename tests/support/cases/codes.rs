//! Weights in codes: any code there is, scales of either sign, any zero points.

use flamant::config::Activation;
use flamant::probe::{Format, Owned, OwnedCodes};

use super::numbers::{fill, levels};
use super::{Besides, Case, Gated, PLAIN, Size, linear};

/// A matrix (rows, columns) of such codes, whose numbers have about this deviation; none for a format of numbers.
pub fn matrix(format: Format, [rows, columns]: [usize; 2], deviation: f32, seed: u64) -> Option<Owned> {
    // Deviations of the codes, all equally likely.
    let (codes, group, zeros, spread) = match format {
        Format::F32 | Format::F16 | Format::Bf16 => return None,
        Format::Int8 { group } => (OwnedCodes::Int8, group, false, 74.0),
        Format::Fp8 { group } => (OwnedCodes::Fp8, group, false, 137.0),
        Format::Int4 { group, zeros } => (OwnedCodes::Int4, group, zeros, if zeros { 6.5 } else { 4.6 }),
    };
    let group = group.unwrap_or(columns);
    let row_bytes = if codes == OwnedCodes::Int4 { columns / 2 } else { columns };
    let mut bytes = levels(rows * row_bytes, seed);
    if codes == OwnedCodes::Fp8 {
        let is_nan = |code: &&mut u8| **code & 0x7f == 0x7f;
        bytes.iter_mut().filter(is_nan).for_each(|code| *code -= 1);
    }
    let count = rows * columns / group;
    let mut scales = Vec::new();
    fill(&mut scales, count, seed + 1, 0.0, 1.0);
    // Of as many bits as an f32 has.
    scales.iter_mut().for_each(|scale| *scale *= deviation / spread);
    let zeros = zeros.then(|| levels(count, seed + 2).into_iter().map(|zero| zero % 16).collect());
    Some(Owned { rows, columns, codes, bytes: Some(bytes), group, scales, zeros, order: None })
}

/// Weights in codes: each form of the kernels for them, groups smaller and larger than units and rows that end in one.
pub fn small() -> Vec<Case> {
    use Size::Small;
    let int8 = |group| Format::Int8 { group };
    let fp8 = |group| Format::Fp8 { group };
    let int4 = |group, zeros| Format::Int4 { group, zeros };
    let plain = [
        (1, 16, 1, int8(None)),
        (3, 272, 40, int8(None)),
        (8, 1040, 70, int8(None)),
        (12, 80, 131, int8(None)),
        (16, 1040, 70, int8(None)),
        (19, 272, 33, int8(None)),
        (70, 1040, 40, int8(None)),
        (2, 96, 19, int8(Some(32))),
        (20, 96, 40, int8(Some(32))),
        (15, 640, 70, int8(Some(64))),
        (33, 1152, 40, int8(Some(128))),
        (1, 272, 40, fp8(None)),
        (16, 1040, 70, fp8(None)),
        (66, 272, 33, fp8(None)),
        (5, 640, 40, fp8(Some(128))),
        (33, 640, 70, fp8(Some(32))),
        (2, 272, 40, int4(None, false)),
        (18, 1040, 33, int4(None, true)),
        (3, 160, 33, int4(Some(32), false)),
        (12, 288, 70, int4(Some(32), true)),
        (66, 160, 40, int4(Some(32), true)),
        (16, 448, 131, int4(Some(64), true)),
        (70, 320, 70, int4(Some(64), false)),
        (1, 1152, 19, int4(Some(128), true)),
        (16, 1152, 70, int4(Some(128), true)),
        (4, 768, 40, int4(Some(256), true)),
        (20, 768, 40, int4(Some(256), true)),
        // What kernels do not multiply by is stored in 16 bits.
        (3, 96, 19, int8(Some(48))),
    ];
    let mut cases = Vec::new();
    cases.extend(
        plain.map(|(count, columns, width, format)| linear(Small, count, columns, width, Besides { format, ..PLAIN })),
    );
    for format in [int8(None), fp8(None), int4(Some(128), true)] {
        cases.push(linear(Small, 260, 384, 70, Besides { format, ..PLAIN }).on_hopper());
        let all = Besides {
            bias: true,
            activation: Some(Activation::Relu),
            paired: true,
            gate: Gated::Vector,
            residual: true,
            format,
            ..PLAIN
        };
        for (count, width) in [(3, 37), (12, 70), (66, 99)] {
            cases.push(linear(Small, count, 256, width, all));
        }
        cases.push(linear(Small, 7, 128, 39, Besides { logits: true, format, ..PLAIN }));
    }
    cases
}

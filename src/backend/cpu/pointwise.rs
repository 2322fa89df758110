//! What goes on between matrix products, on rows: activations, norms, rotary embedding, patches.

use std::ops::Range;

use super::simd::{erf, sigmoid, sum_by, vectorised};
use crate::graph::Epilogue;
use crate::graph::{Activation, Norm};

/// One patch of the pixels (side, side, 3) of a frame as a row (channel, y, x), each level looked up in the table
/// (3, 256) of levels. Patches are counted line by line. A frame without pixels is all zeros.
pub(super) fn patch_row(pixels: &[u8], levels: &[f32], side: usize, patch: usize, place: usize, out: &mut [f32]) {
    if pixels.is_empty() {
        return out.fill(0.0);
    }
    let (grid_y, grid_x) = (place / (side / patch), place % (side / patch));
    for (channel, (out, levels)) in out.chunks_exact_mut(patch * patch).zip(levels.chunks_exact(256)).enumerate() {
        for (y, out) in out.chunks_exact_mut(patch).enumerate() {
            let line = &pixels[((grid_y * patch + y) * side + grid_x * patch) * 3..];
            let pixels = line.chunks_exact(3);
            out.iter_mut().zip(pixels).for_each(|(out, pixel)| *out = levels[usize::from(pixel[channel])]);
        }
    }
}

/// out += x.
pub(super) fn add(out: &mut [f32], x: &[f32]) {
    vectorised(
        #[inline(always)]
        || out.iter_mut().zip(x).for_each(|(out, x)| *out += x),
    );
}

/// Activation, the second half's factors, clip and gate of an epilogue, on some columns of a row.
pub(super) fn finish(
    values: &mut [f32],
    factors: Option<&[f32]>,
    gate: Option<&[f32]>,
    columns: &Range<usize>,
    epilogue: &Epilogue,
) {
    if let Some(activation) = epilogue.activation {
        activate(values, activation);
    }
    if let Some(factors) = factors {
        values.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
    }
    if let Some(clip) = epilogue.clip {
        values.iter_mut().for_each(|value| *value = value.clamp(-clip, clip));
    }
    match gate {
        Some(&[gate]) => {
            let factor = gate.tanh();
            values.iter_mut().for_each(|value| *value *= factor);
        }
        Some(gates) => {
            values.iter_mut().zip(&gates[columns.clone()]).for_each(|(value, gate)| *value *= gate.tanh());
        }
        None => {}
    }
}

/// The activation of each value, in place.
fn activate(values: &mut [f32], activation: Activation) {
    #[inline(always)]
    fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
        vectorised(
            #[inline(always)]
            || values.iter_mut().for_each(|value| *value = f(*value)),
        );
    }
    match activation {
        Activation::Gelu => each(values, |x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))),
        Activation::GeluTanh => each(values, |x| {
            let u = 0.797_884_6 * 0.044_715f32.mul_add(x * x * x, x);
            x * sigmoid(2.0 * u)
        }),
        Activation::QuickGelu => each(values, |x| x * sigmoid(1.702 * x)),
        Activation::Relu => each(values, |x| x.max(0.0)),
        Activation::SquaredRelu => each(values, |x| x.max(0.0) * x.max(0.0)),
        Activation::Silu => each(values, |x| x * sigmoid(x)),
    }
}

/// A norm of one row (or one head's columns), in place.
pub(super) fn normalise(row: &mut [f32], kind: Norm, weight: &[f32], bias: Option<&[f32]>, epsilon: f32) {
    vectorised(
        #[inline(always)]
        || {
            let count = row.len() as f32;
            let mean = match kind {
                Norm::Layer => sum_by(row, |x| x) / count,
                Norm::Rms => 0.0,
            };
            let variance = sum_by(row, |x| (x - mean) * (x - mean)) / count;
            let factor = 1.0 / (variance + epsilon).sqrt();
            row.iter_mut().zip(weight).for_each(|(x, weight)| *x = (*x - mean) * factor * weight);
            if let Some(bias) = bias {
                row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
        },
    );
}

/// Rotary embedding of each head's first entries, half split: pair i turns by position * frequencies[i].
pub(super) fn rotate(row: &mut [f32], position: u32, head_width: usize, frequencies: &[f32]) {
    let half = frequencies.len();
    let turn = |frequency: &f32| {
        let angle = position as f32 * frequency;
        (angle.cos(), angle.sin())
    };
    let turns: Vec<(f32, f32)> = frequencies.iter().map(turn).collect();
    for head in row.chunks_exact_mut(head_width) {
        let (first, second) = head[..2 * half].split_at_mut(half);
        for ((x, y), (cos, sin)) in first.iter_mut().zip(second).zip(&turns) {
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn fixture() -> Value {
        serde_json::from_str(include_str!("../../../tests/data/semantics/functions.json")).unwrap()
    }

    fn numbers(value: &Value) -> Vec<f32> {
        match value {
            Value::Array(list) => list.iter().flat_map(numbers).collect(),
            number => vec![number.as_f64().unwrap() as f32],
        }
    }

    /// NaN, infinite and far values are all far.
    fn assert_close(found: &[f32], want: &[f32], tolerance: f32, what: &str) {
        assert_eq!(found.len(), want.len(), "{what}");
        for (index, (found, want)) in found.iter().zip(want).enumerate() {
            let near = (found - want).abs() <= tolerance * want.abs().max(1.0);
            assert!(near, "{what} {index}: {found} is not {want}");
        }
    }

    #[test]
    fn activations_are_torchs() {
        let fixture = fixture();
        for (name, activation) in [
            ("gelu", Activation::Gelu),
            ("quick_gelu", Activation::QuickGelu),
            ("silu", Activation::Silu),
            ("relu", Activation::Relu),
        ] {
            let mut values = numbers(&fixture["x"]);
            activate(&mut values, activation);
            assert_close(&values, &numbers(&fixture[name]), 5e-7, name);
        }
    }

    #[test]
    fn norms_are_torchs() {
        let fixture = fixture();
        let (weight, bias) = (numbers(&fixture["weight"]), numbers(&fixture["bias"]));
        let rows = |kind, bias: Option<&[f32]>, epsilon, factor: f32| -> Vec<f32> {
            let rows = fixture["rows"].as_array().unwrap().iter();
            rows.flat_map(|row| {
                let mut row: Vec<f32> = numbers(row).into_iter().map(|x| x * factor).collect();
                normalise(&mut row, kind, &weight, bias, epsilon);
                row
            })
            .collect()
        };
        let with_bias = rows(Norm::Layer, Some(&bias), 1e-5, 1.0);
        assert_close(&with_bias, &numbers(&fixture["layer_norm"]), 2e-6, "layer norm");
        let without = rows(Norm::Layer, None, 1e-5, 1.0);
        assert_close(&without, &numbers(&fixture["layer_norm_no_bias"]), 2e-6, "layer norm without bias");
        for (epsilon, want) in fixture["rms_norm_of_rows_times_0.001"].as_object().unwrap() {
            let found = rows(Norm::Rms, None, epsilon.parse().unwrap(), 0.001);
            assert_close(&found, &numbers(want), 2e-6, "RMS norm");
        }
    }

    #[test]
    fn rotary_embedding_is_the_references() {
        let fixture = &fixture()["rope"];
        let positions: Vec<u32> = numbers(&fixture["positions"]).into_iter().map(|position| position as u32).collect();
        for (width, want) in fixture["rotated_by_rotary_width"].as_object().unwrap() {
            for (head, want) in fixture["query"].as_array().unwrap().iter().zip(want.as_array().unwrap()) {
                for ((row, want), position) in
                    head.as_array().unwrap().iter().zip(want.as_array().unwrap()).zip(&positions)
                {
                    let mut row = numbers(row);
                    let head_width = row.len();
                    let width: usize = width.parse().unwrap();
                    let frequency = |pair: usize| 1.0 / 10_000f32.powf((2 * pair) as f32 / width as f32);
                    let frequencies: Vec<f32> = (0..width / 2).map(frequency).collect();
                    rotate(&mut row, *position, head_width, &frequencies);
                    assert_close(&row, &numbers(want), 1e-5, "rope");
                }
            }
        }
    }
}

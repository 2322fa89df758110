//! When two results are alike: the thresholds for each storage type, in one place.

use flamant::probe::Dtype;

/// How far a result may be from the one that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Mean squared difference, as a share of the mean square.
    pub mean: f64,
    /// The same of one row.
    pub row: f64,
    /// Largest difference, as a share of the root mean square of its row.
    pub largest: f64,
}

/// Rounding a result to nearest, which cannot be avoided, gives a mean of 2.8e-6 (bf16) or 4.4e-8 (f16) for near-normal
/// numbers, and a largest difference of half a unit in the last place of a number four times its row's root mean
/// square: 0.016 or 0.002. What is rounded on the way (normed queries and keys, probabilities, both factors of a pair)
/// brings the worst case to 9e-6 or 1.3e-7, and 0.028 or 0.003.
///
/// Without a type, numbers are f32 as on the processor. What is rounded there has little weight but where it is
/// large and then goes into an exponential, a sine or a cosine: scores of 64 and more, and angles of 128 and more, are
/// off by 4e-6 and 8e-6, and so is what is weighed with the one or turned by the other. That brings the worst case to
/// 5e-13, 1.3e-11 in its row, and 1.1e-5.
pub fn tolerance(dtype: Option<Dtype>) -> Tolerance {
    match dtype {
        Some(Dtype::Bf16) => Tolerance { mean: 1e-5, row: 4e-5, largest: 0.04 },
        Some(Dtype::F16) => Tolerance { mean: 1.6e-7, row: 6.4e-7, largest: 0.005 },
        Some(Dtype::F32) | None => Tolerance { mean: 1e-12, row: 4e-11, largest: 2e-5 },
    }
}

/// The same with keys and values in 8 bits. Where kernels run, what codes stand for is rounded once more; and of keys
/// that were turned, which is rounded before, some become the next code: a sixtieth of a typical number away. That
/// brings the worst case to 1.9e-5 (bf16) or 1.2e-6 (f16), and 8.3e-6 in its row.
pub fn tolerance_int8(dtype: Option<Dtype>) -> Tolerance {
    match dtype {
        Some(Dtype::Bf16) => Tolerance { mean: 3e-5, row: 1.2e-4, largest: 0.04 },
        Some(Dtype::F16) => Tolerance { mean: 2e-6, row: 1.6e-5, largest: 0.015 },
        Some(Dtype::F32) | None => tolerance(dtype),
    }
}

/// Whether rows of `width` are alike.
///
/// # Errors
/// What differs, in a line.
pub fn similar(found: &[f32], want: &[f32], width: usize, dtype: Option<Dtype>) -> Result<(), String> {
    within(found, want, width, tolerance(dtype))
}

/// The same with another tolerance.
///
/// # Errors
/// What differs, in a line.
pub fn within(found: &[f32], want: &[f32], width: usize, tolerance: Tolerance) -> Result<(), String> {
    let Tolerance { mean, row: row_mean, largest } = tolerance;
    if found.len() != want.len() {
        return Err(format!("{} numbers, wanted {}", found.len(), want.len()));
    }
    assert!(!want.is_empty() && want.len().is_multiple_of(width) && want.iter().all(|want| want.is_finite()));
    let nan = found.iter().filter(|found| found.is_nan()).count();
    let infinite = found.iter().filter(|found| found.is_infinite()).count();
    if nan + infinite > 0 {
        let at = found.iter().position(|found| !found.is_finite()).unwrap_or_default();
        return Err(format!(
            "{nan} NaN and {infinite} infinite of {}, the first in row {} column {}",
            found.len(),
            at / width,
            at % width
        ));
    }
    let squares = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let (mut error, mut whole) = (0.0, 0.0);
    for (index, (found, want)) in found.chunks_exact(width).zip(want.chunks_exact(width)).enumerate() {
        let differences: Vec<f32> = found.iter().zip(want).map(|(found, want)| found - want).collect();
        let (row_error, row_whole) = (squares(&differences), squares(want));
        let scale = (row_whole / width as f64).sqrt();
        let (at, far) =
            differences.iter().map(|x| f64::from(x.abs())).enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        if far > largest * scale {
            let (found, want) = (found[at], want[at]);
            return Err(format!("row {index} column {at}: {found} is not {want} (the row is about {scale:.3})"));
        }
        // A mean over few numbers says nothing.
        if width >= 16 && row_error > row_mean * row_whole {
            return Err(format!("row {index}: mean squared difference {:.2e} of its square", row_error / row_whole));
        }
        error += row_error;
        whole += row_whole;
    }
    if error > mean * whole {
        return Err(format!("mean squared difference {:.2e} of the mean square", error / whole));
    }
    Ok(())
}

/// Mean squared difference as a share of the mean square, and the largest difference as a share of its row's root mean
/// square: what [`similar`] bounds.
pub fn distance(found: &[f32], want: &[f32], width: usize) -> (f64, f64) {
    let (mut error, mut whole, mut largest) = (0.0, 0.0, 0f64);
    for (found, want) in found.chunks_exact(width).zip(want.chunks_exact(width)) {
        let square = want.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let scale = (square / width as f64).sqrt();
        for (found, want) in found.iter().zip(want) {
            let difference = f64::from(found - want).abs();
            error += difference.powi(2);
            if difference > 0.0 {
                largest = largest.max(difference / scale);
            }
        }
        whole += square;
    }
    (error / whole, largest)
}

#[cfg(test)]
mod tests {
    use super::super::numbers::fill;
    use super::*;

    const ROWS: usize = 37;
    const WIDTH: usize = 53;

    fn numbers() -> Vec<f32> {
        let mut values = Vec::new();
        fill(&mut values, ROWS * WIDTH, 5, 0.0, 1.0);
        values
    }

    fn changed(change: impl FnOnce(&mut [f32])) -> Vec<f32> {
        let mut values = numbers();
        change(&mut values);
        values
    }

    #[test]
    fn what_is_rounded_passes_and_what_is_wrong_fails() {
        // Half a unit in the last place; of f32 eight times as much, for what comes from sums.
        for (dtype, unit) in
            [(Some(Dtype::Bf16), 1.0 / 512.0), (Some(Dtype::F16), 1.0 / 4096.0), (None, 1.0 / (1 << 21) as f32)]
        {
            let check = |found: &[f32], want: &[f32]| similar(found, want, WIDTH, dtype);
            let want = numbers();
            assert_eq!(check(&want, &want), Ok(()));
            // Up and down.
            let rounded = changed(|values| {
                values.iter_mut().zip([1.0, -1.0].iter().cycle()).for_each(|(value, sign)| *value *= 1.0 + sign * unit);
            });
            assert_eq!(check(&rounded, &want), Ok(()), "{dtype:?}");
            let wrong = [
                ("NaN", changed(|values| values[700] = f32::NAN)),
                ("infinity", changed(|values| values[3] = f32::INFINITY)),
                ("one number", changed(|values| values[ROWS * WIDTH - 1] += 0.1)),
                ("a sign", changed(|values| values[90] = -values[90] - 0.05)),
                ("rows swapped", changed(|values| values[WIDTH..3 * WIDTH].rotate_left(WIDTH))),
                ("a row shifted", changed(|values| values[..WIDTH].rotate_left(1))),
                ("a row twice", changed(|values| values.copy_within(..WIDTH, WIDTH))),
                ("zeros", vec![0.0; ROWS * WIDTH]),
                ("a bias", changed(|values| values.iter_mut().for_each(|value| *value += 8.0 * unit))),
                ("a factor", changed(|values| values.iter_mut().for_each(|value| *value *= 1.0 + 8.0 * unit))),
                ("fewer", numbers()[WIDTH..].to_vec()),
            ];
            for (what, found) in wrong {
                assert!(check(&found, &want).is_err(), "{dtype:?}: {what}");
            }
        }
    }
}

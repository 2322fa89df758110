//! How sure a mean over examples is: the percentile bootstrap (Efron 1979). Examples are drawn again with replacement,
//! many times, and the interval holds the middle share of the means so found. The draws depend on the seed alone.

use super::mean;
use crate::error::{Error, Result};
use crate::sample::uniform;

/// A mean and the interval it lies in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The mean of the examples.
    pub mean: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The interval that holds the mean of `values` with a `confidence` between 0 and 1 (0.95 is usual), from `draws` (1000
/// is usual). Between two means, the ends are interpolated.
///
/// # Errors
/// With no values, values that are not finite, no draws, or a confidence that is not between 0 and 1.
pub fn interval(values: &[f64], confidence: f64, draws: usize, seed: u64) -> Result<Interval> {
    if values.is_empty() {
        return Err(Error::argument("bootstrap: expected at least 1 value, found none"));
    }
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::argument(format!("bootstrap: value {at}: expected a finite number, found {}", values[at])));
    }
    if draws == 0 || !(confidence > 0.0 && confidence < 1.0) {
        let wanted = "expected at least 1 draw and a confidence between 0 and 1";
        return Err(Error::argument(format!("bootstrap: {wanted}, found {draws} draws and {confidence}")));
    }
    let count = values.len();
    let mut means: Vec<f64> = (0..draws)
        .map(|draw| {
            let drawn = (0..count).map(|example| {
                let share = uniform(seed, (draw * count + example) as u64);
                values[((share * count as f64) as usize).min(count - 1)]
            });
            mean(drawn)
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let at = share * (draws - 1) as f64;
        let below = means[at.floor() as usize];
        let above = means[at.ceil() as usize];
        below + (above - below) * at.fract()
    };
    let tail = (1.0 - confidence) / 2.0;
    Ok(Interval { mean: mean(values.iter().copied()), low: quantile(tail), high: quantile(1.0 - tail) })
}

//! How sure a score over examples is: the percentile bootstrap (Efron 1979). Examples are drawn again with replacement,
//! many times, and the interval holds the middle share of the scores so found. The draws depend on the seed alone.
//! Where all examples score the same it has no width, whatever their number: see
//! [`score_interval`](super::score_interval).

use super::mean;
use crate::error::{Error, Result};
use crate::sample::uniform;

/// A score and the interval it lies in.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Interval {
    /// The score of the examples.
    pub score: f64,
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
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::argument(format!("bootstrap: value {at}: expected a finite number, found {}", values[at])));
    }
    let count = values.len();
    if count == 0 {
        return Err(Error::argument("bootstrap: expected at least 1 value, found none"));
    }
    if draws == 0 || !(confidence > 0.0 && confidence < 1.0) {
        let wanted = "expected at least 1 draw and a confidence between 0 and 1";
        return Err(Error::argument(format!("bootstrap: {wanted}, found {draws} draws and {confidence}")));
    }
    let mean_of_draw = |draw: usize| {
        let drawn = (0..count).map(|example| {
            let share = uniform(seed, (draw * count + example) as u64);
            values[((share * count as f64) as usize).min(count - 1)]
        });
        mean(drawn)
    };
    let mut scores: Vec<f64> = (0..draws).map(mean_of_draw).collect();
    scores.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let at = share * (draws - 1) as f64;
        let below = scores[at.floor() as usize];
        let above = scores[at.ceil() as usize];
        below + (above - below) * at.fract()
    };
    let tail = (1.0 - confidence) / 2.0;
    Ok(Interval { score: mean(values.iter().copied()), low: quantile(tail), high: quantile(1.0 - tail) })
}

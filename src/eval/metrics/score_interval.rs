//! How sure a score is, where resampling says nothing: an interval of all true scores that a test does not refuse,
//! after what was found. Unlike the bootstrap's it has a width where all examples score the same, as 12 wrong answers
//! of 12 do.

use super::bootstrap::Interval;

/// The quantile of the normal distribution that leaves 2.5 % above.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % interval of a mean of values from 0 to 1 (Wilson 1927). It is made for shares of right answers. Values in
/// between, as of answers that some people gave, vary less than a share of the same mean: for them it is wide enough.
pub fn wilson(mean: f64, count: usize) -> Interval {
    assert!(count > 0 && (0.0..=1.0).contains(&mean), "a mean of shares");
    let n = count as f64;
    let shrink = 1.0 / (1.0 + Z * Z / n);
    let centre = (mean + Z * Z / (2.0 * n)) * shrink;
    let half = Z * shrink * (mean * (1.0 - mean) / n + Z * Z / (4.0 * n * n)).sqrt();
    // Nothing is below what was found at the end of the scale, whatever the last bit says.
    let low = if mean == 0.0 { 0.0 } else { (centre - half).clamp(0.0, mean) };
    let high = if mean == 1.0 { 1.0 } else { (centre + half).clamp(mean, 1.0) };
    Interval { score: mean, low, high }
}

/// The 95 % interval of an area under the ROC curve (Newcombe 2006, method 5): of all areas from which the one found is
/// not further away than 1.96 of their own standard deviations, which are those of Hanley and McNeil with the mean of
/// both numbers of examples for each.
pub fn area(area: f64, positives: usize, negatives: usize) -> Interval {
    assert!(positives > 0 && negatives > 0 && (0.0..=1.0).contains(&area), "an area of both kinds");
    let (m, n) = (positives as f64, negatives as f64);
    let others = (m + n) / 2.0 - 1.0;
    let deviation = |area: f64| {
        let pairs = 1.0 + others * ((1.0 - area) / (2.0 - area) + area / (1.0 + area));
        (area * (1.0 - area) * pairs / (m * n)).sqrt()
    };
    // From the area outwards to the end of the scale.
    let last = |end: f64| {
        let (mut inside, mut outside) = (area, end);
        for _ in 0..f64::MANTISSA_DIGITS {
            let middle = (inside + outside) / 2.0;
            let place = if (middle - area).abs() <= Z * deviation(middle) { &mut inside } else { &mut outside };
            *place = middle;
        }
        inside
    };
    Interval { score: area, low: last(0.0), high: last(1.0) }
}

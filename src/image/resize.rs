//! Resizing exactly as Pillow 12.0 does it: by a filter, in fixed point for 8-bit channels, in doubles for 16-bit grey,
//! and by nearest neighbour for modes whose values cannot be mixed.
//!
//! Always the horizontal pass first, each pass rounded to whole levels. (Pillow 13.0 turns the order round for some
//! shapes and then differs by up to 4 levels; the models were trained and evaluated with older ones.) Only a window of
//! the result is computed, so that cropping the middle out of a very long image costs no more than the window.

use std::ops::Range;

/// One axis of a resize: `source` samples become `target` samples, of which only `window` is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub source: usize,
    pub target: usize,
    pub window: Range<usize>,
}

/// A channel value that the passes can mix, with Pillow's arithmetic for its width.
pub(super) trait Sample: Copy + Default {
    type Sum: Copy;
    const HALF: Self::Sum;
    fn weight(weight: f64) -> Self::Sum;
    fn add(sum: Self::Sum, weight: Self::Sum, value: Self) -> Self::Sum;
    fn round(sum: Self::Sum) -> Self;
}

/// Bits behind the point of an 8-bit weight: 32, less 8 for the value and 2 for overshoot.
const FRACTION_BITS: u32 = 22;

impl Sample for u8 {
    type Sum = i32;
    const HALF: i32 = 1 << (FRACTION_BITS - 1);

    fn weight(weight: f64) -> i32 {
        let scaled = weight * f64::from(1 << FRACTION_BITS);
        (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
    }

    fn add(sum: i32, weight: i32, value: u8) -> i32 {
        sum + weight * i32::from(value)
    }

    fn round(sum: i32) -> u8 {
        (sum >> FRACTION_BITS).clamp(0, 255) as u8
    }
}

impl Sample for u16 {
    type Sum = f64;
    const HALF: f64 = 0.0;

    fn weight(weight: f64) -> f64 {
        weight
    }

    fn add(sum: f64, weight: f64, value: u16) -> f64 {
        sum + f64::from(value) * weight
    }

    /// Pillow clips the two bytes one by one: 65 540 becomes 255 * 256 + 4, and what is below zero becomes 0.
    fn round(sum: f64) -> u16 {
        let level = (if sum >= 0.0 { sum + 0.5 } else { sum - 0.5 }) as i32;
        let low = (level % 256).clamp(0, 255) as u16;
        let high = (level >> 8).clamp(0, 255) as u16;
        high << 8 | low
    }
}

/// A filter of Pillow's: what a sample at some distance from the middle counts, and up to which distance any does.
pub(super) struct Filter {
    support: f64,
    weight: fn(f64) -> f64,
}

/// Keys' cubic.
pub(super) const BICUBIC: Filter = Filter { support: 2.0, weight: keys_cubic };
/// A triangle.
pub(super) const BILINEAR: Filter = Filter { support: 1.0, weight: |distance| (1.0 - distance.abs()).max(0.0) };

/// The window of an image resized by a filter.
///
/// `pixels` is (y.source, x.source, CHANNELS); the result is (y.window, x.window, CHANNELS).
pub(super) fn filtered<S: Sample, const CHANNELS: usize>(pixels: &[S], x: &Axis, y: &Axis, filter: &Filter) -> Vec<S> {
    let rows = Taps::of::<S>(y, filter);
    let columns = Taps::of::<S>(x, filter);
    let needed = rows.source_span();
    let row_length = x.source * CHANNELS;
    let source = &pixels[needed.start * row_length..needed.end * row_length];
    let narrowed = horizontal::<S, CHANNELS>(source, row_length, &columns);
    vertical(&narrowed, x.window.len() * CHANNELS, &rows, needed.start)
}

/// The window of an image resized by nearest neighbour: (y.source, x.source) becomes (y.window, x.window).
pub(super) fn nearest(pixels: &[u8], x: &Axis, y: &Axis) -> Vec<u8> {
    let columns = nearest_positions(x);
    let mut resized = Vec::with_capacity(columns.len() * y.window.len());
    for row in nearest_positions(y) {
        let row = &pixels[row * x.source..][..x.source];
        resized.extend(columns.iter().map(|&column| row[column]));
    }
    resized
}

/// Where each wanted sample is taken from. The position is summed up step by step, as Pillow's rounding depends on it.
fn nearest_positions(axis: &Axis) -> Vec<usize> {
    let step = axis.source as f64 / axis.target as f64;
    let mut position = step * 0.5;
    let mut positions = Vec::with_capacity(axis.window.len());
    for target in 0..axis.window.end {
        if target >= axis.window.start {
            positions.push((position as usize).min(axis.source - 1));
        }
        position += step;
    }
    positions
}

/// For each wanted sample of an axis: the first source sample that it reads, and the weight of that and the following.
struct Taps<W> {
    starts: Vec<usize>,
    weights: Vec<Vec<W>>,
}

impl<W: Copy> Taps<W> {
    /// The taps of a filter, widened by the scale when an axis shrinks; those beyond the edge are left out.
    fn of<S: Sample<Sum = W>>(axis: &Axis, filter: &Filter) -> Self {
        let scale = axis.source as f64 / axis.target as f64;
        let stretch = scale.max(1.0);
        let support = filter.support * stretch;
        let mut taps = Taps { starts: Vec::new(), weights: Vec::new() };
        for target in axis.window.clone() {
            let centre = (target as f64 + 0.5) * scale;
            // A cast of a negative number stops at zero, which is the edge.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(axis.source);
            let weight_at = |source: usize| (filter.weight)((source as f64 - centre + 0.5) * (1.0 / stretch));
            let weights: Vec<f64> = (start..end).map(weight_at).collect();
            let total: f64 = weights.iter().sum();
            taps.starts.push(start);
            taps.weights.push(weights.into_iter().map(|weight| S::weight(weight / total)).collect());
        }
        taps
    }

    /// The source samples that any tap reads.
    fn source_span(&self) -> Range<usize> {
        let last = self.starts.len() - 1;
        self.starts[0]..self.starts[last] + self.weights[last].len()
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[W])> {
        self.starts.iter().copied().zip(self.weights.iter().map(Vec::as_slice))
    }
}

/// Keys' cubic convolution kernel with a = -0.5, written out in Pillow's order of operations.
fn keys_cubic(distance: f64) -> f64 {
    const A: f64 = -0.5;
    let x = distance.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Mixes the columns of every row: (rows, row_length) becomes (rows, taps * CHANNELS).
fn horizontal<S: Sample, const CHANNELS: usize>(rows: &[S], row_length: usize, taps: &Taps<S::Sum>) -> Vec<S> {
    let mut mixed = Vec::with_capacity(rows.len() / row_length * taps.starts.len() * CHANNELS);
    for row in rows.chunks_exact(row_length) {
        let (row, _) = row.as_chunks::<CHANNELS>();
        for (start, weights) in taps.iter() {
            let mut sums = [S::HALF; CHANNELS];
            for (pixel, &weight) in row[start..].iter().zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum = S::add(*sum, weight, value);
                }
            }
            mixed.extend(sums.map(S::round));
        }
    }
    mixed
}

/// Mixes whole rows, of which the first is number `first_row` of the image: the result is (taps, row_length).
fn vertical<S: Sample>(rows: &[S], row_length: usize, taps: &Taps<S::Sum>, first_row: usize) -> Vec<S> {
    let mut mixed = Vec::with_capacity(taps.starts.len() * row_length);
    let mut sums = vec![S::HALF; row_length];
    for (start, weights) in taps.iter() {
        sums.fill(S::HALF);
        let sources = rows[(start - first_row) * row_length..].chunks_exact(row_length);
        for (row, &weight) in sources.zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum = S::add(*sum, weight, value);
            }
        }
        mixed.extend(sums.iter().copied().map(S::round));
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(source: usize, target: usize) -> Axis {
        Axis { source, target, window: 0..target }
    }

    #[test]
    fn an_unchanged_size_leaves_every_sample_as_it_was() {
        let levels: Vec<u8> = (0..=255).collect();
        let words: Vec<u16> = (0..256).map(|level| level * 257).collect();
        for filter in [BICUBIC, BILINEAR] {
            assert_eq!(filtered::<u8, 1>(&levels, &whole(16, 16), &whole(16, 16), &filter), levels);
            assert_eq!(filtered::<u16, 1>(&words, &whole(16, 16), &whole(16, 16), &filter), words);
        }
        assert_eq!(nearest(&levels, &whole(16, 16), &whole(16, 16)), levels);
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        let image: Vec<u8> = (0..20 * 30 * 3).map(|index| (index * 7919 % 251) as u8).collect();
        let full = filtered::<u8, 3>(&image, &whole(20, 33), &whole(30, 17), &BICUBIC);
        let (left, top) = (5..25, 3..9);
        let x = Axis { window: left.clone(), ..whole(20, 33) };
        let y = Axis { window: top.clone(), ..whole(30, 17) };
        let part = filtered::<u8, 3>(&image, &x, &y, &BICUBIC);
        let cut: Vec<u8> =
            top.flat_map(|row| full[(row * 33 + left.start) * 3..(row * 33 + left.end) * 3].to_vec()).collect();
        assert_eq!(part, cut);
    }
}

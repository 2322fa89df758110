//! Which frames of a video are kept: times first, where there are times, and then a thinning to a most.
//!
//! Both are rules of integers and a rate alone, so a video always gives the same frames; neither needs to know how long
//! the video is before its end is seen, and no more than twice the frames asked for are ever held.

use super::FRAMES_MAX;
use crate::error::{Error, Result};
use crate::setters::setters;

/// How frames are taken from a video.
///
/// From what has times (an animation, a video file), the frames looked at are those shown at 0, 1, 2, ... times
/// `1 / per_second` seconds, up to the end; what has none (a folder, a list of files) is looked at frame by frame. If
/// these are at most `frames_max`, all are kept. If not, every second of them is passed over, again and again, until at
/// most `2 * frames_max` remain; of those `n`, number `round(i * (n - 1) / (frames_max - 1))` is kept for each `i` from
/// 0 to `frames_max - 1`, halves rounded up: the first, the last of these, and others evenly
/// between; for a `frames_max` of 1 the first.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FrameSampling {
    /// Frames looked at for a second of video: from 0.001 to 1000. Flamingo was trained at 1 and evaluated at 3
    /// (paper 2.1, A.1.1).
    pub per_second: f64,
    /// Frames kept at most: from 1 to [`FRAMES_MAX`]. Flamingo was trained with 8 and evaluated with 30.
    pub frames_max: usize,
}

impl Default for FrameSampling {
    fn default() -> Self {
        FrameSampling { per_second: 1.0, frames_max: 8 }
    }
}

setters!(FrameSampling { per_second: f64, frames_max: usize });

impl FrameSampling {
    /// # Errors
    /// A value out of its range.
    pub fn check(&self) -> Result<()> {
        if !(0.001..=1000.0).contains(&self.per_second) {
            let expected = "frames a second of a video: expected a number from 0.001 to 1000";
            return Err(Error::argument(format!("{expected}, found {}", self.per_second)));
        }
        if !(1..=FRAMES_MAX).contains(&self.frames_max) {
            let expected = format!("frames of a video: expected a number from 1 to {FRAMES_MAX}");
            return Err(Error::argument(format!("{expected}, found {}", self.frames_max)));
        }
        Ok(())
    }

    /// Those of `items` that are kept where there are no times.
    ///
    /// # Panics
    /// Settings that [`FrameSampling::check`] refuses.
    pub fn thinned<T>(&self, items: Vec<T>) -> Vec<T> {
        let mut thinning = Thinning::new(self.frames_max);
        for item in items {
            thinning.offer(|| Ok(item)).expect("nothing here can fail");
        }
        thinning.finish()
    }
}

/// The frames kept so far of those looked at.
pub(super) struct Thinning<T> {
    frames_max: usize,
    /// A power of two: the frames held are those whose number is a multiple of it.
    stride: u64,
    offered: u64,
    held: Vec<T>,
}

impl<T> Thinning<T> {
    pub(super) fn new(frames_max: usize) -> Self {
        Thinning { frames_max, stride: 1, offered: 0, held: Vec::new() }
    }

    /// Frames looked at.
    pub(super) fn offered(&self) -> u64 {
        self.offered
    }

    /// What is held now.
    pub(super) fn held(&self) -> &[T] {
        &self.held
    }

    /// Looks at the next frame, which is made only if it is to be held.
    pub(super) fn offer(&mut self, make: impl FnOnce() -> Result<T>) -> Result<()> {
        if self.offered.is_multiple_of(self.stride) {
            if self.held.len() == 2 * self.frames_max {
                let mut number = 0;
                self.held.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                // The frame at hand is a multiple of the new stride too: an even number of them was held.
                self.stride *= 2;
            }
            self.held.push(make()?);
        }
        self.offered += 1;
        Ok(())
    }

    /// What is kept, in order.
    pub(super) fn finish(self) -> Vec<T> {
        if self.held.len() <= self.frames_max {
            return self.held;
        }
        let (last, gaps) = (self.held.len() - 1, (self.frames_max - 1).max(1));
        let mut kept = (0..self.frames_max).map(|number| (2 * number * last + gaps) / (2 * gaps)).peekable();
        self.held
            .into_iter()
            .enumerate()
            .filter_map(|(number, frame)| kept.next_if_eq(&number).map(|_| frame))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(count: usize, frames_max: usize) -> Vec<usize> {
        FrameSampling { frames_max, ..FrameSampling::default() }.thinned((0..count).collect())
    }

    #[test]
    fn few_frames_are_all_kept_and_many_evenly() {
        assert_eq!(kept(0, 8), [0; 0]);
        assert_eq!(kept(8, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(kept(10, 8), [0, 1, 3, 4, 5, 6, 8, 9]);
        // 17 are over twice 8: the even ones, of which there are 9.
        assert_eq!(kept(17, 8), [0, 2, 4, 6, 10, 12, 14, 16]);
        assert_eq!(kept(100, 1), [0]);
        assert_eq!(kept(100, 2), [0, 96]);
    }

    /// The rule as it is documented, worked out from the count.
    #[test]
    fn thinning_as_frames_come_is_the_rule() {
        for frames_max in [1, 2, 3, 7, 8, 30, 128] {
            for count in (0..700).chain([3600, 36_000]) {
                let mut left: Vec<usize> = (0..count).collect();
                while left.len() > 2 * frames_max {
                    left = left.into_iter().step_by(2).collect();
                }
                if left.len() > frames_max {
                    let place = |number: usize| {
                        let gaps = frames_max.saturating_sub(1).max(1) as f64;
                        (number as f64 * (left.len() - 1) as f64 / gaps + 0.5).floor() as usize
                    };
                    left = (0..frames_max).map(|number| left[place(number)]).collect();
                }
                assert_eq!(kept(count, frames_max), left, "{count} to {frames_max}");
            }
        }
    }

    #[test]
    fn what_is_passed_over_is_never_made() {
        let mut thinning = Thinning::new(8);
        let mut made = 0;
        for _ in 0..100_000 {
            thinning
                .offer(|| {
                    made += 1;
                    Ok(())
                })
                .unwrap();
            assert!(thinning.held().len() <= 16);
        }
        assert!(made < 200, "{made}");
    }
}

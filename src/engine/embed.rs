//! Features of images, by which retrieval compares them: calls for them, and the batches that a device runs.

use std::sync::Arc;

use super::Engine;
use super::budget::Share;
use super::preparer::Pixels;
use crate::error::{Error, Result};
use crate::image::Image;

/// Gets the features that were asked for from another thread, or why there are none.
pub(super) type Reply = Box<dyn FnOnce(Result<Vec<Vec<f32>>>) + Send>;

/// A call for features from another thread.
pub(super) struct Call {
    work: Work,
    reply: Reply,
    /// Held until it is answered.
    share: Share,
}

impl Call {
    pub fn new(share: Share, reply: Reply) -> Call {
        Call { work: Work::new(share.pixels.clone()), reply, share }
    }

    fn answer(self) {
        let Call { work, reply, share } = self;
        let found = work.finish();
        // Whoever gets the answer may ask again.
        drop(share);
        reply(found);
    }

    fn fail(self, error: Error) {
        drop(self.share);
        (self.reply)(Err(error));
    }
}

/// Images and videos on their way through the vision tower, frame by frame.
struct Work {
    media: Vec<Arc<Pixels>>,
    /// Frames of all.
    frames: usize,
    /// Features of the frames that are through, one after the other.
    values: Vec<f32>,
    done: usize,
}

impl Work {
    fn new(media: Vec<Arc<Pixels>>) -> Work {
        let frames = media.iter().map(|pixels| pixels.frame_count()).sum();
        Work { media, frames, values: Vec::new(), done: 0 }
    }

    fn left(&self) -> usize {
        self.frames - self.done
    }

    /// The frames that are not through.
    fn open_frames(&self) -> impl Iterator<Item = &[u8]> {
        self.media.iter().flat_map(|pixels| pixels.frames()).skip(self.done)
    }

    /// A unit vector for each image or video: of a video, along the mean of its frames.
    ///
    /// # Errors
    /// Features that are not finite.
    fn finish(mut self) -> Result<Vec<Vec<f32>>> {
        assert_eq!(self.left(), 0, "all frames are through");
        let width = self.values.len() / self.frames.max(1);
        let mut frames = self.values.chunks_exact_mut(width.max(1));
        let mean = |(image, pixels): (usize, &Arc<Pixels>)| {
            let mut sum = vec![0.0; width];
            for frame in frames.by_ref().take(pixels.frame_count()) {
                unit(frame);
                sum.iter_mut().zip(frame).for_each(|(sum, value)| *sum += *value);
            }
            unit(&mut sum);
            match sum.iter().all(|value| value.is_finite()) {
                true => Ok(sum),
                false => Err(Error::FeaturesNotFinite { image }),
            }
        };
        self.media.iter().enumerate().map(mean).collect()
    }
}

/// Brings a vector to length 1, if it has any.
fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

impl Engine {
    /// What the model's own vision tower compares images by (paper, appendix B.2): the class token after the tower's
    /// last norm, projected where the checkpoint has CLIP's projection; of a video the mean of its frames. Each is a
    /// unit vector, so that the dot product of two is how alike they are.
    ///
    /// # Errors
    /// A checkpoint without the tower's last norm; a video without frames; features that are not finite; a device that
    /// is lost or full.
    pub fn features(&mut self, media: &[&[Image]]) -> Result<Vec<Vec<f32>>> {
        if let Some(reason) = self.handle.no_features() {
            return Err(reason.clone());
        }
        let mut work = Work::new(self.handle.preparer().media(media)?);
        while work.left() > 0 {
            let frames = self.frames_of([&work].into_iter());
            self.embed(&mut [&mut work], &frames)?;
        }
        work.finish()
    }

    /// Runs a batch of the calls that wait, and answers those that are done or have failed with the device.
    pub(super) fn answer_calls(&mut self) {
        let mut calls = std::mem::take(&mut self.calls);
        let frames = self.frames_of(calls.iter().map(|call| &call.work));
        let mut works: Vec<&mut Work> = calls.iter_mut().map(|call| &mut call.work).take(frames.len()).collect();
        if let Err(error) = self.embed(&mut works, &frames) {
            calls.drain(..frames.len()).for_each(|call| call.fail(error.clone()));
        }
        while let Some(call) = calls.pop_front_if(|call| call.work.left() == 0) {
            call.answer();
        }
        self.calls = calls;
    }

    /// How many frames of each go into the next batch: no more in all than any step encodes.
    fn frames_of<'a>(&self, works: impl Iterator<Item = &'a Work>) -> Vec<usize> {
        let mut room = self.executor.capacity().images;
        let mut frames = Vec::new();
        for work in works {
            if room == 0 {
                break;
            }
            frames.push(work.left().min(room));
            room -= work.left().min(room);
        }
        frames
    }

    /// Runs so many frames of each together.
    fn embed(&mut self, works: &mut [&mut Work], frames: &[usize]) -> Result<()> {
        let count = frames.iter().sum::<usize>();
        if count == 0 {
            return Ok(());
        }
        let mut pixels: Vec<&[u8]> = Vec::with_capacity(count);
        for (work, &count) in works.iter().zip(frames) {
            pixels.extend(work.open_frames().take(count));
        }
        let mut values = Vec::new();
        self.executor.features(&pixels, &mut values)?;
        self.check_weights()?;
        let width = values.len() / count;
        let mut values = &values[..];
        for (work, &count) in works.iter_mut().zip(frames) {
            let (own, others) = values.split_at(count * width);
            work.values.extend_from_slice(own);
            work.done += count;
            values = others;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(number: u8, frames: usize) -> Arc<Pixels> {
        Arc::new(Pixels::new(blake3::hash(&[number]), vec![number; 3 * frames], frames, 1))
    }

    #[test]
    fn one_that_is_not_finite_is_named() {
        let work = |values: [f32; 8]| {
            let media = vec![pixels(0, 1), pixels(1, 2), pixels(2, 1)];
            Work { values: values.to_vec(), done: 4, ..Work::new(media) }.finish()
        };
        let found = work([3.0, 4.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0]).unwrap();
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert_eq!(found, [vec![0.6, 0.8], vec![half, half], vec![0.0, 0.0]]);
        for bad in [f32::NAN, f32::INFINITY] {
            for (place, image) in [(1, 0), (2, 1), (5, 1), (7, 2)] {
                let mut values = [1.0; 8];
                values[place] = bad;
                assert_eq!(work(values), Err(Error::FeaturesNotFinite { image }), "{bad} at {place}");
            }
        }
    }
}

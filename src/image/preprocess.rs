//! From an image to the input of the vision encoder, in the order of operations of each model family.
//!
//! The 8-bit pixels are those of Pillow 12.0 to the last bit, and so are the floats those of torchvision (OpenFlamingo)
//! and of transformers 4.44 (IDEFICS): a level has only 256 values, so both are one table per channel, which the device
//! looks levels up in when it cuts patches.

use super::resize::{Axis, BICUBIC, Sample, filtered, nearest};
use super::{Image, Mode, memory, rgb_of, tiles};

/// Mean of red, green and blue over CLIP's training images, on the scale 0..1.
pub const CLIP_MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];

/// Standard deviation of red, green and blue over CLIP's training images, on the scale 0..1.
#[expect(clippy::excessive_precision, reason = "the digits as published")]
pub const CLIP_STD: [f32; 3] = [0.26862954, 0.26130258, 0.27577711];

/// How an image of any shape becomes squares, which are the frames that a vision encoder sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Crop {
    /// IDEFICS: laid over white, then both sides brought to the size, whatever that does to the proportions.
    Stretch,
    /// OpenFlamingo (open_clip 2.20): the shorter side brought to the size in the image's own mode, the middle cut
    /// out, then made RGB without regard to alpha.
    ShortestEdgeCentreCrop,
    /// CLIP's processor in transformers (Otter, flamingo-mini): made RGB first, the shorter side brought to the size,
    /// the middle cut out, which begins at half of the margin rounded down.
    RgbShortestEdgeCentreCrop,
    /// Llama-3.2-Vision: laid over white, brought to a size between one square and several, without a change of
    /// proportions, padded with black at the right and below, and cut into squares, row by row.
    Tiles {
        /// Most squares of an image; at least 1.
        tiles_max: usize,
    },
}

impl Crop {
    /// Whether the shorter side decides and the middle is cut out.
    pub fn cuts(self) -> bool {
        matches!(self, Crop::ShortestEdgeCentreCrop | Crop::RgbShortestEdgeCentreCrop)
    }
}

/// What the encoder sees of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frames {
    /// (tiles, side, side, 3), 8 bits: squares from left to right and from the top, rows of pixels from the top.
    pub rgb: Vec<u8>,
    /// Squares; 1 unless the image is cut into tiles.
    pub tiles: usize,
    /// With [`Crop::Tiles`] 1 and the place of (tiles down, tiles across) in the list of all pairs whose product is at
    /// most `tiles_max`, ordered by the tiles down, then by the tiles across. Otherwise 0.
    pub ratio: u32,
}

/// The recipe by which a model family prepares its images.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Preprocessor {
    /// How the squares are made.
    pub crop: Crop,
    /// Side of a square in pixels; at least 1.
    pub size: usize,
    /// What a level of 0..=255 is multiplied with before the normalisation; 1/255 in every known model.
    pub rescale: f64,
    /// Taken off red, green and blue.
    pub mean: [f32; 3],
    /// What red, green and blue are then divided by.
    pub std: [f32; 3],
}

impl Preprocessor {
    /// The recipe of all published models: levels to 0..1, then CLIP's mean and standard deviation.
    pub fn clip(crop: Crop, size: usize) -> Self {
        Preprocessor { crop, size, rescale: 1.0 / 255.0, mean: CLIP_MEAN, std: CLIP_STD }
    }

    /// The encoder's input.
    pub fn frames(&self, image: &Image) -> Frames {
        let rgb = match self.crop {
            Crop::Stretch => {
                let axis = |source| Axis { source, target: self.size, window: 0..self.size };
                bicubic::<u8, 3>(&image.over_white(), &axis(image.width), &axis(image.height))
            }
            Crop::ShortestEdgeCentreCrop => {
                let short = image.width.min(image.height);
                let axis = |source| centre(source, short, self.size, f64::round_ties_even);
                resize_in_mode(image, &axis(image.width), &axis(image.height))
            }
            Crop::RgbShortestEdgeCentreCrop => {
                let short = image.width.min(image.height);
                let axis = |source| centre(source, short, self.size, f64::floor);
                let rgb = rgb_of(image.mode, &image.palette, &image.pixels);
                bicubic::<u8, 3>(&rgb, &axis(image.width), &axis(image.height))
            }
            Crop::Tiles { tiles_max } => return tiles::cut(image, self.size, tiles_max),
        };
        Frames { rgb, tiles: 1, ratio: 0 }
    }

    /// All squares of an image, one after another: [`Frames::rgb`].
    pub fn rgb(&self, image: &Image) -> Vec<u8> {
        self.frames(image).rgb
    }

    /// What each level of each channel is for the encoder: the table (3, 256) of the normalisation. The product is
    /// rounded to single precision once, as in both references.
    pub fn levels(&self) -> Vec<f32> {
        let normalised = |channel: usize, level: usize| {
            let scaled = (level as f64 * self.rescale) as f32;
            (scaled - self.mean[channel]) / self.std[channel]
        };
        (0..3).flat_map(|channel| (0..256).map(move |level| normalised(channel, level))).collect()
    }
}

/// The middle `size` samples of an axis that is scaled by `size / short`, where half of a margin is rounded so.
fn centre(source: usize, short: usize, size: usize, round: fn(f64) -> f64) -> Axis {
    // Python's `int(size * long / short)`, exact for the short side.
    let target = ((size * source) as f64 / short as f64) as usize;
    let start = round((target - size) as f64 / 2.0) as usize;
    Axis { source, target, window: start..start + size }
}

fn bicubic<S: Sample, const CHANNELS: usize>(pixels: &[S], x: &Axis, y: &Axis) -> Vec<S> {
    filtered::<S, CHANNELS>(pixels, x, y, &BICUBIC)
}

/// Resizes as Pillow's `resize` does for the image's mode, then converts the window to RGB.
fn resize_in_mode(image: &Image, x: &Axis, y: &Axis) -> Vec<u8> {
    let pixels = &image.pixels;
    let window = match image.mode {
        Mode::Bilevel | Mode::Palette => nearest(pixels, x, y),
        Mode::Gray => bicubic::<u8, 1>(pixels, x, y),
        Mode::Rgb => bicubic::<u8, 3>(pixels, x, y),
        Mode::Cmyk => bicubic::<u8, 4>(pixels, x, y),
        Mode::GrayAlpha => bicubic_premultiplied::<2>(pixels, x, y),
        Mode::Rgba => bicubic_premultiplied::<4>(pixels, x, y),
        Mode::Gray16 => {
            let mut words: Vec<u16> = memory::room(pixels.len() / 2);
            words.extend(pixels.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)));
            bicubic::<u16, 1>(&words, x, y).into_iter().flat_map(u16::to_le_bytes).collect()
        }
    };
    rgb_of(image.mode, &image.palette, &window).into_owned()
}

/// Resizes pixels whose last channel is alpha; colours count by how much they show.
fn bicubic_premultiplied<const CHANNELS: usize>(pixels: &[u8], x: &Axis, y: &Axis) -> Vec<u8> {
    // Going to premultiplied and back loses levels, so an unchanged size must not take that way.
    if x.source == x.target && y.source == y.target {
        return bicubic::<u8, CHANNELS>(pixels, x, y);
    }
    let mut premultiplied = memory::room(pixels.len());
    premultiplied.extend_from_slice(pixels);
    for_each_colour::<CHANNELS>(&mut premultiplied, |value, alpha| {
        let product = value * alpha + 128;
        (product + (product >> 8)) >> 8
    });
    let mut resized = bicubic::<u8, CHANNELS>(&premultiplied, x, y);
    for_each_colour::<CHANNELS>(&mut resized, |value, alpha| match alpha {
        0 | 255 => value,
        _ => (255 * value / alpha).min(255),
    });
    resized
}

/// Replaces each colour channel by `change(value, alpha)`.
fn for_each_colour<const CHANNELS: usize>(pixels: &mut [u8], change: impl Fn(u32, u32) -> u32) {
    for pixel in pixels.chunks_exact_mut(CHANNELS) {
        let alpha = u32::from(pixel[CHANNELS - 1]);
        for value in &mut pixel[..CHANNELS - 1] {
            *value = change(u32::from(*value), alpha) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_table_serves_both_references() {
        // torchvision divides in single precision, transformers multiplies in double and rounds: the same 256 numbers.
        for level in 0..=255u8 {
            assert_eq!(f32::from(level) / 255.0, (f64::from(level) * (1.0 / 255.0)) as f32);
        }
    }

    #[test]
    fn the_middle_is_found_with_rounding_to_even_or_down() {
        let even = |source, short, size| centre(source, short, size, f64::round_ties_even);
        assert_eq!(even(500, 300, 224), Axis { source: 500, target: 373, window: 74..298 });
        assert_eq!(even(301, 300, 300), Axis { source: 301, target: 301, window: 0..300 });
        assert_eq!(even(303, 300, 300), Axis { source: 303, target: 303, window: 2..302 });
        assert_eq!(even(300, 300, 224), Axis { source: 300, target: 224, window: 0..224 });
        assert_eq!(centre(303, 300, 300, f64::floor), Axis { source: 303, target: 303, window: 1..301 });
        assert_eq!(centre(301, 300, 300, f64::floor), Axis { source: 301, target: 301, window: 0..300 });
    }

    #[test]
    fn each_channel_has_levels_of_its_own() {
        let levels = Preprocessor::clip(Crop::Stretch, 2).levels();
        let expected = |level: f32, channel: usize| (level - CLIP_MEAN[channel]) / CLIP_STD[channel];
        assert_eq!(levels.len(), 3 * 256);
        assert_eq!(
            [levels[255], levels[256], levels[512 + 51]],
            [expected(1.0, 0), expected(0.0, 1), expected(0.2, 2)]
        );
    }
}

//! Images: from the bytes of a file to the floats that the vision encoder reads.
//!
//! Three steps, one file each: [`decode()`] makes a [`Image`]; `resize` brings it to the encoder's size exactly as
//! Pillow 12.0 does; a [`Preprocessor`] does that in the order of operations in which a model family was trained, and
//! normalises the result.
//!
//! An image keeps the mode that Pillow would give it, because the mode decides how it is resized: a palette by nearest
//! neighbour, transparency premultiplied, 16-bit grey in 16 bits. Nothing here opens a file or a socket.

mod bmp;
mod decode;
mod exif;
mod foreign;
mod input;
mod jpeg;
pub(crate) mod memory;
mod preprocess;
mod resize;
mod tiles;

pub use decode::decode;
pub(crate) use decode::gif_with_palette;
pub use input::Limits;
pub(crate) use input::{Format, png_chunks};
pub use preprocess::{CLIP_MEAN, CLIP_STD, Crop, Frames, Preprocessor};
pub(crate) use tiles::ratios;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};

/// How the pixels of a [`Image`] are stored, after Pillow's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// "1": one byte, 0 or 255.
    Bilevel,
    /// "L": one byte of grey.
    Gray,
    /// "LA": grey, alpha.
    GrayAlpha,
    /// "P": one byte, an index into [`Image::palette`].
    Palette,
    /// "RGB": red, green, blue.
    Rgb,
    /// "RGBA": red, green, blue, alpha (not premultiplied).
    Rgba,
    /// "I;16": grey in two bytes, the low one first.
    Gray16,
    /// "CMYK": cyan, magenta, yellow, black; 0 is no ink.
    Cmyk,
}

impl Mode {
    /// Bytes that one pixel takes.
    pub fn bytes_per_pixel(self) -> usize {
        match self {
            Mode::Bilevel | Mode::Gray | Mode::Palette => 1,
            Mode::GrayAlpha | Mode::Gray16 => 2,
            Mode::Rgb => 3,
            Mode::Rgba | Mode::Cmyk => 4,
        }
    }
}

/// A decoded image: rows from the top, pixels from the left, channels last.
///
/// Always has at least one pixel, and exactly `width * height * mode.bytes_per_pixel()` bytes. Clones share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    mode: Mode,
    pixels: Arc<Vec<u8>>,
    /// Red, green, blue, alpha by index; all 256 of them for [`Mode::Palette`], empty otherwise.
    palette: Vec<[u8; 4]>,
    /// The level of a grey image that stands for "see-through" (tRNS of a PNG, the transparent index of a grey GIF).
    transparent_gray: Option<u8>,
    content: Content,
}

/// What clones know of [`Image::content`], once one of them was asked. It is no matter of equality.
#[derive(Clone, Debug, Default)]
struct Content(Arc<OnceLock<blake3::Hash>>);

impl PartialEq for Content {
    fn eq(&self, _: &Content) -> bool {
        true
    }
}

impl Eq for Content {}

impl Image {
    /// An image from raw pixels: `width * height * 3` bytes, red, green and blue of each pixel, rows from the top.
    ///
    /// # Errors
    ///
    /// A side of zero, or another number of bytes.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<Image> {
        Image::from_raw(width, height, Mode::Rgb, pixels)
    }

    /// An image from raw pixels with alpha: `width * height * 4` bytes, not premultiplied.
    ///
    /// # Errors
    ///
    /// A side of zero, or another number of bytes.
    pub fn from_rgba(width: u32, height: u32, pixels: Vec<u8>) -> Result<Image> {
        Image::from_raw(width, height, Mode::Rgba, pixels)
    }

    fn from_raw(width: u32, height: u32, mode: Mode, pixels: Vec<u8>) -> Result<Image> {
        let expected = u128::from(width) * u128::from(height) * mode.bytes_per_pixel() as u128;
        if expected == 0 || pixels.len() as u128 != expected {
            let name = if mode == Mode::Rgb { "RGB" } else { "RGBA" };
            return Err(Error::argument(format!(
                "raw {name} image of {width} x {height} pixels: expected both sides above 0 and {expected} bytes, \
                 found {} bytes",
                pixels.len()
            )));
        }
        Ok(Image::new(width as usize, height as usize, mode, pixels))
    }

    /// An image without palette or transparent level.
    fn new(width: usize, height: usize, mode: Mode, pixels: Vec<u8>) -> Image {
        debug_assert_eq!(pixels.len(), width * height * mode.bytes_per_pixel());
        let (pixels, content) = (Arc::new(pixels), Content::default());
        Image { width, height, mode, pixels, palette: Vec::new(), transparent_gray: None, content }
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width as u32
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height as u32
    }

    /// Width times height.
    pub fn pixel_count(&self) -> u64 {
        self.width as u64 * self.height as u64
    }

    /// How [`Image::pixels`] is to be read.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The pixels, `height * width * mode.bytes_per_pixel()` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Red, green, blue and alpha of the 256 palette entries; empty unless the mode is [`Mode::Palette`].
    pub fn palette(&self) -> &[[u8; 4]] {
        &self.palette
    }

    /// What of it the model will not see, if that is to be told.
    ///
    /// 16-bit grey counts as Pillow 12.0 counts it: every level above 255 is white.
    pub fn note(&self) -> Option<&'static str> {
        let is_cut = self.mode == Mode::Gray16 && self.pixels.as_chunks().0.iter().any(|&[_, high]| high != 0);
        is_cut.then_some("16-bit grey: levels above 255 are white, as in Pillow 12.0; save it as 8 bits to show them")
    }

    /// A hash of everything that decides how the image looks to a model.
    pub(crate) fn content(&self) -> blake3::Hash {
        *self.content.0.get_or_init(|| self.hash())
    }

    fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let number = |number: usize| (number as u64).to_le_bytes();
        hasher.update(&number(self.width)).update(&number(self.height)).update(&[self.mode as u8]);
        hasher.update(&self.transparent_gray.map_or([0, 0], |level| [1, level]));
        hasher.update(self.palette.as_flattened()).update(&self.pixels);
        hasher.finalize()
    }

    /// The whole image as red, green, blue of every pixel; alpha is dropped, not blended. Pillow's `convert("RGB")`.
    ///
    /// # Panics
    /// Where the system has no memory for them; within [`Error::catch`] that is an error.
    pub fn to_rgb(&self) -> Cow<'_, [u8]> {
        rgb_of(self.mode, &self.palette, &self.pixels)
    }

    /// The whole image as red, green, blue of every pixel, laid over white where it is see-through.
    ///
    /// Images without an alpha channel, without a palette and without a transparent level come out as in
    /// [`Image::to_rgb`]. An RGB image with a transparent colour counts as one of those, as it does for Pillow.
    pub fn over_white(&self) -> Cow<'_, [u8]> {
        let mut rgb = self.to_rgb();
        match self.mode {
            Mode::Rgb | Mode::Cmyk => {}
            Mode::GrayAlpha => lay_over_white(rgb.to_mut(), self.pixels.chunks_exact(2).map(|pixel| pixel[1])),
            Mode::Rgba => lay_over_white(rgb.to_mut(), self.pixels.chunks_exact(4).map(|pixel| pixel[3])),
            Mode::Palette => {
                lay_over_white(rgb.to_mut(), self.pixels.iter().map(|&index| self.palette[usize::from(index)][3]));
            }
            Mode::Bilevel | Mode::Gray | Mode::Gray16 => {
                if let Some(level) = self.transparent_gray {
                    blank_level(rgb.to_mut(), level);
                }
            }
        }
        rgb
    }
}

/// Red, green and blue of each of `pixels`, without regard to alpha.
fn rgb_of<'a>(mode: Mode, palette: &[[u8; 4]], pixels: &'a [u8]) -> Cow<'a, [u8]> {
    if mode == Mode::Rgb {
        return Cow::Borrowed(pixels);
    }
    let length = pixels.len() / mode.bytes_per_pixel() * 3;
    memory::ask(length);
    let mut rgb: Vec<u8> = memory::room(length);
    match mode {
        Mode::Rgb | Mode::Rgba => rgb.extend(pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])),
        Mode::Bilevel | Mode::Gray => rgb.extend(pixels.iter().flat_map(|&level| [level; 3])),
        Mode::GrayAlpha => rgb.extend(pixels.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3])),
        Mode::Palette => rgb.extend(pixels.iter().flat_map(|&index| {
            let [red, green, blue, _] = palette[usize::from(index)];
            [red, green, blue]
        })),
        Mode::Cmyk => rgb.extend(pixels.as_chunks().0.iter().flat_map(rgb_of_inks)),
        // Pillow clips 16-bit grey to 255, it does not scale it.
        Mode::Gray16 => {
            rgb.extend(pixels.chunks_exact(2).flat_map(|pixel| [if pixel[1] == 0 { pixel[0] } else { 255 }; 3]));
        }
    }
    Cow::Owned(rgb)
}

/// Each colour is what its ink leaves of what black leaves, rounded as Pillow does.
fn rgb_of_inks(&[cyan, magenta, yellow, black]: &[u8; 4]) -> [u8; 3] {
    let light = 255 - u32::from(black);
    [cyan, magenta, yellow].map(|ink| {
        let product = u32::from(ink) * light + 128;
        (light - ((product + (product >> 8)) >> 8)) as u8
    })
}

/// Blends each pixel with white by its alpha, in the fixed point of Pillow's `alpha_composite`.
fn lay_over_white(rgb: &mut [u8], alphas: impl Iterator<Item = u8>) {
    for (pixel, alpha) in rgb.chunks_exact_mut(3).zip(alphas) {
        for value in pixel {
            // Seven extra bits, rounded once, divided by 255 as a sum of shifts.
            let sum = (u32::from(*value) * u32::from(alpha) + 255 * u32::from(255 - alpha)) << 7;
            let rounded = sum + (0x80 << 7);
            *value = ((rounded + (rounded >> 8)) >> 8 >> 7) as u8;
        }
    }
}

/// Turns every pixel of one grey level into white.
fn blank_level(rgb: &mut [u8], level: u8) {
    for pixel in rgb.chunks_exact_mut(3).filter(|pixel| pixel[0] == level) {
        pixel.fill(255);
    }
}

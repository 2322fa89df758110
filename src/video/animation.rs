//! What animations of all formats have in common: a canvas that frames are drawn on, and a schedule, made of the
//! headers of all frames before the first is drawn, that says when the canvas is looked at. How a frame is drawn and
//! taken away again is each format's own.

use super::{FrameSampling, Limits};
use crate::error::{Error, Result};
use crate::image::{Image, memory};

/// Where a frame lies on the canvas, in pixels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

impl Rectangle {
    /// Of no pixels.
    pub(super) const EMPTY: Rectangle = Rectangle { left: 0, top: 0, width: 0, height: 0 };

    pub(super) fn right(&self) -> usize {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> usize {
        self.top + self.height
    }

    pub(super) fn pixels(&self) -> u64 {
        self.width as u64 * self.height as u64
    }

    pub(super) fn contains(&self, x: usize, y: usize) -> bool {
        (self.left..self.right()).contains(&x) && (self.top..self.bottom()).contains(&y)
    }
}

/// Red, green, blue, alpha (not premultiplied).
pub(super) type Pixel = [u8; 4];

/// What has been drawn so far.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Pixel>,
}

impl Canvas {
    /// A canvas of one colour; its sides have been held to the limits, and are not 0.
    pub(super) fn new(width: usize, height: usize, colour: Pixel) -> Self {
        Canvas { width, height, pixels: memory::filled(width * height, colour) }
    }

    pub(super) fn whole(&self) -> Rectangle {
        Rectangle { left: 0, top: 0, width: self.width, height: self.height }
    }

    /// The rows of a rectangle, from the top.
    pub(super) fn rows(&mut self, place: Rectangle) -> impl Iterator<Item = &mut [Pixel]> {
        let rows = self.pixels.chunks_exact_mut(self.width).skip(place.top).take(place.height);
        rows.map(move |row| &mut row[place.left..][..place.width])
    }

    pub(super) fn fill(&mut self, place: Rectangle, colour: Pixel) {
        self.rows(place).for_each(|row| row.fill(colour));
    }

    /// How it looks now. Without alpha, every pixel counts as opaque.
    pub(super) fn image(&self, has_alpha: bool) -> Result<Image> {
        let (width, height) = (self.width as u32, self.height as u32);
        if has_alpha && self.pixels.iter().any(|pixel| pixel[3] < 255) {
            let mut rgba = memory::room(self.pixels.len() * 4);
            rgba.extend_from_slice(self.pixels.as_flattened());
            return Image::from_rgba(width, height, rgba);
        }
        let mut rgb = memory::room(self.pixels.len() * 3);
        self.pixels.iter().for_each(|pixel| rgb.extend_from_slice(&pixel[..3]));
        Image::from_rgb(width, height, rgb)
    }
}

/// The headers of an animation's frames, as they come.
pub(super) struct Schedule<'a> {
    source: &'a str,
    limits: &'a Limits,
    per_second: f64,
    /// How often the canvas is looked at while each frame is shown.
    looks: Vec<usize>,
    looks_taken: usize,
    /// When the next frame begins.
    milliseconds: u64,
    pixels_drawn: u64,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(source: &'a str, sampling: &FrameSampling, limits: &'a Limits) -> Self {
        let per_second = sampling.per_second;
        let looks = Vec::new();
        Schedule { source, limits, per_second, looks, looks_taken: 0, milliseconds: 0, pixels_drawn: 0 }
    }

    fn at_most(&self, what: &str, limit: u64, found: u64) -> Result<()> {
        if found > limit { Err(Error::limit(format!("{}: {what}", self.source), limit, found)) } else { Ok(()) }
    }

    /// A frame that draws so many pixels and is shown for so many milliseconds.
    pub(super) fn add(&mut self, pixels: u64, milliseconds: u32) -> Result<()> {
        self.pixels_drawn += pixels;
        self.at_most("frames of an animation", self.limits.frames_max, self.looks.len() as u64 + 1)?;
        self.at_most("pixels of all frames of an animation", self.limits.pixels_drawn_max, self.pixels_drawn)?;
        // Browsers show a frame without a duration for a tenth of a second.
        self.milliseconds += u64::from(if milliseconds == 0 { 100 } else { milliseconds });
        let before = self.looks_taken;
        while self.looks_taken as f64 * 1000.0 / self.per_second < self.milliseconds as f64 {
            self.looks_taken += 1;
            self.at_most("frames", self.limits.frames_max, self.looks_taken as u64)?;
        }
        self.looks.push(self.looks_taken - before);
        Ok(())
    }

    /// For each frame, how many images are taken of the canvas once it is drawn. These have `pixel_bytes` a pixel;
    /// `canvas` is bytes that drawing holds.
    ///
    /// # Errors
    /// More than the limits, before any of it is held.
    pub(super) fn plan(
        self,
        sampling: &FrameSampling,
        pixels: u64,
        pixel_bytes: u64,
        canvas: u64,
    ) -> Result<Vec<usize>> {
        let kept = sampling.thinned((0..self.looks_taken).collect());
        let pixels = pixels.saturating_mul(kept.len() as u64);
        self.at_most("pixels of all frames held", self.limits.pixels_max, pixels)?;
        let bytes = pixels.saturating_mul(pixel_bytes).saturating_add(canvas);
        self.at_most("bytes of an animation's canvas and frames", self.limits.animation_bytes_max, bytes)?;
        memory::ask(bytes as usize);
        let mut kept = kept.into_iter().peekable();
        let mut end = 0;
        let taken = self.looks.iter().map(|looks| {
            end += looks;
            std::iter::from_fn(|| kept.next_if(|&look| look < end)).count()
        });
        Ok(taken.collect())
    }
}

//! What animations of all formats have in common: a canvas that frames are drawn on, and a clock that says when the
//! canvas is looked at. How a frame is drawn and taken away again is each format's own.

use super::{FrameSampling, Frames};
use crate::error::{Error, Result};
use crate::image::Image;

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
        Canvas { width, height, pixels: vec![colour; width * height] }
    }

    pub(super) fn whole(&self) -> Rectangle {
        Rectangle { left: 0, top: 0, width: self.width, height: self.height }
    }

    pub(super) fn holds(&self, place: &Rectangle) -> bool {
        place.right() <= self.width && place.bottom() <= self.height
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
            return Image::from_rgba(width, height, self.pixels.as_flattened().to_vec());
        }
        let rgb = self.pixels.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]);
        Image::from_rgb(width, height, rgb.collect())
    }
}

/// Takes frames of an animation at the times of a [`FrameSampling`].
pub(super) struct Clock<'a, 'b> {
    frames: &'a mut Frames<'b>,
    per_second: f64,
    /// When the frame at hand began.
    milliseconds: u64,
    /// Looks taken.
    looks: u64,
    drawn: u64,
    pixels_drawn: u64,
}

impl<'a, 'b> Clock<'a, 'b> {
    pub(super) fn new(sampling: &FrameSampling, frames: &'a mut Frames<'b>) -> Self {
        let per_second = sampling.per_second;
        Clock { frames, per_second, milliseconds: 0, looks: 0, drawn: 0, pixels_drawn: 0 }
    }

    /// Before a frame of so many pixels is decoded.
    pub(super) fn allow(&mut self, pixels: u64) -> Result<()> {
        let (source, limits) = (self.frames.source, self.frames.limits);
        let at_most = |what: &str, limit: u64, found: u64| {
            if found > limit { Err(Error::limit(format!("{source}: {what}"), limit, found)) } else { Ok(()) }
        };
        self.drawn += 1;
        self.pixels_drawn += pixels;
        at_most("frames of an animation", limits.frames_max, self.drawn)?;
        at_most("pixels of all frames of an animation", limits.pixels_drawn_max, self.pixels_drawn)
    }

    /// Shows the canvas for so many milliseconds, and takes it as often as that is the time to.
    pub(super) fn show(&mut self, milliseconds: u32, canvas: &Canvas, has_alpha: bool) -> Result<()> {
        // Browsers show a frame without a duration for a tenth of a second.
        self.milliseconds += u64::from(if milliseconds == 0 { 100 } else { milliseconds });
        while self.looks as f64 * 1000.0 / self.per_second < self.milliseconds as f64 {
            self.frames.look(|_| canvas.image(has_alpha))?;
            self.looks += 1;
        }
        Ok(())
    }
}

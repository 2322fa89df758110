//! Animated GIFs, drawn as Pillow 12.0 draws them (`GifImagePlugin.py`).
//!
//! Pillow differs from browsers in that a frame which does not say how it is to be taken away is treated as the one
//! before it, in that the background is a colour where nothing is see-through, and in that an image is see-through
//! only if its first frame is. Two corners are not followed: a later frame that reaches beyond the screen is refused,
//! and a palette that is a grey ramp is a palette like others.

use std::fmt::Display;
use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, DisposalMethod};

use super::animation::{Canvas, Clock, Pixel, Rectangle};
use super::{FrameSampling, Frames};
use crate::error::{Error, Result};
use crate::image::Limits;

/// Draws all frames, and takes those that are sampled.
pub(super) fn read(bytes: &[u8], sampling: &FrameSampling, limits: &Limits, frames: &mut Frames) -> Result<()> {
    let source = frames.source;
    let damaged = |reason: &dyn Display| Error::invalid(source, "GIF", "a complete and undamaged file", reason);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    let screen = (usize::from(decoder.width()), usize::from(decoder.height()));
    let background = decoder.bg_color().unwrap_or(0);
    let mut clock = Clock::new(sampling, frames);
    let mut drawing: Option<Drawing> = None;
    while let Some(frame) = decoder.next_frame_info().map_err(|error| damaged(&error))? {
        let place = Rectangle {
            left: frame.left.into(),
            top: frame.top.into(),
            width: frame.width.into(),
            height: frame.height.into(),
        };
        let (transparent, method, delay) = (frame.transparent.map(usize::from), frame.dispose, frame.delay);
        clock.allow(place.pixels())?;
        match &drawing {
            // A first frame that reaches beyond the screen makes the screen larger.
            None => {
                let (width, height) = (screen.0.max(place.right()), screen.1.max(place.bottom()));
                limits.check_sides(source, width as u32, height as u32)?;
            }
            Some(drawing) if !drawing.canvas.holds(&place) => {
                return Err(damaged(&"a frame that reaches beyond the screen"));
            }
            Some(_) => {}
        }
        let mut indices = vec![0; place.width * place.height];
        decoder.read_into_buffer(&mut indices).map_err(|error| damaged(&error))?;
        let palette = decoder.palette().map_err(|error| damaged(&error))?.as_chunks().0;
        let layer = Layer { place, transparent, method, background, indices: &indices, palette };
        let drawing = drawing.get_or_insert_with(|| Drawing::new(screen, &layer));
        drawing.draw(&layer);
        // Hundredths of a second.
        clock.show(u32::from(delay) * 10, &drawing.canvas, drawing.has_alpha)?;
    }
    Ok(())
}

/// A frame as it stands in the file.
struct Layer<'a> {
    place: Rectangle,
    /// The index that leaves what is there.
    transparent: Option<usize>,
    method: DisposalMethod,
    /// The index of the screen's background.
    background: usize,
    indices: &'a [u8],
    palette: &'a [[u8; 3]],
}

impl Layer<'_> {
    /// What the palette lacks is black.
    fn colour(&self, index: usize, alpha: u8) -> Pixel {
        let [red, green, blue] = self.palette.get(index).copied().unwrap_or_default();
        [red, green, blue, alpha]
    }

    /// What a place is filled with when nothing is to be there.
    fn blank(&self) -> Pixel {
        let (index, alpha) = self.transparent.map_or((self.background, 255), |index| (index, 0));
        self.colour(if index < self.palette.len() { index } else { 0 }, alpha)
    }
}

struct Drawing {
    canvas: Canvas,
    has_alpha: bool,
    is_begun: bool,
    /// How frames are taken away that do not say it.
    method: DisposalMethod,
    /// What is done before the next frame is drawn.
    disposal: Option<(Rectangle, Disposal)>,
}

enum Disposal {
    Fill(Pixel),
    /// What was there before, row by row.
    Restore(Vec<Pixel>),
}

impl Drawing {
    /// An empty screen, on which the first frame can be drawn.
    fn new((width, height): (usize, usize), first: &Layer) -> Self {
        let colour = first.transparent.map_or(first.colour(0, 255), |index| first.colour(index, 0));
        let (width, height) = (width.max(first.place.right()).max(1), height.max(first.place.bottom()).max(1));
        Drawing {
            canvas: Canvas::new(width, height, colour),
            has_alpha: first.transparent.is_some(),
            is_begun: false,
            method: DisposalMethod::Keep,
            disposal: None,
        }
    }

    /// Takes the frame before away and draws the next.
    fn draw(&mut self, layer: &Layer) {
        match self.disposal.take() {
            None => {}
            Some((place, Disposal::Fill(colour))) => self.canvas.fill(place, colour),
            Some((place, Disposal::Restore(pixels))) => {
                for (row, before) in self.canvas.rows(place).zip(pixels.chunks_exact(place.width.max(1))) {
                    row.copy_from_slice(before);
                }
            }
        }
        if layer.method != DisposalMethod::Any {
            self.method = layer.method;
        }
        let disposal = match self.method {
            DisposalMethod::Any | DisposalMethod::Keep => None,
            DisposalMethod::Background => Some(Disposal::Fill(layer.blank())),
            DisposalMethod::Previous if self.is_begun => {
                Some(Disposal::Restore(self.canvas.rows(layer.place).flat_map(|row| row.to_vec()).collect()))
            }
            // There is nothing before the first frame, unless one can see through it.
            DisposalMethod::Previous => layer.transparent.map(|_| Disposal::Fill(layer.blank())),
        };
        self.disposal = disposal.map(|disposal| (layer.place, disposal));
        self.is_begun = true;
        for (row, indices) in self.canvas.rows(layer.place).zip(layer.indices.chunks_exact(layer.place.width.max(1))) {
            for (pixel, &index) in row.iter_mut().zip(indices) {
                if Some(usize::from(index)) != layer.transparent {
                    *pixel = layer.colour(index.into(), 255);
                }
            }
        }
    }
}

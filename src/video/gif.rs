//! Animated GIFs, drawn as Pillow 12.0 draws them (`GifImagePlugin.py`).
//!
//! Pillow differs from browsers in that a frame which does not say how it is to be taken away is treated as the one
//! before it, in that the background is a colour where nothing is see-through, and in that an image is see-through
//! only if its first frame is. Two corners are not followed: a later frame that reaches beyond the screen is refused,
//! and a palette that is a grey ramp is a palette like others.

use std::fmt::Display;
use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, DisposalMethod};

use super::animation::{Canvas, Pixel, Rectangle, Schedule};
use super::{FrameSampling, Frames};
use crate::error::{Error, Result};
use crate::image::{Limits, gif_with_palette, memory};

/// What the headers say of an animation.
struct Headers {
    /// Of the screen, or of a first frame that reaches beyond it, which makes the screen larger.
    width: usize,
    height: usize,
    has_alpha: bool,
    /// How many images are taken of each frame.
    taken: Vec<usize>,
}

/// Draws all frames, and takes those that are sampled.
pub(super) fn read(bytes: &[u8], sampling: &FrameSampling, limits: &Limits, frames: &mut Frames) -> Result<()> {
    let source = frames.source;
    let bytes = &gif_with_palette(bytes);
    let headers = headers(bytes, sampling, limits, frames)?;
    let damaged = |reason: &dyn Display| Error::invalid(source, "GIF", "a complete and undamaged file", reason);
    let mut decoder = decoder(bytes, false).map_err(|error| damaged(&error))?;
    let background = decoder.bg_color().unwrap_or(0);
    let mut drawing: Option<Drawing> = None;
    for taken in headers.taken {
        let Some(frame) = decoder.next_frame_info().map_err(|error| damaged(&error))? else { break };
        let (place, transparent, method) = (place_of(frame), frame.transparent.map(usize::from), frame.dispose);
        let mut indices = memory::filled(place.width * place.height, 0);
        decoder.read_into_buffer(&mut indices).map_err(|error| damaged(&error))?;
        let palette = decoder.palette().map_err(|error| damaged(&error))?.as_chunks().0;
        let layer = Layer { place, transparent, method, background, indices: &indices, palette };
        let drawing = drawing.get_or_insert_with(|| Drawing::new((headers.width, headers.height), &layer));
        drawing.draw(&layer);
        for _ in 0..taken {
            frames.look(|_| drawing.canvas.image(headers.has_alpha))?;
        }
    }
    Ok(())
}

fn decoder(bytes: &[u8], only_headers: bool) -> std::result::Result<gif::Decoder<Cursor<&[u8]>>, gif::DecodingError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.skip_frame_decoding(only_headers);
    options.read_info(Cursor::new(bytes))
}

fn place_of(frame: &gif::Frame) -> Rectangle {
    Rectangle { left: frame.left.into(), top: frame.top.into(), width: frame.width.into(), height: frame.height.into() }
}

/// Reads the headers of all frames and holds them to the limits; nothing is unpacked.
fn headers(bytes: &[u8], sampling: &FrameSampling, limits: &Limits, frames: &Frames) -> Result<Headers> {
    let source = frames.source;
    let damaged = |reason: &dyn Display| Error::invalid(source, "GIF", "a complete and undamaged file", reason);
    let mut decoder = decoder(bytes, true).map_err(|error| damaged(&error))?;
    let (mut width, mut height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let mut has_alpha = false;
    let mut schedule = Schedule::new(source, sampling, frames.limits);
    let mut count = 0;
    while let Some(frame) = decoder.next_frame_info().map_err(|error| damaged(&error))? {
        let place = place_of(frame);
        if count == 0 {
            (width, height) = (width.max(place.right()).max(1), height.max(place.bottom()).max(1));
            limits.check_sides(source, width as u32, height as u32)?;
            has_alpha = frame.transparent.is_some();
        } else if place.right() > width || place.bottom() > height {
            return Err(damaged(&"a frame that reaches beyond the screen"));
        }
        // Hundredths of a second.
        schedule.add(place.pixels(), u32::from(frame.delay) * 10)?;
        count += 1;
    }
    let pixels = (width * height) as u64;
    // The canvas, the indices of a frame, and what was there before it.
    let taken = schedule.plan(sampling, pixels, if has_alpha { 4 } else { 3 }, pixels * 9)?;
    Ok(Headers { width, height, has_alpha, taken })
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
        Drawing {
            canvas: Canvas::new(width, height, colour),
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
                let mut before = memory::room(layer.place.width * layer.place.height);
                self.canvas.rows(layer.place).for_each(|row| before.extend_from_slice(row));
                Some(Disposal::Restore(before))
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

//! Animated WebPs, drawn as libwebp draws them (`anim_decode.c`), which Pillow uses.
//!
//! Each frame is a WebP of its own inside the file and is decoded as one. The background colour is not drawn, as in
//! libwebp; and a file that does not announce alpha has none.

use super::animation::{Canvas, Pixel, Rectangle, Schedule};
use super::{FrameSampling, Frames};
use crate::error::{Error, Result};
use crate::image::{self, Image, Limits};

/// Flags of the header.
const ANIMATION: u8 = 0x02;
const ALPHA: u8 = 0x10;
/// Flags of a frame.
const BLANK_AFTER: u8 = 1;
const NO_BLENDING: u8 = 2;

const CLEAR: Pixel = [0; 4];

/// Draws all frames, and takes those that are sampled. A file that does not move is one frame.
pub(super) fn read(bytes: &[u8], sampling: &FrameSampling, limits: &Limits, frames: &mut Frames) -> Result<()> {
    let source = frames.source;
    let damaged = |reason: &str| Error::invalid(source, "WebP", "a complete and undamaged file", reason);
    // Cut between two frames, all its chunks would be whole. The padding of the last one may be missing.
    let end = 8 + u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    if bytes.len() + 1 < end {
        return Err(damaged("fewer bytes than its header claims"));
    }
    // What follows the file in it is no part of it.
    let mut chunks = Chunks(&bytes[12..end.clamp(12, bytes.len())]);
    let header = match chunks.next() {
        Some(Ok((b"VP8X", header))) if header.len() >= 10 && header[0] & ANIMATION != 0 => header,
        _ => return frames.look(|source| image::decode(bytes, source, limits)),
    };
    let has_alpha = header[0] & ALPHA != 0;
    let (width, height) = (three_bytes(&header[4..]) + 1, three_bytes(&header[7..]) + 1);
    limits.check_sides(source, width, height)?;
    // All headers, before anything is unpacked.
    let mut layers = Vec::new();
    let mut schedule = Schedule::new(source, sampling, frames.limits);
    for chunk in chunks {
        let (name, content) = chunk.map_err(damaged)?;
        if name == b"ANMF" {
            let layer = Layer::new(content).ok_or_else(|| damaged("a frame without a header"))?;
            if layer.place.right() > width as usize || layer.place.bottom() > height as usize {
                return Err(damaged("a frame that reaches beyond the canvas"));
            }
            // Drawn, and cleared before the next.
            schedule.add(2 * layer.place.pixels(), layer.milliseconds)?;
            layers.push(layer);
        }
    }
    let (pixels, largest) =
        (u64::from(width) * u64::from(height), layers.iter().map(|layer| layer.place.pixels()).max());
    // The canvas, and a frame as it is decoded.
    let held = 4 * pixels + 8 * largest.unwrap_or(0);
    let taken = schedule.plan(sampling, pixels, if has_alpha { 4 } else { 3 }, held)?;
    let mut drawing = Drawing::new(width as usize, height as usize);
    for (layer, taken) in layers.into_iter().zip(taken) {
        let image = image::decode(&own_file(&layer.place, layer.content), source, limits)?;
        if (image.width() as usize, image.height() as usize) != (layer.place.width, layer.place.height) {
            return Err(damaged("a frame of another size than its header says"));
        }
        drawing.draw(layer.place, &image, layer.flags);
        for _ in 0..taken {
            frames.look(|_| drawing.canvas.image(has_alpha))?;
        }
    }
    Ok(())
}

/// A frame as it stands in the file.
struct Layer<'a> {
    place: Rectangle,
    milliseconds: u32,
    flags: u8,
    content: &'a [u8],
}

impl<'a> Layer<'a> {
    fn new(chunk: &'a [u8]) -> Option<Self> {
        let (header, content) = chunk.split_at_checked(16)?;
        let place = Rectangle {
            left: 2 * three_bytes(header) as usize,
            top: 2 * three_bytes(&header[3..]) as usize,
            width: three_bytes(&header[6..]) as usize + 1,
            height: three_bytes(&header[9..]) as usize + 1,
        };
        Some(Layer { place, milliseconds: three_bytes(&header[12..]), flags: header[15], content })
    }
}

/// The chunks of a file or of a frame, as name and content.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = std::result::Result<(&'a [u8; 4], &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let Some((content, rest)) = rest.split_at_checked(length) else {
            self.0 = &[];
            return Some(Err("fewer bytes than its chunks claim"));
        };
        self.0 = &rest[(length % 2).min(rest.len())..];
        Some(Ok((name, content)))
    }
}

fn three_bytes(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}

/// A frame as a file.
fn own_file(place: &Rectangle, content: &[u8]) -> Vec<u8> {
    // Lossy pixels have alpha if a chunk of alpha stands before them, lossless ones say themselves whether they do.
    let alpha = if content.starts_with(b"VP8 ") { 0 } else { ALPHA };
    let side = |length: usize| (length as u32 - 1).to_le_bytes();
    let mut file = b"RIFF".to_vec();
    file.extend((22 + content.len() as u32).to_le_bytes());
    file.extend(b"WEBPVP8X\x0a\0\0\0");
    file.extend([alpha, 0, 0, 0]);
    file.extend(&side(place.width)[..3]);
    file.extend(&side(place.height)[..3]);
    file.extend(content);
    file
}

struct Drawing {
    canvas: Canvas,
    /// What is cleared before the next frame, which replaces what is there and does not blend: that would round.
    blank: Rectangle,
}

impl Drawing {
    fn new(width: usize, height: usize) -> Self {
        let canvas = Canvas::new(width, height, CLEAR);
        Drawing { blank: canvas.whole(), canvas }
    }

    fn draw(&mut self, place: Rectangle, image: &Image, flags: u8) {
        self.canvas.fill(self.blank, CLEAR);
        let (whole, blank) = (self.canvas.whole(), self.blank);
        let blends = flags & NO_BLENDING == 0;
        let mut source = pixels(image);
        for (row, y) in self.canvas.rows(place).zip(place.top..) {
            for ((pixel, x), drawn) in row.iter_mut().zip(place.left..).zip(&mut source) {
                let replaces = !blends || blank.contains(x, y);
                *pixel = if replaces { drawn } else { blended(drawn, *pixel) };
            }
        }
        // A frame that begins the image anew takes all with it when it goes.
        let begins = blank == whole || place == whole && !blends;
        self.blank = match flags & BLANK_AFTER {
            0 => Rectangle::EMPTY,
            _ if begins => whole,
            _ => place,
        };
    }
}

fn pixels(image: &Image) -> impl Iterator<Item = Pixel> {
    let stride = image.mode().bytes_per_pixel();
    image.pixels().chunks_exact(stride).map(|pixel| [pixel[0], pixel[1], pixel[2], *pixel.get(3).unwrap_or(&255)])
}

/// One pixel over another, neither premultiplied, in libwebp's fixed point.
fn blended(over: Pixel, under: Pixel) -> Pixel {
    let alpha = u32::from(over[3]);
    match alpha {
        0 => under,
        255 => over,
        _ => {
            let under_alpha = (u32::from(under[3]) * (256 - alpha)) >> 8;
            let sum = alpha + under_alpha;
            let scale = u64::from((1 << 24) / sum);
            let channel = |at: usize| {
                let weighted = u32::from(over[at]) * alpha + u32::from(under[at]) * under_alpha;
                ((u64::from(weighted) * scale) >> 24) as u8
            };
            [channel(0), channel(1), channel(2), sum as u8]
        }
    }
}

//! A file to decode: what it is, the limits it is held to, and what its formats have in common.

use std::fmt::Display;
use std::io::Cursor;

use super::memory;
use crate::error::{Error, Result};
use crate::setters::setters;

/// What an image may cost at most. The peak of memory is 12 bytes a pixel (a 16-bit RGBA PNG), usually 3 or 4.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Width and height, in pixels.
    pub side_max: u32,
    /// Width times height.
    pub pixels_max: u64,
    /// The encoded file, in bytes.
    pub bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { side_max: 16_384, pixels_max: 64 << 20, bytes_max: 64 << 20 }
    }
}

setters!(Limits { side_max: u32, pixels_max: u64, bytes_max: u64 });

impl Limits {
    /// Whether an image may have so many pixels; `source` names it in messages.
    ///
    /// # Errors
    ///
    /// A side, or their product, over the limit.
    pub fn check_sides(&self, source: &str, width: u32, height: u32) -> Result<()> {
        let at_most = |what: &str, limit: u64, found: u64| {
            if found > limit { Err(Error::limit(format!("{source}: {what}"), limit, found)) } else { Ok(()) }
        };
        at_most("width in pixels", self.side_max.into(), width.into())?;
        at_most("height in pixels", self.side_max.into(), height.into())?;
        at_most("number of pixels", self.pixels_max, u64::from(width) * u64::from(height))
    }
}

/// What an image's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Png,
    Jpeg,
    WebP,
    Gif,
    Bmp,
}

impl Format {
    /// By its first bytes, of which 12 are enough.
    pub(crate) fn of(bytes: &[u8]) -> Option<Format> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
            [b'B', b'M', ..] => Some(Format::Bmp),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
        }
    }
}

/// A file to decode, with what is needed to refuse it.
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) source: &'a str,
    pub(super) format: Format,
    pub(super) limits: &'a Limits,
}

impl<'a> Input<'a> {
    pub(super) fn reader(&self) -> Cursor<&'a [u8]> {
        Cursor::new(self.bytes)
    }

    /// Holds the sides in a header against the limits.
    pub(super) fn check_size(&self, width: u32, height: u32) -> Result<(usize, usize)> {
        self.limits.check_sides(self.source, width, height)?;
        if width == 0 || height == 0 {
            return Err(self.damaged(format!("a size of {width} x {height}")));
        }
        Ok((width as usize, height as usize))
    }

    /// The error of a file that cannot be decoded, for `reason`.
    pub(super) fn damaged(&self, reason: impl Display) -> Error {
        Error::invalid(self.source, self.format.name(), "a complete and undamaged file", reason)
    }
}

/// As many zeros.
pub(super) fn zeroed(length: usize) -> Vec<u8> {
    memory::ask(length);
    memory::filled(length, 0)
}

/// The chunks of a PNG up to its end, as name and content; what follows is no part of the image.
pub(crate) fn png_chunks(png: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = png.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let (content, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after.get(4..).unwrap_or_default();
        (name != b"IEND").then_some((name, content))
    })
}

/// Spreads rows of 1-, 2- or 4-bit samples, each of which starts at a whole byte, to a byte a sample.
pub(super) fn spread(packed: &[u8], width: usize, bits: usize, samples: &mut [u8]) {
    let per_byte = 8 / bits;
    let mask = (1 << bits) - 1;
    for (row, samples) in packed.chunks_exact(width.div_ceil(per_byte)).zip(samples.chunks_exact_mut(width)) {
        for (x, sample) in samples.iter_mut().enumerate() {
            *sample = row[x / per_byte] >> (8 - bits * (x % per_byte + 1)) & mask;
        }
    }
}

/// A palette of red, green and blue as 256 opaque entries; those that the file lacks are black.
pub(super) fn padded_palette(colours: &[u8]) -> Vec<[u8; 4]> {
    let (colours, _) = colours.as_chunks::<3>();
    let mut palette: Vec<[u8; 4]> = colours.iter().map(|&[red, green, blue]| [red, green, blue, 255]).collect();
    palette.resize(256, [0, 0, 0, 255]);
    palette
}

/// Whether a palette says of each index only that it is its own grey level; Pillow then takes the image as grey.
pub(super) fn is_gray_ramp(colours: &[[u8; 3]]) -> bool {
    colours
        .iter()
        .enumerate()
        .all(|(index, &[red, green, blue])| index == usize::from(red) && red == green && red == blue)
}

/// Four bytes of a header as a number; 0 where it ends before them.
pub(super) fn little_endian(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&word| u32::from_le_bytes(word))
}

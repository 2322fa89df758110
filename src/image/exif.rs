//! How an image is to be turned: what Pillow's `exif_transpose` finds in JPEG, PNG and WebP, wherever it stands and
//! however it is written. What cannot be read there turns nothing, and loses no image.

use std::io::Read as _;

use super::input::png_chunks;
use super::{Content, Image, memory};

/// Bytes that a compressed text of a PNG may unpack to, and all of them together, as in Pillow. Those that are more are
/// passed over.
const TEXT_MAX: u64 = 1 << 20;
const TEXTS_MAX: u64 = 64 << 20;
const ORIENTATION: u16 = 0x0112;

/// What may say it in a file.
#[derive(Default)]
struct Metadata {
    exif: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
    /// EXIF in hexadecimal digits, as ImageMagick writes it into texts of PNGs.
    profile: Option<Vec<u8>>,
    /// Bytes that texts were unpacked to.
    unpacked: u64,
}

/// A number from 2 to 8 where the image is to be turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation(u8);

impl Orientation {
    /// Of a JPEG: segments before the first scan.
    pub(super) fn of_jpeg(bytes: &[u8]) -> Option<Orientation> {
        let mut found = Metadata::default();
        let mut rest = bytes.get(2..)?;
        loop {
            match rest {
                [0xff, 0xda | 0xd9, ..] | [] => break,
                [0xff, marker, high, low, ..] if !matches!(marker, 0x00 | 0x01 | 0xd0..=0xd8 | 0xff) => {
                    let length = usize::from(u16::from_be_bytes([*high, *low])).max(2);
                    let content = rest.get(4..2 + length).unwrap_or_default();
                    if *marker == 0xe1 {
                        found.add_segment(content);
                    }
                    rest = rest.get(2 + length..).unwrap_or_default();
                }
                [_, after @ ..] => rest = after,
            }
        }
        found.orientation()
    }

    /// Of a PNG: chunks before and behind the pixels.
    pub(super) fn of_png(bytes: &[u8]) -> Option<Orientation> {
        let mut found = Metadata::default();
        png_chunks(bytes).for_each(|(name, content)| found.add_chunk(name, content));
        found.orientation()
    }

    /// Of a WebP: chunks that its header announces, the first of each.
    pub(super) fn of_webp(bytes: &[u8]) -> Option<Orientation> {
        let mut found = Metadata::default();
        let mut flags = 0;
        let mut rest = bytes.get(12..)?;
        while let Some((name, after)) = rest.split_first_chunk::<4>() {
            let Some((length, after)) = after.split_first_chunk::<4>() else { break };
            let length = u32::from_le_bytes(*length) as usize;
            let Some((content, after)) = after.split_at_checked(length) else { break };
            match name {
                b"VP8X" => flags = content.first().copied().unwrap_or(0),
                b"EXIF" if flags & 8 != 0 && found.exif.is_none() => found.exif = Some(content.to_vec()),
                b"XMP " if flags & 4 != 0 && found.xmp.is_none() => found.xmp = Some(content.to_vec()),
                _ => {}
            }
            rest = after.get(length % 2..).unwrap_or_default();
        }
        found.orientation()
    }
}

impl Metadata {
    fn add_segment(&mut self, content: &[u8]) {
        if let Some(more) = content.strip_prefix(b"Exif\0\0") {
            // Long EXIF goes on in further segments.
            self.exif.get_or_insert_default().extend(more);
        } else if let Some(xmp) = content.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            self.xmp = Some(xmp.to_vec());
        }
    }

    fn add_chunk(&mut self, name: &[u8; 4], content: &[u8]) {
        let mut parts = content.splitn(2, |&byte| byte == 0);
        let (key, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match (name, key) {
            (b"eXIf", _) => self.exif = Some(content.to_vec()),
            (b"tEXt", b"exif") => self.exif = Some(text.to_vec()),
            (b"tEXt", b"Raw profile type exif") => self.profile = Some(text.to_vec()),
            (b"zTXt", b"Raw profile type exif") => {
                self.profile = text.get(1..).and_then(|text| self.inflated(text)).or(self.profile.take())
            }
            (b"iTXt", b"XML:com.adobe.xmp" | b"Raw profile type exif") => {
                // Compressed or not, a method, a language and a translated key, each ended by 0; then the text.
                let Some(([compressed, _], rest)) = text.split_first_chunk::<2>() else { return };
                let Some(text) = rest.splitn(3, |&byte| byte == 0).nth(2) else { return };
                let text = if *compressed == 0 { Some(text.to_vec()) } else { self.inflated(text) };
                let place = if key.starts_with(b"XML") { &mut self.xmp } else { &mut self.profile };
                *place = text.or(place.take());
            }
            _ => {}
        }
    }

    fn inflated(&mut self, compressed: &[u8]) -> Option<Vec<u8>> {
        if self.unpacked > TEXTS_MAX {
            return None;
        }
        let mut text = Vec::new();
        let read = flate2::read::ZlibDecoder::new(compressed).take(TEXT_MAX + 1).read_to_end(&mut text);
        // What ends in a fault was unpacked all the same.
        self.unpacked += text.len() as u64;
        (read.is_ok() && text.len() as u64 <= TEXT_MAX).then_some(text)
    }

    fn orientation(self) -> Option<Orientation> {
        let exif = self.exif.or_else(|| self.profile.as_deref().and_then(unhexed));
        let from_exif = exif.as_deref().and_then(exif_orientation);
        let number = from_exif.or_else(|| self.xmp.as_deref().and_then(xmp_orientation))?;
        let turns = (2..=8).find(|&turn| number == f64::from(turn))?;
        Some(Orientation(turns))
    }
}

/// The bytes that a raw profile holds: digits behind three lines, with white space between.
fn unhexed(profile: &[u8]) -> Option<Vec<u8>> {
    let digits = profile.splitn(4, |&byte| byte == b'\n').nth(3)?;
    let mut digits = digits.iter().filter(|byte| !byte.is_ascii_whitespace());
    let mut bytes = Vec::new();
    while let Some(&high) = digits.next() {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        bytes.push(digit(high)? << 4 | digit(*digits.next()?)?);
    }
    Some(bytes)
}

/// The orientation in EXIF: the first number of the entry of any numeric type, as the last such entry has it. `None`
/// if there is no entry; 0 if it is no number.
fn exif_orientation(mut exif: &[u8]) -> Option<f64> {
    while let Some(rest) = exif.strip_prefix(b"Exif\0\0") {
        exif = rest;
    }
    let is_little = match exif.get(..4)? {
        b"II*\0" | b"II\0*" => true,
        b"MM\0*" | b"MM*\0" => false,
        _ => return None,
    };
    let number = |at: usize, length: usize| {
        let bytes = exif.get(at..at.checked_add(length)?)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Some(if is_little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    };
    let start = number(4, 4)? as usize;
    let mut found = None;
    for entry in 0..number(start, 2)? as usize {
        let at = start + 2 + 12 * entry;
        let (Some(tag), Some(kind), Some(count), Some(value)) =
            (number(at, 2), number(at + 2, 2), number(at + 4, 4), number(at + 8, 4))
        else {
            break;
        };
        let size: usize = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 => 8,
            _ => continue,
        };
        let length = size.saturating_mul(count as usize);
        let place = if length > 4 { value as usize } else { at + 8 };
        // An entry whose values are not there is none.
        if tag != u64::from(ORIENTATION) || length == 0 || exif.len().checked_sub(place) < Some(length) {
            continue;
        }
        let first = number(place, size)?;
        found = Some(match kind {
            3 | 4 | 13 | 16 => first as f64,
            6 => f64::from(first as i8),
            8 => f64::from(first as i16),
            9 => f64::from(first as i32),
            11 => f64::from(f32::from_bits(first as u32)),
            12 => f64::from_bits(first),
            5 => number(place, 4)? as f64 / number(place + 4, 4)? as f64,
            10 => f64::from(number(place, 4)? as i32) / f64::from(number(place + 4, 4)? as i32),
            _ => 0.0,
        });
    }
    found
}

/// The digit behind the first `tiff:Orientation="` or `tiff:Orientation>`.
fn xmp_orientation(xmp: &[u8]) -> Option<f64> {
    const NAME: &[u8] = b"tiff:Orientation";
    let digits = xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).filter_map(|(at, _)| {
        let rest = &xmp[at + NAME.len()..];
        let rest = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        rest.first().filter(|byte| byte.is_ascii_digit()).map(|digit| f64::from(digit - b'0'))
    });
    digits.into_iter().next()
}

impl Image {
    /// Turned and mirrored as the orientation says.
    pub(super) fn oriented(self, orientation: Option<Orientation>) -> Image {
        let (w, h) = (self.width, self.height);
        // Where the pixel of a place in the turned image is found in this one, as (x, y).
        match orientation.map_or(1, |Orientation(number)| number) {
            2 => self.gathered(w, h, |x, y| (w - 1 - x, y)),
            3 => self.gathered(w, h, |x, y| (w - 1 - x, h - 1 - y)),
            4 => self.gathered(w, h, |x, y| (x, h - 1 - y)),
            5 => self.gathered(h, w, |x, y| (y, x)),
            6 => self.gathered(h, w, |x, y| (y, h - 1 - x)),
            7 => self.gathered(h, w, |x, y| (w - 1 - y, h - 1 - x)),
            8 => self.gathered(h, w, |x, y| (w - 1 - y, x)),
            _ => self,
        }
    }

    /// An image of another shape with pixels taken from `place(x, y)` of this one.
    fn gathered(self, width: usize, height: usize, place: impl Fn(usize, usize) -> (usize, usize)) -> Image {
        let stride = self.mode.bytes_per_pixel();
        memory::ask(self.pixels.len());
        let mut pixels = memory::room(self.pixels.len());
        for y in 0..height {
            for x in 0..width {
                let (from_x, from_y) = place(x, y);
                pixels.extend_from_slice(&self.pixels[(from_y * self.width + from_x) * stride..][..stride]);
            }
        }
        Image { width, height, pixels: pixels.into(), content: Content::default(), ..self }
    }
}

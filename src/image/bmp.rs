//! BMP as Pillow 12.0 reads it (`BmpImagePlugin.py`), in its own order of questions.
//!
//! The fourth byte of a pixel is alpha only if a mask says so. Where Pillow reads a run of an odd number of 4-bit
//! pixels one short, so is it here.

use super::input::{Input, is_gray_ramp, little_endian, padded_palette, spread, zeroed};
use super::{Image, Mode};
use crate::error::Result;

const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BITFIELDS: u32 = 3;

/// What stands in the headers.
struct Header {
    width: usize,
    height: usize,
    is_top_down: bool,
    bits: usize,
    compression: u32,
    /// Red, green, blue, alpha.
    masks: [u32; 4],
    /// Entries of the palette.
    colours: usize,
    /// Bytes of each.
    entry: usize,
    /// Where the palette begins.
    palette: usize,
    /// Where the pixels begin.
    pixels: usize,
}

pub(super) fn decode(input: &Input) -> Result<Image> {
    let header = Header::read(input)?;
    if header.bits > 8 {
        return header.colour_image(input);
    }
    let palette = &input.bytes[header.palette.min(input.bytes.len())..];
    let palette = &palette[..palette.len().min(header.entry * header.colours)];
    let colours: Vec<[u8; 3]> = palette
        .chunks(header.entry)
        .filter(|entry| entry.len() >= 3)
        .map(|entry| [entry[2], entry[1], entry[0]])
        .collect();
    let is_whole = colours.len() == header.colours;
    let is_gray = is_whole && header.colours <= 256 && is_gray_ramp(&colours);
    let (mode, bits) = match () {
        () if is_whole && colours == [[0; 3], [255; 3]] => (Mode::Bilevel, 1),
        // A ramp of two entries is two colours like others.
        () if is_gray && header.colours != 2 => (Mode::Gray, 8),
        () => (Mode::Palette, header.bits),
    };
    let (mode, mut pixels) = match header.compression {
        RLE8 | RLE4 if mode == Mode::Gray => (mode, header.runs(input)?),
        RLE8 | RLE4 => (Mode::Palette, header.runs(input)?),
        // As many bits are read as the mode has, whatever the header says.
        _ => (mode, header.samples(input, bits)?),
    };
    if mode == Mode::Bilevel {
        pixels.iter_mut().for_each(|pixel| *pixel *= 255);
    }
    let mut image = Image::new(header.width, header.height, mode, pixels);
    if mode == Mode::Palette {
        image.palette = padded_palette(colours[..colours.len().min(256)].as_flattened());
    }
    Ok(image)
}

impl Header {
    fn read(input: &Input) -> Result<Header> {
        let bytes = input.bytes;
        let word = |at: usize| little_endian(bytes, at);
        let half = |at: usize| word(at) & 0xffff;
        let size = word(14) as usize;
        if ![12, 40, 52, 56, 64, 108, 124].contains(&size) {
            return Err(input.damaged(format!("a header of {size} bytes")));
        }
        if bytes.len() < 14 + size {
            return Err(input.damaged("a header cut short"));
        }
        let is_old = size == 12;
        let is_top_down = !is_old && bytes[25] == 0xff;
        let (width, height) = match is_old {
            true => (half(18), half(20)),
            false if is_top_down => (word(18), word(22).wrapping_neg()),
            false => (word(18), word(22)),
        };
        if (width as i32) < 0 {
            return Err(input.damaged(format!("a width of {}", width as i32)));
        }
        let (width, height) = input.check_size(width, height)?;
        let bits = half(if is_old { 24 } else { 28 }) as usize;
        if ![1, 4, 8, 16, 24, 32].contains(&bits) {
            return Err(input.damaged(format!("{bits} bits a pixel")));
        }
        let (compression, used) = if is_old { (0, 0) } else { (word(30), word(46) as usize) };
        if compression > BITFIELDS || (bits > 8 && matches!(compression, RLE8 | RLE4)) {
            return Err(input.damaged(format!("pixels packed in way {compression}")));
        }
        let colours = if used == 0 { 1 << bits.min(17) } else { used };
        if bits <= 8 && colours > 1 << 16 {
            return Err(input.damaged(format!("a palette of {colours} colours")));
        }
        // The masks are the last fields of a longer header, or follow a short one.
        let mut masks = [54, 58, 62, 66].map(word);
        if size < 56 {
            masks[3] = 0;
        }
        let has_masks_behind = compression == BITFIELDS && size == 40;
        let palette = 14 + size + if has_masks_behind { 12 } else { 0 };
        let entry = if is_old { 3 } else { 4 };
        let pixels = match word(10) as usize {
            0 if bits <= 8 => palette + entry * colours,
            0 => palette,
            at if at == 14 + size && bits <= 8 => at + 4 * colours,
            at => at,
        };
        Ok(Header { width, height, is_top_down, bits, compression, masks, colours, entry, palette, pixels })
    }

    /// The row of the file that row `y` of the image is.
    fn place(&self, y: usize) -> usize {
        if self.is_top_down { y } else { self.height - 1 - y }
    }

    /// Each row of the image, from the top, as `bits` a pixel.
    fn rows<'a>(&self, input: &Input<'a>, bits: usize) -> Result<impl Iterator<Item = &'a [u8]>> {
        let stride = ((self.width * self.bits + 31) >> 3) & !3;
        let length = (self.width * bits).div_ceil(8);
        let bytes = input.bytes;
        if length > stride {
            return Err(input.damaged("rows that are too short for their palette"));
        }
        if self.pixels.saturating_add(stride * (self.height - 1) + length) > bytes.len() {
            return Err(input.damaged("fewer bytes than its pixels need"));
        }
        let places: Vec<usize> = (0..self.height).map(|y| self.pixels + stride * self.place(y)).collect();
        Ok(places.into_iter().map(move |at| &bytes[at..at + length]))
    }

    /// Indices or levels, a byte each.
    fn samples(&self, input: &Input, bits: usize) -> Result<Vec<u8>> {
        if self.compression == BITFIELDS {
            return Err(input.damaged("masks of colours beside a palette"));
        }
        let mut samples = zeroed(self.width * self.height);
        for (row, packed) in samples.chunks_exact_mut(self.width).zip(self.rows(input, bits)?) {
            if bits == 8 { row.copy_from_slice(packed) } else { spread(packed, self.width, bits, row) }
        }
        Ok(samples)
    }

    /// Pixels that are colours themselves.
    fn colour_image(&self, input: &Input) -> Result<Image> {
        let [red, green, blue, alpha] = self.masks;
        // Where red, green, blue and alpha stand in the bytes of a pixel.
        let places: [usize; 4] = match (self.bits, self.compression, red, green, blue, alpha) {
            (24, 0, ..) | (24, _, 0xff_0000, 0xff00, 0xff, _) => [2, 1, 0, 3],
            (32, 0, ..) | (32, _, 0xff_0000, 0xff00, 0xff, 0) => [2, 1, 0, 4],
            (32, _, 0xff00_0000, 0xff_0000, 0xff00, 0) => [3, 2, 1, 4],
            (32, _, 0xff00_0000, 0xff00, 0xff, 0) => [3, 1, 0, 4],
            (32, _, 0xff00_0000, 0xff_0000, 0xff00, 0xff) => [3, 2, 1, 0],
            (32, _, 0xff, 0xff00, 0xff_0000, 0xff00_0000) => [0, 1, 2, 3],
            (32, _, 0xff_0000, 0xff00, 0xff, 0xff00_0000) | (32, _, 0, 0, 0, 0) => [2, 1, 0, 3],
            (32, _, 0xff00_0000, 0xff00, 0xff, 0xff_0000) => [3, 1, 0, 2],
            (16, 0, ..) | (16, _, 0x7c00, 0x3e0, 0x1f, _) => return self.halves(input, 10, 31),
            (16, _, 0xf800, 0x7e0, 0x1f, _) => return self.halves(input, 11, 63),
            _ => return Err(input.damaged("colours at other places than Pillow reads")),
        };
        let stride = self.bits / 8;
        let mode = if places[3] < stride { Mode::Rgba } else { Mode::Rgb };
        let places = &places[..mode.bytes_per_pixel()];
        let mut pixels = zeroed(self.width * self.height * places.len());
        for (row, packed) in pixels.chunks_exact_mut(self.width * places.len()).zip(self.rows(input, self.bits)?) {
            for (pixel, packed) in row.chunks_exact_mut(places.len()).zip(packed.chunks_exact(stride)) {
                pixel.iter_mut().zip(places).for_each(|(channel, &place)| *channel = packed[place]);
            }
        }
        Ok(Image::new(self.width, self.height, mode, pixels))
    }

    /// Pixels of 16 bits: red from bit `red` on, green of so many levels above 0.
    fn halves(&self, input: &Input, red: u32, green: u32) -> Result<Image> {
        let mut pixels = zeroed(self.width * self.height * 3);
        for (row, packed) in pixels.chunks_exact_mut(self.width * 3).zip(self.rows(input, 16)?) {
            for (pixel, packed) in row.chunks_exact_mut(3).zip(packed.chunks_exact(2)) {
                let word = u32::from(u16::from_le_bytes([packed[0], packed[1]]));
                // Cut off, not rounded.
                pixel[0] = (((word >> red) & 31) * 255 / 31) as u8;
                pixel[1] = (((word >> 5) & green) * 255 / green) as u8;
                pixel[2] = ((word & 31) * 255 / 31) as u8;
            }
        }
        Ok(Image::new(self.width, self.height, Mode::Rgb, pixels))
    }

    /// Indices from runs, which go from the left of a row of the file, over its end where they do not say it.
    fn runs(&self, input: &Input) -> Result<Vec<u8>> {
        let count = self.width * self.height;
        let mut drawn = zeroed(count);
        drawn.clear();
        let mut at = self.pixels;
        let mut x = 0;
        let bytes = |at: usize, length: usize| input.bytes.get(at..at.saturating_add(length));
        let is_narrow = self.compression == RLE4;
        while drawn.len() < count {
            let Some(&[length, value]) = bytes(at, 2).and_then(<[u8]>::first_chunk) else { break };
            at += 2;
            match (length, value) {
                (0, 0) => {
                    drawn.resize(drawn.len().next_multiple_of(self.width), 0);
                    x = 0;
                }
                (0, 1) => break,
                (0, 2) => {
                    // Four bytes, of which the last two count, as Pillow has it.
                    let Some(&[_, _, right, up]) = bytes(at, 4).and_then(<[u8]>::first_chunk) else { break };
                    at += 4;
                    let passed = usize::from(right) + usize::from(up) * self.width;
                    drawn.resize((drawn.len() + passed).min(count), 0);
                    x = drawn.len() % self.width;
                }
                (0, run) => {
                    let length = usize::from(if is_narrow { run / 2 } else { run });
                    let Some(run_bytes) = bytes(at, length) else { break };
                    match is_narrow {
                        true => drawn.extend(run_bytes.iter().flat_map(|byte| [byte >> 4, byte & 15])),
                        false => drawn.extend(run_bytes),
                    }
                    x += usize::from(run);
                    at = (at + length).next_multiple_of(2);
                }
                (length, value) => {
                    let length = usize::from(length).min(self.width.saturating_sub(x));
                    let pair = if is_narrow { [value >> 4, value & 15] } else { [value; 2] };
                    drawn.extend((0..length).map(|number| pair[number % 2]));
                    x += length;
                }
            }
        }
        if drawn.len() < count {
            return Err(input.damaged("fewer pixels than its size says"));
        }
        drawn.truncate(count);
        if !self.is_top_down {
            let (mut low, mut high) = (0, self.height - 1);
            while low < high {
                let (top, bottom) = drawn.split_at_mut(high * self.width);
                top[low * self.width..][..self.width].swap_with_slice(&mut bottom[..self.width]);
                (low, high) = (low + 1, high - 1);
            }
        }
        Ok(drawn)
    }
}

//! PNG, JPEG, WebP, GIF and BMP files to images in the mode that Pillow 12.0 would give them.
//!
//! A file is hostile until shown otherwise: what it is follows from its first bytes and never from a name, and the
//! sides in its header are held against the [`Limits`] before anything is allocated for its pixels. Of an animation
//! only the first frame is read. The orientation is applied, which Pillow's `open` leaves to `exif_transpose`.
//!
//! Bit for bit Pillow's, but for lossy WebP, whose colours are within a few levels.

use std::borrow::Cow;
use std::io::Cursor;

use super::exif::Orientation;
use super::input::{Format, Input, Limits, is_gray_ramp, little_endian, padded_palette, spread, zeroed};
use super::{Image, Mode, bmp, foreign, jpeg, memory};
use crate::error::{Error, Result};

/// Decodes an image from the content of a file.
///
/// `source` names the image in messages: its path, or "image 3 of the prompt".
///
/// # Errors
///
/// Nothing known at the start of `bytes`, damaged or truncated data, or a limit that would be passed; a system without
/// memory for the pixels.
pub fn decode(bytes: &[u8], source: &str, limits: &Limits) -> Result<Image> {
    Error::catch(&format!("decoding {source}"), || of_any_format(bytes, source, limits))
}

fn of_any_format(bytes: &[u8], source: &str, limits: &Limits) -> Result<Image> {
    if bytes.len() as u64 > limits.bytes_max {
        return Err(Error::limit(format!("{source}: bytes of the file"), limits.bytes_max, bytes.len() as u64));
    }
    let Some(format) = Format::of(bytes) else {
        let found = foreign::name(bytes).map_or_else(|| first_bytes(bytes), foreign::advice);
        return Err(Error::invalid(source, "image", "PNG, JPEG, WebP, GIF or BMP data", found));
    };
    let input = Input { bytes, source, format, limits };
    match format {
        Format::Png => decode_png(&input),
        Format::Jpeg => decode_jpeg(&input),
        Format::WebP => decode_webp(&input),
        Format::Gif => decode_gif(&input),
        Format::Bmp => bmp::decode(&input),
    }
}

/// What stands at the start of a file that is not an image.
fn first_bytes(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => "0 bytes".to_owned(),
        length => format!("{length} bytes that start with {:02x?}", &bytes[..length.min(8)]),
    }
}

fn decode_png(input: &Input) -> Result<Image> {
    let mut decoder = png::Decoder::new(input.reader());
    // Never used, and compressed: text and colour profiles are where a small file hides a large one.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(|error| unreadable_png(input, error))?;
    let (width, height) = input.check_size(header.width, header.height)?;
    let mut reader = decoder.read_info().map_err(|error| unreadable_png(input, error))?;
    let mut packed = zeroed(reader.output_buffer_size().ok_or_else(|| input.damaged("rows too long"))?);
    reader.next_frame(&mut packed).map_err(|error| unreadable_png(input, error))?;
    Ok(png_image(width, height, reader.info(), packed).oriented(Orientation::of_png(input.bytes)))
}

/// The error of a PNG from what `png` says, unless that is a dump of its types.
fn unreadable_png(input: &Input, error: png::DecodingError) -> Error {
    let reason = error.to_string();
    if reason.contains(" { ") { input.damaged("a broken chunk") } else { input.damaged(reason) }
}

/// Unpacks the rows of a PNG. Of 16-bit colours the high bytes are kept; 16-bit grey is kept whole.
fn png_image(width: usize, height: usize, info: &png::Info, mut packed: Vec<u8>) -> Image {
    let bits = info.bit_depth as u8;
    let (mode, pixels) = match (info.color_type, bits) {
        (png::ColorType::Grayscale, 16) => {
            packed.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            (Mode::Gray16, packed)
        }
        (png::ColorType::Grayscale, 1) => (Mode::Bilevel, png_gray(packed, width, bits)),
        (png::ColorType::Grayscale, _) => (Mode::Gray, png_gray(packed, width, bits)),
        (png::ColorType::GrayscaleAlpha, _) => (Mode::GrayAlpha, png_samples(packed, width, bits)),
        (png::ColorType::Indexed, _) => (Mode::Palette, png_samples(packed, width, bits)),
        (png::ColorType::Rgb, _) => (Mode::Rgb, png_samples(packed, width, bits)),
        (png::ColorType::Rgba, _) => (Mode::Rgba, png_samples(packed, width, bits)),
    };
    let mut image = Image::new(width, height, mode, pixels);
    let transparency = info.trns.as_deref().unwrap_or_default();
    match info.color_type {
        png::ColorType::Indexed => {
            image.palette = padded_palette(info.palette.as_deref().unwrap_or_default());
            for (entry, &alpha) in image.palette.iter_mut().zip(transparency) {
                entry[3] = alpha;
            }
        }
        // Pillow compares the low byte of the file's unscaled level with the scaled pixels, at every bit depth.
        png::ColorType::Grayscale => image.transparent_gray = transparency.last().copied(),
        _ => {}
    }
    image
}

/// Grey of at most 8 bits, scaled so that the lightest level is 255.
fn png_gray(packed: Vec<u8>, width: usize, bits: u8) -> Vec<u8> {
    let step = 255 / (u8::MAX >> (8 - bits));
    let mut samples = png_samples(packed, width, bits);
    samples.iter_mut().for_each(|sample| *sample *= step);
    samples
}

/// Rows of a PNG with every sample in a byte of its own; of 16 bits the high ones. `width` samples are a row.
fn png_samples(mut packed: Vec<u8>, width: usize, bits: u8) -> Vec<u8> {
    match bits {
        8 => packed,
        // In place: no memory is asked for that may not be there.
        16 => {
            let samples = packed.len() / 2;
            (0..samples).for_each(|sample| packed[sample] = packed[2 * sample]);
            packed.truncate(samples);
            packed.shrink_to_fit();
            packed
        }
        _ => {
            let rows = packed.len() / (width * usize::from(bits)).div_ceil(8);
            let mut samples = zeroed(width * rows);
            spread(&packed, width, bits.into(), &mut samples);
            samples
        }
    }
}

fn decode_jpeg(input: &Input) -> Result<Image> {
    let decoder = jpeg::Decoder::new(input.bytes).map_err(|reason| input.damaged(reason))?;
    let (width, height) = decoder.dimensions();
    let (width, height) = input.check_size(width, height)?;
    let mode = match decoder.channels() {
        1 => Mode::Gray,
        3 => Mode::Rgb,
        _ => Mode::Cmyk,
    };
    memory::ask(decoder.memory());
    let mut pixels = zeroed(width * height * mode.bytes_per_pixel());
    decoder.read(&mut pixels).map_err(|reason| input.damaged(reason))?;
    if mode == Mode::Cmyk {
        // Adobe's programs store inks inverted, and Pillow takes all files as theirs.
        pixels.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    Ok(Image::new(width, height, mode, pixels).oriented(Orientation::of_jpeg(input.bytes)))
}

fn decode_webp(input: &Input) -> Result<Image> {
    // What follows the file in it is no part of it, as libwebp has it.
    let end = (8 + little_endian(input.bytes, 4) as usize).clamp(12, input.bytes.len());
    let bytes = &input.bytes[..end];
    // The decoder allocates whatever length a chunk claims.
    if !webp_chunks_fit(bytes) {
        return Err(input.damaged("fewer bytes than its chunks claim"));
    }
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(|error| input.damaged(error))?;
    let (width, height) = decoder.dimensions();
    let (width, height) = input.check_size(width, height)?;
    let mode = if decoder.has_alpha() { Mode::Rgba } else { Mode::Rgb };
    let mut pixels = zeroed(width * height * mode.bytes_per_pixel());
    // The decoder's own planes or words of a pixel.
    memory::expect(width * height * 4);
    decoder.read_image(&mut pixels).map_err(|error| input.damaged(error))?;
    Ok(Image::new(width, height, mode, pixels).oriented(Orientation::of_webp(bytes)))
}

/// Whether the chunks of a WebP end where the file ends or before; the padding of the last one may be missing.
fn webp_chunks_fit(bytes: &[u8]) -> bool {
    let mut place = 12;
    while place + 8 <= bytes.len() {
        let length = little_endian(bytes, place + 4) as usize;
        if length > bytes.len() - place - 8 {
            return false;
        }
        place += 8 + length + length % 2;
    }
    true
}

fn decode_gif(input: &Input) -> Result<Image> {
    let [_, _, _, _, _, _, width_low, width_high, height_low, height_high, ..] = *input.bytes else {
        return Err(input.damaged("a header cut short"));
    };
    let screen_width = u16::from_le_bytes([width_low, width_high]).into();
    let screen_height = u16::from_le_bytes([height_low, height_high]).into();
    // An empty screen is fine as long as the frame makes it larger.
    input.check_size(u32::max(screen_width, 1), u32::max(screen_height, 1))?;
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::Indexed);
    let bytes = gif_with_palette(input.bytes);
    let mut decoder = options.read_info(&*bytes).map_err(|error| input.damaged(error))?;
    let frame = match decoder.next_frame_info().map_err(|error| input.damaged(error))? {
        Some(frame) => GifFrame::new(frame),
        None => return Err(input.damaged("no frame")),
    };
    // A first frame that reaches beyond the screen makes the screen larger.
    let (width, height) = input.check_size(screen_width.max(frame.right()), screen_height.max(frame.bottom()))?;
    let mut indices = zeroed(frame.width * frame.height);
    decoder.read_into_buffer(&mut indices).map_err(|error| input.damaged(error))?;
    let palette = decoder.palette().map_err(|error| input.damaged(error))?;

    let mut screen = zeroed(width * height);
    screen.fill(frame.transparent.unwrap_or(0));
    frame.paste(&indices, &mut screen, width);
    let mut image = Image::new(width, height, Mode::Palette, screen);
    if is_gray_ramp(palette.as_chunks().0) {
        image.mode = Mode::Gray;
        image.transparent_gray = frame.transparent;
    } else {
        image.palette = padded_palette(palette);
        if let Some(index) = frame.transparent {
            image.palette[usize::from(index)][3] = 0;
        }
    }
    Ok(image)
}

/// A GIF with a palette for frames that have none, whose indices are levels. The decoder refuses such frames.
pub(crate) fn gif_with_palette(bytes: &[u8]) -> Cow<'_, [u8]> {
    const HAS_PALETTE: u8 = 0x80;
    match bytes.split_at_checked(13) {
        Some((head, frames)) if head[10] & HAS_PALETTE == 0 => {
            let mut file = head.to_vec();
            file[10] |= HAS_PALETTE | 7;
            file.extend((0..=255).flat_map(|level| [level; 3]));
            file.extend(frames);
            file.into()
        }
        _ => bytes.into(),
    }
}

/// Where the first frame of a GIF lies on the screen, and which of its indices is see-through.
struct GifFrame {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    transparent: Option<u8>,
}

impl GifFrame {
    fn new(frame: &gif::Frame) -> Self {
        GifFrame {
            left: frame.left.into(),
            top: frame.top.into(),
            width: frame.width.into(),
            height: frame.height.into(),
            transparent: frame.transparent,
        }
    }

    fn right(&self) -> u32 {
        (self.left + self.width) as u32
    }

    fn bottom(&self) -> u32 {
        (self.top + self.height) as u32
    }

    fn paste(&self, indices: &[u8], screen: &mut [u8], screen_width: usize) {
        if indices.is_empty() {
            return;
        }
        let rows = screen.chunks_exact_mut(screen_width).skip(self.top);
        for (row, indices) in rows.zip(indices.chunks_exact(self.width)) {
            row[self.left..][..self.width].copy_from_slice(indices);
        }
    }
}

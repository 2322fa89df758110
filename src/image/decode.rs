//! PNG, JPEG, WebP, GIF and BMP files to images in the mode that Pillow 12.0 would give them.
//!
//! A file is hostile until shown otherwise: what it is follows from its first bytes and never from a name, and the
//! sides in its header are held against the [`Limits`] before anything is allocated for its pixels. Of an animation
//! only the first frame is read. The EXIF orientation is applied, which Pillow's `open` leaves to the caller; one that
//! stands in XMP or in a text chunk is not.
//!
//! Bit for bit Pillow's, but for three: JPEG (another inverse transform; up to 4 levels on photographs), CMYK JPEG
//! (RGB at once, where Pillow resizes the inks) and 16-bit BMP (rounded, where Pillow cuts off).

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt::Display;
use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, webp::WebPDecoder};
use image::metadata::Orientation;

use super::{Image, Mode};
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

/// Decodes an image from the content of a file.
///
/// `source` names the image in messages: its path, or "image 3 of the prompt".
///
/// # Errors
///
/// Nothing known at the start of `bytes`, damaged or truncated data, or a limit that would be passed.
pub fn decode(bytes: &[u8], source: &str, limits: &Limits) -> Result<Image> {
    if bytes.len() as u64 > limits.bytes_max {
        return Err(Error::limit(format!("{source}: bytes of the file"), limits.bytes_max, bytes.len() as u64));
    }
    let Some(format) = Format::of(bytes) else {
        return Err(Error::invalid(source, "image", "PNG, JPEG, WebP, GIF or BMP data", first_bytes(bytes)));
    };
    let input = Input { bytes, source, format, limits };
    match format {
        Format::Png => decode_png(&input),
        Format::Jpeg => decode_jpeg(&input),
        Format::WebP => decode_webp(&input),
        Format::Gif => decode_gif(&input),
        Format::Bmp => decode_bmp(&input),
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

    fn name(self) -> &'static str {
        match self {
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
        }
    }
}

/// What stands at the start of a file that is not an image.
fn first_bytes(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => "0 bytes".to_owned(),
        length => format!("{length} bytes that start with {:02x?}", &bytes[..length.min(8)]),
    }
}

/// A file to decode, with what is needed to refuse it.
struct Input<'a> {
    bytes: &'a [u8],
    source: &'a str,
    format: Format,
    limits: &'a Limits,
}

impl<'a> Input<'a> {
    fn reader(&self) -> Cursor<&'a [u8]> {
        Cursor::new(self.bytes)
    }

    /// Holds the sides in a header against the limits.
    fn check_size(&self, width: u32, height: u32) -> Result<(usize, usize)> {
        self.limits.check_sides(self.source, width, height)?;
        if width == 0 || height == 0 {
            return Err(self.damaged(format!("a size of {width} x {height}")));
        }
        Ok((width as usize, height as usize))
    }

    /// The error of a file that cannot be decoded, for `reason`.
    fn damaged(&self, reason: impl Display) -> Error {
        Error::invalid(self.source, self.format.name(), "a complete and undamaged file", reason)
    }

    /// The same from what `image` says, without its own preface.
    fn undecodable(&self, error: image::ImageError) -> Error {
        match error.source() {
            Some(reason) => self.damaged(reason),
            None => self.damaged(error),
        }
    }

    /// The same from what `png` says, unless that is a dump of its types.
    fn unreadable_png(&self, error: png::DecodingError) -> Error {
        let reason = error.to_string();
        if reason.contains(" { ") { self.damaged("a broken chunk") } else { self.damaged(reason) }
    }
}

fn decode_png(input: &Input) -> Result<Image> {
    let mut decoder = png::Decoder::new(input.reader());
    // Never used, and compressed: text and colour profiles are where a small file hides a large one.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(|error| input.unreadable_png(error))?;
    let (width, height) = input.check_size(header.width, header.height)?;
    let mut reader = decoder.read_info().map_err(|error| input.unreadable_png(error))?;
    let mut packed = vec![0; reader.output_buffer_size().ok_or_else(|| input.damaged("rows too long"))?];
    reader.next_frame(&mut packed).map_err(|error| input.unreadable_png(error))?;
    // The orientation may stand behind the pixels; what else is wrong there does not matter any more.
    let _ = reader.finish();
    let info = reader.info();
    let image = png_image(width, height, info, packed);
    Ok(image.oriented(info.exif_metadata.as_deref().and_then(Orientation::from_exif_chunk)))
}

/// Unpacks the rows of a PNG. Of 16-bit colours the high bytes are kept; 16-bit grey is kept whole.
fn png_image(width: usize, height: usize, info: &png::Info, packed: Vec<u8>) -> Image {
    let bits = info.bit_depth as u8;
    let (mode, pixels) = match (info.color_type, bits) {
        (png::ColorType::Grayscale, 16) => {
            (Mode::Gray16, packed.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect())
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
    png_samples(packed, width, bits).into_iter().map(|sample| sample * step).collect()
}

/// Rows of a PNG with every sample in a byte of its own; of 16 bits the high ones.
fn png_samples(packed: Vec<u8>, width: usize, bits: u8) -> Vec<u8> {
    match bits {
        8 => packed,
        16 => packed.into_iter().step_by(2).collect(),
        _ => spread(&packed, width, bits.into()),
    }
}

/// Spreads rows of 1-, 2- or 4-bit samples, each of which starts at a whole byte.
fn spread(packed: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let mask = (1 << bits) - 1;
    let sample = |row: &[u8], x: usize| row[x / per_byte] >> (8 - bits * (x % per_byte + 1)) & mask;
    packed.chunks_exact(width.div_ceil(per_byte)).flat_map(|row| (0..width).map(move |x| sample(row, x))).collect()
}

/// A palette of red, green and blue as 256 opaque entries; those that the file lacks are black.
fn padded_palette(colours: &[u8]) -> Vec<[u8; 4]> {
    let (colours, _) = colours.as_chunks::<3>();
    let mut palette: Vec<[u8; 4]> = colours.iter().map(|&[red, green, blue]| [red, green, blue, 255]).collect();
    palette.resize(256, [0, 0, 0, 255]);
    palette
}

fn decode_jpeg(input: &Input) -> Result<Image> {
    let mut decoder = JpegDecoder::new(input.reader()).map_err(|error| input.undecodable(error))?;
    let (width, height) = decoder.dimensions();
    input.check_size(width, height)?;
    // The decoder fills what is missing with grey; an image cut short must not pass as one.
    if !jpeg_scan_ends(input.bytes) {
        return Err(input.damaged("a scan without an end-of-image marker"));
    }
    let orientation = decoder.orientation().map_err(|error| input.undecodable(error))?;
    let mode = if decoder.color_type() == image::ColorType::L8 { Mode::Gray } else { Mode::Rgb };
    Ok(read_image(decoder, mode).map_err(|error| input.undecodable(error))?.oriented(Some(orientation)))
}

/// Whether an end-of-image marker follows the first start-of-scan marker.
///
/// Within a scan 0xff is always followed by 0 or by a restart, so there the marker cannot be pixels; before the scan it
/// can be part of a thumbnail, so segments are skipped.
fn jpeg_scan_ends(bytes: &[u8]) -> bool {
    let mut rest = &bytes[2..];
    loop {
        match rest {
            [0xff, 0xda, scan @ ..] => return scan.windows(2).any(|pair| pair == [0xff, 0xd9]),
            [0xff, marker, high, low, ..] if !matches!(marker, 0x00 | 0x01 | 0xd0..=0xd8 | 0xff) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(2 + length..).unwrap_or_default();
            }
            [_, after @ ..] => rest = after,
            [] => return false,
        }
    }
}

fn decode_webp(input: &Input) -> Result<Image> {
    // The decoder allocates whatever length a chunk claims.
    if !webp_chunks_fit(input.bytes) {
        return Err(input.damaged("fewer bytes than its chunks claim"));
    }
    let mut decoder = WebPDecoder::new(input.reader()).map_err(|error| input.undecodable(error))?;
    let (width, height) = decoder.dimensions();
    input.check_size(width, height)?;
    let orientation = decoder.orientation().map_err(|error| input.undecodable(error))?;
    let mode = if decoder.color_type().has_alpha() { Mode::Rgba } else { Mode::Rgb };
    Ok(read_image(decoder, mode).map_err(|error| input.undecodable(error))?.oriented(Some(orientation)))
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

/// Reads all pixels of a decoder whose 8-bit channels are those of `mode`, and whose size has been checked.
fn read_image(decoder: impl ImageDecoder, mode: Mode) -> image::ImageResult<Image> {
    let (width, height) = decoder.dimensions();
    let mut pixels = vec![0; width as usize * height as usize * mode.bytes_per_pixel()];
    decoder.read_image(&mut pixels)?;
    Ok(Image::new(width as usize, height as usize, mode, pixels))
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
    let mut decoder = options.read_info(input.reader()).map_err(|error| input.damaged(error))?;
    let frame = match decoder.next_frame_info().map_err(|error| input.damaged(error))? {
        Some(frame) => GifFrame::new(frame),
        None => return Err(input.damaged("no frame")),
    };
    // A first frame that reaches beyond the screen makes the screen larger.
    let (width, height) = input.check_size(screen_width.max(frame.right()), screen_height.max(frame.bottom()))?;
    let mut indices = vec![0; frame.width * frame.height];
    decoder.read_into_buffer(&mut indices).map_err(|error| input.damaged(error))?;
    let palette = decoder.palette().map_err(|error| input.damaged(error))?;

    let mut screen = vec![frame.transparent.unwrap_or(0); width * height];
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

/// Whether a palette says of each index only that it is its own grey level; Pillow then takes the image as grey.
fn is_gray_ramp(colours: &[[u8; 3]]) -> bool {
    colours
        .iter()
        .enumerate()
        .all(|(index, &[red, green, blue])| index == usize::from(red) && red == green && red == blue)
}

fn decode_bmp(input: &Input) -> Result<Image> {
    let decoder = BmpDecoder::new(input.reader()).map_err(|error| input.undecodable(error))?;
    let (width, height) = decoder.dimensions();
    input.check_size(width, height)?;
    let colours = decoder.get_palette().map(|palette| palette[..palette.len().min(bmp_colours(input.bytes))].to_vec());
    let mode = if decoder.color_type().has_alpha() { Mode::Rgba } else { Mode::Rgb };
    let image = read_image(decoder, mode).map_err(|error| input.undecodable(error))?;
    Ok(match colours {
        None => image,
        Some(colours) => bmp_palette_image(image, &colours),
    })
}

/// The number of palette entries that a BMP's header promises; the decoder fills its palette up with black.
fn bmp_colours(bytes: &[u8]) -> usize {
    // Before Windows 3 the header was 12 bytes long, and the palette was always whole.
    let (bits, used) = match little_endian(bytes, 14) {
        12 => (little_endian(bytes, 22) >> 16, 0),
        _ => (little_endian(bytes, 26) >> 16, little_endian(bytes, 46)),
    };
    if used == 0 { 1 << bits.min(8) } else { used as usize }
}

/// Four bytes of a header as a number; 0 where it ends before them.
fn little_endian(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&word| u32::from_le_bytes(word))
}

/// Gives the mode of its palette back to a BMP that was decoded to RGB. The order of the entries does not matter.
fn bmp_palette_image(image: Image, colours: &[[u8; 3]]) -> Image {
    let rgb = image.to_rgb();
    let (rgb, _) = rgb.as_chunks::<3>();
    let gray = |mode| Image::new(image.width, image.height, mode, rgb.iter().map(|pixel| pixel[0]).collect());
    if colours == [[0; 3], [255; 3]] {
        return gray(Mode::Bilevel);
    }
    if is_gray_ramp(colours) {
        return gray(Mode::Gray);
    }
    let mut palette = Vec::new();
    let mut index_of = HashMap::new();
    let mut index = |colour: &[u8; 3]| {
        *index_of.entry(*colour).or_insert_with(|| {
            palette.extend(colour);
            (palette.len() / 3 - 1) as u8
        })
    };
    let indices = rgb.iter().map(&mut index).collect();
    Image { palette: padded_palette(&palette), ..Image::new(image.width, image.height, Mode::Palette, indices) }
}

impl Image {
    /// Turned and mirrored as the EXIF orientation says.
    fn oriented(self, orientation: Option<Orientation>) -> Image {
        let (w, h) = (self.width, self.height);
        // Where the pixel of a place in the turned image is found in this one, as (x, y).
        match orientation.unwrap_or(Orientation::NoTransforms) {
            Orientation::NoTransforms => self,
            Orientation::FlipHorizontal => self.gathered(w, h, |x, y| (w - 1 - x, y)),
            Orientation::Rotate180 => self.gathered(w, h, |x, y| (w - 1 - x, h - 1 - y)),
            Orientation::FlipVertical => self.gathered(w, h, |x, y| (x, h - 1 - y)),
            Orientation::Rotate90FlipH => self.gathered(h, w, |x, y| (y, x)),
            Orientation::Rotate90 => self.gathered(h, w, |x, y| (y, h - 1 - x)),
            Orientation::Rotate270FlipH => self.gathered(h, w, |x, y| (w - 1 - y, h - 1 - x)),
            Orientation::Rotate270 => self.gathered(h, w, |x, y| (w - 1 - y, x)),
        }
    }

    /// An image of another shape with pixels taken from `place(x, y)` of this one.
    fn gathered(self, width: usize, height: usize, place: impl Fn(usize, usize) -> (usize, usize)) -> Image {
        let stride = self.mode.bytes_per_pixel();
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..height {
            for x in 0..width {
                let (from_x, from_y) = place(x, y);
                pixels.extend_from_slice(&self.pixels[(from_y * self.width + from_x) * stride..][..stride]);
            }
        }
        Image { width, height, pixels, ..self }
    }
}

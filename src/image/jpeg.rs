//! JPEG as libjpeg-turbo reads it, which is what decoded the images that models were trained on: the same bits as
//! Pillow 12.0. `jpeg.c` beside this file calls it.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

// Links libjpeg.
use mozjpeg_sys as _;

/// Scans of a file. Progressive files have about ten; a file with thousands of empty ones would take for ever.
const SCANS_MAX: u32 = 100;

/// As in `jpeg.c`, where the members are described.
#[repr(C)]
struct Jpeg {
    width: u32,
    height: u32,
    channels: u32,
    holds_coefficients: u32,
    message: [c_char; 200],
}

// SAFETY: the declarations are those of jpeg.c.
unsafe extern "C" {
    fn flamant_jpeg_header(bytes: *const u8, length: usize, jpeg: *mut Jpeg) -> c_int;
    fn flamant_jpeg_pixels(
        bytes: *const u8,
        length: usize,
        memory_max: usize,
        scans_max: u32,
        pixels: *mut u8,
        jpeg: *mut Jpeg,
    ) -> c_int;
}

/// A file whose header has been read.
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    jpeg: Jpeg,
}

impl<'a> Decoder<'a> {
    /// Reads the header; an error says what is wrong.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let mut jpeg = Jpeg { width: 0, height: 0, channels: 0, holds_coefficients: 0, message: [0; 200] };
        // SAFETY: the bytes are as many as is said, and the struct is C's.
        match unsafe { flamant_jpeg_header(bytes.as_ptr(), bytes.len(), &mut jpeg) } {
            0 => Err(jpeg.message()),
            _ => Ok(Decoder { bytes, jpeg }),
        }
    }

    pub(super) fn dimensions(&self) -> (u32, u32) {
        (self.jpeg.width, self.jpeg.height)
    }

    /// 1: grey; 3: red, green, blue; 4: inks, as they are stored.
    pub(super) fn channels(&self) -> usize {
        self.jpeg.channels as usize
    }

    /// Bytes that libjpeg may need beside the pixels.
    pub(super) fn memory(&self) -> usize {
        // Two bytes a coefficient, of sides rounded up to blocks of 32, and a strip of rows.
        let side = |length: u32| (length as usize).next_multiple_of(32);
        let (width, height) = (side(self.jpeg.width), side(self.jpeg.height));
        let coefficients = if self.jpeg.holds_coefficients != 0 { width * height * 2 } else { 0 };
        (1 << 20) + self.channels() * (coefficients + 64 * width)
    }

    /// The pixels, rows from the top, into as many bytes as they have.
    pub(super) fn read(mut self, pixels: &mut [u8]) -> Result<(), String> {
        assert_eq!(pixels.len(), self.jpeg.width as usize * self.jpeg.height as usize * self.channels());
        let memory_max = self.memory();
        // SAFETY: both buffers are as long as is said: C compares the header with `jpeg`, which measures `pixels`.
        let read = unsafe {
            flamant_jpeg_pixels(
                self.bytes.as_ptr(),
                self.bytes.len(),
                memory_max,
                SCANS_MAX,
                pixels.as_mut_ptr(),
                &mut self.jpeg,
            )
        };
        if read == 0 { Err(self.jpeg.message()) } else { Ok(()) }
    }
}

impl Jpeg {
    fn message(&self) -> String {
        let bytes: Vec<u8> = self.message.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
        // Markers and tables are in hexadecimal; to a reader the prefix looks like an address of memory.
        String::from_utf8_lossy(&bytes).replace(" 0x", " ")
    }
}

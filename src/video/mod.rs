//! Videos: from what a user has to the few frames that a model is shown.
//!
//! A [`Video`] comes from images, from a folder of them, from an animated GIF or WebP, or from a video file, which a
//! process of `ffmpeg` decodes; one file each. [`FrameSampling`] says which frames are taken. How a model reads them,
//! and that a video is one image of a prompt, is decided elsewhere.

mod animation;
mod ffmpeg;
mod folder;
mod gif;
mod sampling;
mod webp;

pub use sampling::FrameSampling;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use crate::checkpoint::{open_regular, read_bounded};
use crate::error::{Error, Result};
use crate::image::{self, Format, Image, png_chunks};
use crate::setters::setters;
use sampling::Thinning;

/// Most frames of a video.
pub const FRAMES_MAX: usize = 128;

/// What a video may cost at most, beyond what one of its frames may: that is [`image::Limits`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Frames looked at, and frames of an animation.
    pub frames_max: u64,
    /// Pixels of all frames held at a time: up to twice those asked for, until the end of the video is known.
    pub pixels_max: u64,
    /// Bytes of an animation's canvas and of the frames kept of it, known before any of it is drawn.
    pub animation_bytes_max: u64,
    /// Pixels drawn and cleared of all frames of an animation, which has to be drawn from its beginning.
    pub pixels_drawn_max: u64,
    /// How long an `ffmpeg` may work on one video.
    pub time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frames_max: 1 << 16,
            pixels_max: 256 << 20,
            animation_bytes_max: 256 << 20,
            pixels_drawn_max: 4 << 30,
            time_max: Duration::from_secs(600),
        }
    }
}

setters!(Limits {
    frames_max: u64,
    pixels_max: u64,
    animation_bytes_max: u64,
    pixels_drawn_max: u64,
    time_max: Duration
});

/// The frames of a video in the order of time, from 1 to [`FRAMES_MAX`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Video {
    frames: Vec<Image>,
}

impl Video {
    /// A video of these frames.
    ///
    /// # Errors
    /// No frame, or more than [`FRAMES_MAX`].
    pub fn new(frames: Vec<Image>) -> Result<Video> {
        match frames.len() {
            0 => Err(Error::argument("video: expected at least one frame, found none")),
            1..=FRAMES_MAX => Ok(Video { frames }),
            found => Err(Error::limit("frames of a video", FRAMES_MAX as u64, found as u64)),
        }
    }

    /// A video of at most [`FRAMES_MAX`] images, whose sizes are held to the limits as they come.
    pub(crate) fn gather(source: &str, limits: &Limits, images: impl Iterator<Item = Result<Image>>) -> Result<Video> {
        let all = FrameSampling { frames_max: FRAMES_MAX, ..FrameSampling::default() };
        let mut frames = Frames::new(source, &all, limits);
        for image in images {
            frames.look(|_| image)?;
        }
        frames.finish()
    }

    /// The frames taken from the folder or file at `path`.
    ///
    /// A folder's files are frames in the order of their names, numbers in them by value (`frame2` before `frame10`);
    /// names that begin with a dot are passed over, and files that are not sampled are not read. Animations are drawn
    /// as Pillow 12.0 draws them, with a delay of 0 read as a tenth of a second, as browsers do. An image that does
    /// not move is one frame. Any other file, and a PNG that moves, is given to `ffmpeg`, found on the path or by the
    /// environment's `FLAMANT_FFMPEG`; it gives up at the first fault.
    ///
    /// # Errors
    /// Nothing there; a file that is damaged or cut short; a limit that would be passed; no `ffmpeg`, or one that
    /// fails.
    pub fn open(path: &Path, sampling: &FrameSampling, limits: &Limits, frame_limits: &image::Limits) -> Result<Video> {
        sampling.check()?;
        let source = path.display().to_string();
        Error::catch(&format!("reading {source}"), || Self::read(path, &source, sampling, limits, frame_limits))
    }

    fn read(
        path: &Path,
        source: &str,
        sampling: &FrameSampling,
        limits: &Limits,
        frame_limits: &image::Limits,
    ) -> Result<Video> {
        let mut frames = Frames::new(source, sampling, limits);
        if path.is_dir() {
            folder::read(path, sampling, frame_limits, &mut frames)?;
            return frames.finish();
        }
        let mut start = Vec::new();
        open_regular(path)?.take(16).read_to_end(&mut start).map_err(|reason| Error::file(path, reason))?;
        if Format::of(&start).is_none() {
            ffmpeg::read(path, sampling, frame_limits, &mut frames)?;
            return frames.finish();
        }
        let bytes = read_bounded(path, frame_limits.bytes_max)?;
        match Format::of(&bytes) {
            Some(Format::Gif) => gif::read(&bytes, sampling, frame_limits, &mut frames)?,
            Some(Format::WebP) => webp::read(&bytes, sampling, frame_limits, &mut frames)?,
            Some(Format::Png) if moves(&bytes, &frames, frame_limits)? => {
                ffmpeg::read(path, sampling, frame_limits, &mut frames)?
            }
            _ => frames.look(|source| image::decode(&bytes, source, frame_limits))?,
        }
        frames.finish()
    }

    /// The frames taken from the bytes of an animation, or of an image, which is one frame. Video files are given to
    /// `ffmpeg` if that is allowed.
    pub(crate) fn decode(
        bytes: &[u8],
        source: &str,
        sampling: &FrameSampling,
        limits: &Limits,
        frame_limits: &image::Limits,
        ffmpeg_allowed: bool,
    ) -> Result<Video> {
        let mut frames = Frames::new(source, sampling, limits);
        let by_ffmpeg = match Format::of(bytes) {
            Some(Format::Png) => moves(bytes, &frames, frame_limits)?,
            format => format.is_none(),
        };
        match Format::of(bytes) {
            _ if by_ffmpeg && !ffmpeg_allowed => {
                let expected = "an animated GIF or WebP (other videos need a server with --allow-ffmpeg)";
                return Err(Error::invalid(source, "video", expected, "something else"));
            }
            _ if by_ffmpeg => {
                let file = memory_file(bytes)?;
                // The process has descriptors of its own.
                let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
                ffmpeg::read(path.as_ref(), sampling, frame_limits, &mut frames)?
            }
            Some(Format::Gif) => gif::read(bytes, sampling, frame_limits, &mut frames)?,
            Some(Format::WebP) => webp::read(bytes, sampling, frame_limits, &mut frames)?,
            _ => frames.look(|source| image::decode(bytes, source, frame_limits))?,
        }
        frames.finish()
    }

    /// The frames.
    pub fn frames(&self) -> &[Image] {
        &self.frames
    }
}

/// A file of these bytes that no folder has.
#[cfg(target_os = "linux")]
fn memory_file(bytes: &[u8]) -> Result<File> {
    let made = rustix::fs::memfd_create("video", rustix::fs::MemfdFlags::CLOEXEC).map_err(std::io::Error::from);
    let written = made.map(File::from).and_then(|mut file| file.write_all(bytes).map(|()| file));
    written.map_err(|reason| Error::file("video", reason))
}

#[cfg(not(target_os = "linux"))]
fn memory_file(_: &[u8]) -> Result<File> {
    Err(Error::argument("video: expected Linux for video files in requests, found another system"))
}

/// Frames as they are taken from a source, within the limits.
struct Frames<'a> {
    /// The source's name in errors.
    source: &'a str,
    limits: &'a Limits,
    thinning: Thinning<Image>,
}

impl<'a> Frames<'a> {
    fn new(source: &'a str, sampling: &FrameSampling, limits: &'a Limits) -> Self {
        Frames { source, limits, thinning: Thinning::new(sampling.frames_max) }
    }

    /// Looks at the next frame, which is made only if it is wanted; `make` gets the source's name.
    fn look(&mut self, make: impl FnOnce(&str) -> Result<Image>) -> Result<()> {
        let found = self.thinning.offered() + 1;
        if found > self.limits.frames_max {
            return Err(Error::limit(format!("{}: frames", self.source), self.limits.frames_max, found));
        }
        self.thinning.offer(|| make(self.source))?;
        let pixels = self.thinning.held().iter().map(Image::pixel_count).sum();
        if pixels > self.limits.pixels_max {
            let what = format!("{}: pixels of all frames held", self.source);
            return Err(Error::limit(what, self.limits.pixels_max, pixels));
        }
        Ok(())
    }

    fn finish(self) -> Result<Video> {
        let frames = self.thinning.finish();
        if frames.is_empty() {
            return Err(Error::invalid(self.source, "video", "at least one frame", "none"));
        }
        Video::new(frames)
    }
}

/// Whether a PNG says before its pixels that it is an animation, whose size and number of frames are within the limits.
fn moves(png: &[u8], frames: &Frames, limits: &image::Limits) -> Result<bool> {
    let number = |content: &[u8], at: usize| {
        content.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&bytes| u32::from_be_bytes(bytes))
    };
    let mut sides = (0, 0);
    for (name, content) in png_chunks(png).take_while(|(name, _)| *name != b"IDAT") {
        match name {
            b"IHDR" => sides = (number(content, 0), number(content, 4)),
            b"acTL" => {
                limits.check_sides(frames.source, sides.0, sides.1)?;
                let (most, found) = (frames.limits.frames_max, u64::from(number(content, 0)));
                let what = format!("{}: frames of an animation", frames.source);
                return if found > most { Err(Error::limit(what, most, found)) } else { Ok(true) };
            }
            _ => {}
        }
    }
    Ok(false)
}

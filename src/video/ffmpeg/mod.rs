//! Video files, decoded by a process of `ffmpeg`: nothing that decodes video runs in ours.
//!
//! It gets a list of arguments, never a line for a shell. The file is hostile: only common containers are read, none
//! that lists or names other files, and no protocol but that of files. What comes back through the pipe is as little
//! trusted: images in PPM, each with its sides, which are held to the limits.

mod process;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::Command;

use self::process::Process;
use super::{FrameSampling, Frames};
use crate::error::{Error, Result};
use crate::image::{Image, Limits, memory};

/// Names the program, where it is not `ffmpeg` on the path.
const PROGRAM: &str = "FLAMANT_FFMPEG";

/// What a file may be, by the names of ffmpeg's demuxers: none of these opens other files, as playlists do.
const CONTAINERS: &str = "apng,asf,avi,dv,flv,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,\
                          mpegvideo,mxf,nut,ogg,rm,yuv4mpegpipe";

/// What ffmpeg says, and goes on, where a file is shorter than it claims to be.
const CUT_SHORT: [&str; 2] = ["partial file", "ended prematurely"];

/// Takes the frames that are sampled.
pub(super) fn read(path: &Path, sampling: &FrameSampling, limits: &Limits, frames: &mut Frames) -> Result<()> {
    let named = std::env::var_os(PROGRAM).filter(|program| !program.is_empty());
    let program = named.unwrap_or_else(|| "ffmpeg".into());
    read_with(&program, path, sampling, limits, frames)
}

fn read_with(
    program: &OsStr,
    path: &Path,
    sampling: &FrameSampling,
    limits: &Limits,
    frames: &mut Frames,
) -> Result<()> {
    let program_name = program.display();
    let time_max = frames.limits.time_max;
    let process = Process::start(Command::new(program).args(arguments(path, sampling, limits)), time_max);
    let process = process.map_err(|reason| {
        let expected = format!("ffmpeg to read it with: install ffmpeg, or name the program in {PROGRAM}");
        Error::invalid(path, "video", expected, format!("{program_name}: {reason}"))
    })?;
    let broken = |found: &str| Error::invalid(path, "video", format!("images from {program_name}"), found);
    let failed = |reason: io::Error| match reason.kind() {
        io::ErrorKind::TimedOut => broken(&format!("no end after {} s", time_max.as_secs_f64())),
        _ => broken(&reason.to_string()),
    };
    let mut output = BufReader::with_capacity(1 << 16, process);
    let cut_short = loop {
        let (width, height) = match read_header(&mut output).map_err(failed)? {
            Header::End => break false,
            Header::CutShort => break true,
            Header::Other => return Err(broken("something else")),
            Header::Sides(width, height) => (width, height),
        };
        limits.check_sides(frames.source, width, height)?;
        let length = u64::from(width) * u64::from(height) * 3;
        let mut pixels = memory::room(length as usize);
        output.by_ref().take(length).read_to_end(&mut pixels).map_err(failed)?;
        if (pixels.len() as u64) < length {
            break true;
        }
        frames.look(|_| Image::from_rgb(width, height, pixels))?;
    };
    // All the program wrote has been read: now what it says of it.
    let (status, said) = output.into_inner().finish().map_err(failed)?;
    let complaint = if status.success() {
        said.lines().find(|line| CUT_SHORT.iter().any(|phrase| line.contains(phrase)))
    } else {
        Some(said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no word of why"))
    };
    match complaint {
        Some(line) => Err(broken(&format!("{status}: {}", without_address(line)))),
        None if cut_short => Err(broken("half an image")),
        None => Ok(()),
    }
}

fn arguments(path: &Path, sampling: &FrameSampling, limits: &Limits) -> Vec<OsString> {
    // In front of it, no name of a file is an option or another protocol.
    let mut file = OsString::from("file:");
    file.push(path);
    // Of each moment 0, 1, 2, ... the last frame that is not later; the first frame is at 0. Colours are converted in
    // the same way on every processor.
    let filters = format!(
        "setpts=PTS-STARTPTS,fps=fps={}:round=up,scale=flags=bicubic+accurate_rnd+full_chroma_int+bitexact,format=rgb24",
        sampling.per_second
    );
    let pixels_max = limits.pixels_max.min(i32::MAX as u64).to_string();
    // It ends at the first fault: what it makes up in place of what is damaged is no frame of the video.
    let mut arguments: Vec<OsString> =
        ["-nostdin", "-hide_banner", "-loglevel", "error", "-xerror"].map(Into::into).into();
    let input = ["-max_pixels", &pixels_max, "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, "-i"];
    arguments.extend(input.map(Into::into));
    arguments.push(file);
    // The first stream of images that is not a cover or a thumbnail.
    let output = ["-map", "0:V:0", "-vf", &filters, "-f", "image2pipe", "-c:v", "ppm", "pipe:1"];
    arguments.extend(output.map(Into::into));
    arguments
}

/// What stands before the pixels of an image.
enum Header {
    End,
    Sides(u32, u32),
    CutShort,
    Other,
}

/// Reads three short lines, in the one form that ffmpeg writes them: `P6`, width and height, 255.
fn read_header(output: &mut impl BufRead) -> io::Result<Header> {
    const LINE_MAX: u64 = 24;
    let mut header = Vec::new();
    for _ in 0..3 {
        output.by_ref().take(LINE_MAX).read_until(b'\n', &mut header)?;
    }
    if header.is_empty() {
        return Ok(Header::End);
    }
    let sides = || {
        let (width, height) =
            str::from_utf8(&header).ok()?.strip_prefix("P6\n")?.strip_suffix("\n255\n")?.split_once(' ')?;
        let sides = (width.parse().ok()?, height.parse().ok()?);
        (sides.0 > 0 && sides.1 > 0).then_some(sides)
    };
    Ok(match sides() {
        Some((width, height)) => Header::Sides(width, height),
        None if output.fill_buf()?.is_empty() => Header::CutShort,
        None => Header::Other,
    })
}

/// "[mov @ 0x5589b29dcac0] moov atom not found" without what is in brackets.
fn without_address(line: &str) -> &str {
    match line.split_once("] ") {
        Some((before, rest)) if before.starts_with('[') && before.contains(" @ 0x") => rest,
        _ => line,
    }
}

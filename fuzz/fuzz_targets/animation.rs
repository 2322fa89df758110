//! Animated GIFs and WebPs, and PNGs up to the point where a program of its own would read them.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use flamant::image;
use flamant::video::{FrameSampling, Limits, Video};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

const SIDE: u32 = 256;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // What is none of these, and a PNG that moves, would be handed to ffmpeg.
    let is_ours = [&b"GIF8"[..], b"RIFF", b"\x89PNG"].iter().any(|begin| bytes.starts_with(begin));
    if !is_ours || bytes.windows(4).any(|name| name == b"acTL") {
        return;
    }
    let path = FOLDER.path().join("fuzzed");
    std::fs::write(&path, bytes).expect("a writable folder");
    let limits = Limits::default().frames_max(64).pixels_max(1 << 18).animation_bytes_max(1 << 22);
    let limits = limits.pixels_drawn_max(1 << 20).time_max(Duration::from_secs(1));
    let frame = image::Limits::default().side_max(SIDE).pixels_max(1 << 16).bytes_max(1 << 16);
    match Video::open(&path, &FrameSampling::default().frames_max(8), &limits, &frame) {
        Ok(video) => {
            assert!((1..=8).contains(&video.frames().len()));
            assert!(video.frames().iter().all(|frame| frame.width() <= SIDE && frame.height() <= SIDE));
        }
        Err(error) => {
            assert_ne!(error.kind(), flamant::ErrorKind::Internal, "{error}");
            assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
        }
    }
});

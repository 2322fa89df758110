//! Against a false ffmpeg, whose videos are scripts of what it does; the true one, where there is one, is asked in
//! tests/formats/video.rs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::video::{Limits as VideoLimits, Video};

struct Given {
    program: PathBuf,
    limits: VideoLimits,
    frame_limits: Limits,
    sampling: FrameSampling,
}

impl Given {
    fn new() -> Self {
        Given {
            program: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/video/false_ffmpeg"),
            limits: VideoLimits::default(),
            frame_limits: Limits::default(),
            sampling: FrameSampling::default(),
        }
    }

    /// The levels of the frames of a video that does as `script` says in a folder of its own.
    fn read(&self, script: &str) -> std::result::Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.mp4");
        fs::write(&path, script).unwrap();
        let source = path.display().to_string();
        let mut frames = Frames::new(&source, &self.sampling, &self.limits);
        let read = read_with(self.program.as_os_str(), &path, &self.sampling, &self.frame_limits, &mut frames);
        let video = read.and_then(|()| frames.finish());
        let levels = |video: Video| video.frames().iter().map(|frame| frame.pixels()[0]).collect();
        video.map(levels).map_err(|error| error.to_string().replace(&source, "clip.mp4"))
    }

    #[track_caller]
    fn refuses(&self, script: &str, because: &str) {
        let error = self.read(script).unwrap_err();
        assert!(error.starts_with("clip.mp4: ") && error.contains(because), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn frames_come_through_the_pipe() {
    let given = Given::new();
    assert_eq!(given.read("image 001; image 002; image 377").unwrap(), [1, 2, 255]);
    // More than are asked for are thinned as they come, and it may say what it likes.
    let many =
        "for level in 1 2 3 4 5 6; do for more in 0 1 2 3 4 5 6 7; do image 0$level$more; echo x >&2; done; done";
    assert_eq!(given.read(many).unwrap(), [0o10, 0o20, 0o24, 0o34, 0o40, 0o50, 0o54, 0o64]);
}

#[test]
fn the_arguments_name_the_file_and_the_times() {
    let mut given = Given::new();
    given.sampling.per_second = 2.5;
    let script = r#"
        for word in -nostdin -xerror -protocol_whitelist file -format_whitelist 0:V:0 ppm pipe:1; do
            case " $* " in *" $word "*) ;; *) echo "no $word" >&2; exit 9 ;; esac
        done
        case "$*" in *"-i file:/"*) ;; *) echo "no file" >&2; exit 9 ;; esac
        case "$*" in *"fps=fps=2.5:round=up,"*) ;; *) echo "no rate" >&2; exit 9 ;; esac
        [ -z "$(cat)" ] || exit 9
        image 007"#;
    assert_eq!(given.read(script).unwrap(), [7]);
}

#[test]
fn a_program_that_is_not_there_is_asked_for() {
    let given = Given { program: "/nowhere/ffmpeg".into(), ..Given::new() };
    given.refuses("", "video: expected ffmpeg to read it with: install ffmpeg, or name the program in FLAMANT_FFMPEG");
    given.refuses("", "found /nowhere/ffmpeg: No such file");
}

#[test]
fn half_a_video_is_none() {
    let given = Given::new();
    given.refuses("", "expected at least one frame, found none");
    given.refuses("image 001; exit 3", "exit status: 3: no word of why");
    given.refuses(
        "image 001; printf '[mov @ 0x12ab] moov atom not found\\nand more\\n' >&2; exit 1",
        "exit status: 1: moov atom not found",
    );
    given.refuses("image 001; echo 'stream 0, offset 0x90a: partial file' >&2", "partial file");
    given.refuses("image 001; kill -9 $$", "signal: 9");
    given.refuses("image 001; printf 'P6\\n2 1\\n255\\nabc'", "found half an image");
    given.refuses("image 001; printf 'P6\\n2 '", "found half an image");
}

#[test]
fn what_is_no_image_is_refused() {
    let given = Given::new();
    let no_image = "from /";
    for garbage in [
        "exec yes",
        "exec cat /dev/zero",
        "exec yes P6",
        "printf 'P6\\n2 1\\n65535\\n'; exec yes",
        "printf 'P6\\n0 1\\n255\\n'; exec yes",
        "printf 'P6\\n-2 1\\n255\\n'; exec yes",
        "printf 'P6\\n2  1\\n255\\n'; exec yes",
        "printf 'P6\\n99999999999999999999 1\\n255\\n'; exec yes",
    ] {
        given.refuses(garbage, no_image);
        given.refuses(garbage, "found something else");
    }
    // Of these sides nothing is made.
    given.refuses("printf 'P6\\n4294967295 1\\n255\\n'; exec yes", "4294967295 is over the limit of 16384");
    given.refuses("printf 'P6\\n16384 16384\\n255\\n'; exec yes", "number of pixels: 268435456 is over the limit");
}

#[test]
fn a_program_without_end_is_ended() {
    let mut given = Given::new();
    given.limits.frames_max = 1000;
    given.refuses("while :; do image 001; done", "frames: 1001 is over the limit of 1000");
    given.limits.time_max = Duration::from_millis(300);
    given.limits.frames_max = u64::MAX;
    for script in [
        "exec sleep 1000",
        "image 001; exec sleep 1000",
        "exec >&-; exec sleep 1000",
        "exec 2>&-; exec sleep 1000",
        "image 001; exec >&- 2>&-; exec sleep 1000",
        "exec yes >&2",
        "while :; do image 001; done",
        // A process of its own holds the pipes when it has been ended.
        "sleep 3",
    ] {
        given.refuses(script, "found no end after 0.3 s");
    }
    let folder = tempfile::tempdir().unwrap();
    let number = folder.path().join("number");
    given.refuses(&format!("echo $$ > {}; exec sleep 1000", number.display()), "no end");
    let number = fs::read_to_string(number).unwrap();
    if cfg!(target_os = "linux") {
        assert!(!Path::new("/proc").join(number.trim()).exists(), "{number} is still there");
    }
}

#[test]
fn frames_held_are_within_the_limits() {
    let mut given = Given::new();
    given.limits.pixels_max = 31;
    given.refuses("while :; do image 001; done", "pixels of all frames held: 32 is over the limit of 31");
    given.frame_limits.side_max = 1;
    given.refuses("image 001", "width in pixels: 2 is over the limit of 1");
}

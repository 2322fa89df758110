//! Videos: animations against Pillow 12.0 to the last bit, in the frames that a sampling takes of them; folders and
//! lists of files; and videos in a prompt. The data is made by tools/golden_video.py, which documents it.

use std::fs;
use std::path::{Path, PathBuf};

use flamant::image::{self, Mode, Picture};
use flamant::video::{FRAMES_MAX, FrameSampling, Limits, Video};
use flamant::{Part, Prompt, PromptLimits};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/video").join(name)
}

fn open(path: &Path, sampling: &FrameSampling) -> flamant::Result<Video> {
    Video::open(path, sampling, &Limits::default(), &image::Limits::default())
}

fn decode(path: &Path) -> Picture {
    image::decode(&fs::read(path).unwrap(), &path.display().to_string(), &image::Limits::default()).unwrap()
}

/// The picture in 4 channels.
fn rgba(picture: &Picture) -> Vec<u8> {
    match picture.mode() {
        Mode::Rgba => picture.pixels().to_vec(),
        Mode::Rgb => picture.pixels().chunks(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect(),
        other => panic!("a frame in {other:?}"),
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn every_frame_is_pillows_to_the_last_bit() {
    let expected = fs::read_to_string(data("expected.txt")).unwrap();
    let mut wrong = Vec::new();
    for line in expected.lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        let path = data("exact").join(word());
        let sampling = FrameSampling { per_second: word().parse().unwrap(), frames_max: word().parse().unwrap() };
        let hashes: Vec<&str> = words.collect();
        let video = open(&path, &sampling).unwrap();
        let hash = |frame: &Picture| format!("{:016x}", fnv1a(frame.to_rgb().iter().copied().chain(rgba(frame))));
        let found: Vec<String> = video.frames().iter().map(hash).collect();
        if found != hashes {
            let differ = found.iter().zip(&hashes).filter(|(found, expected)| found != *expected).count();
            let name = path.file_name().unwrap().display();
            wrong.push(format!("{name} {sampling:?}: {} frames for {}, {differ} differ", found.len(), hashes.len()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), expected.lines().count(), wrong.join("\n"));
    assert!(expected.lines().count() >= 150);
}

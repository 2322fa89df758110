//! Videos: animations against Pillow 12.0 to the last bit, in the frames that a sampling takes of them; folders and
//! lists of files; and videos in a prompt. The data is made by tools/golden_video.py, which documents it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flamant::image::{self, Image, Mode};
use flamant::video::{FRAMES_MAX, FrameSampling, Limits, Video};
use flamant::{Flamingo, Options, Part, Prompt, PromptLimits};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/video").join(name)
}

fn open(path: &Path, sampling: &FrameSampling) -> flamant::Result<Video> {
    Video::open(path, sampling, &Limits::default(), &image::Limits::default())
}

fn decode(path: &Path) -> Image {
    image::decode(&fs::read(path).unwrap(), &path.display().to_string(), &image::Limits::default()).unwrap()
}

/// The image in 4 channels.
fn rgba(image: &Image) -> Vec<u8> {
    match image.mode() {
        Mode::Rgba => image.pixels().to_vec(),
        Mode::Rgb => image.pixels().chunks(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect(),
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
        let sampling = FrameSampling::default().per_second(word().parse().unwrap()).frames_max(word().parse().unwrap());
        let hashes: Vec<&str> = words.collect();
        let video = open(&path, &sampling).unwrap();
        let hash = |frame: &Image| format!("{:016x}", fnv1a(frame.to_rgb().iter().copied().chain(rgba(frame))));
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

#[test]
fn lossy_frames_are_within_a_few_levels_of_pillow() {
    for name in ["opaque", "alpha"] {
        let video = open(&data("lossy").join(format!("{name}.webp")), &FrameSampling::default()).unwrap();
        assert_eq!(video.frames().len(), 2);
        for (number, frame) in video.frames().iter().enumerate() {
            let pillows = rgba(&decode(&data("lossy").join(format!("{name}.{number}.png"))));
            let ours = rgba(frame);
            assert_eq!(ours.len(), pillows.len());
            let differences = || ours.iter().zip(&pillows).map(|(&a, &b)| u32::from(a.abs_diff(b)));
            let (most, sum) = (differences().max().unwrap(), differences().sum::<u32>());
            println!("{name} {number}: most {most}, mean {}", f64::from(sum) / ours.len() as f64);
            assert!(most <= 8 && sum as usize <= ours.len() / 20, "{name} {number}");
        }
    }
}

#[test]
fn what_is_cut_short_or_damaged_is_never_taken_for_whole() {
    let folder = tempfile::tempdir().unwrap();
    let sampling = FrameSampling::default().per_second(10.0).frames_max(FRAMES_MAX);
    let mut refused = 0;
    for entry in fs::read_dir(data("exact")).unwrap() {
        let whole = fs::read(entry.unwrap().path()).unwrap();
        let file = folder.path().join("animation");
        let read = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            open(&file, &sampling)
        };
        assert!(read(&whole).is_ok());
        // The last byte of a WebP may be padding.
        for length in (16..whole.len() - 1).step_by(53) {
            let error = read(&whole[..length]).unwrap_err().to_string();
            assert!(error.starts_with(&file.display().to_string()) && !error.contains('\n'), "{error}");
        }
        // Nothing asked of what is changed but that it is an answer.
        for place in (12..whole.len()).step_by(23) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x91;
            refused += usize::from(read(&bytes).is_err());
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn limits_are_kept() {
    let path = data("exact/mixed0.webp");
    let limits = Limits::default;
    for (limits, expected) in [
        (limits().frames_max(3), "frames of an animation: 4 is over the limit of 3"),
        (limits().pixels_drawn_max(100), "pixels of all frames of an animation: "),
        (limits().pixels_max(200), "pixels of all frames held: "),
        (limits().animation_bytes_max(2000), "bytes of an animation's canvas and frames: "),
    ] {
        let read = Video::open(&path, &FrameSampling::default(), &limits, &image::Limits::default());
        let error = read.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // Few frames, looked at often.
    let often = FrameSampling::default().per_second(1000.0).frames_max(1);
    let few = limits().frames_max(100);
    let error = Video::open(&data("exact/delays.gif"), &often, &few, &image::Limits::default()).unwrap_err();
    assert!(error.to_string().contains("frames: 101 is over the limit of 100"), "{error}");
    let tight = image::Limits::default().side_max(8);
    let error = Video::open(&path, &FrameSampling::default(), &Limits::default(), &tight).unwrap_err().to_string();
    assert!(error.contains("width in pixels: 13 is over the limit of 8"), "{error}");
    assert!(Video::new(vec![]).is_err() && Video::new(vec![dot(1); FRAMES_MAX + 1]).is_err());
    for sampling in [(0.0, 8), (-1.0, 8), (f64::NAN, 8), (f64::INFINITY, 8), (1001.0, 8), (1.0, 0), (1.0, 129)] {
        let sampling = FrameSampling::default().per_second(sampling.0).frames_max(sampling.1);
        assert!(open(&path, &sampling).is_err(), "{sampling:?}");
    }
}

/// A PNG that moves is looked at before a program of its own gets it.
#[test]
fn a_png_that_moves_is_held_to_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moves.png");
    let png = |width: u32, frames: u32| {
        let header =
            [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], &width.to_be_bytes(), b"\0\0\0\x01\x08\0\0\0\0crc?"].concat();
        [&header[..], b"\0\0\0\x08acTL", &frames.to_be_bytes(), b"\0\0\0\0crc?\0\0\0\0IDATcrc?"].concat()
    };
    let cases = [
        (png(30_000, 2), "moves.png: width in pixels: 30000 is over the limit of 16384"),
        (png(8, u32::MAX), "moves.png: frames of an animation: 4294967295 is over the limit of 65536"),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let error = open(&path, &FrameSampling::default()).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    // The name of the chunk in another's content says nothing.
    let text = [&b"\0\0\0\x04tEXtacTLcrc?"[..], &png(8, 1)[33..][20..]].concat();
    fs::write(&path, [&png(8, 1)[..33], &text].concat()).unwrap();
    assert!(open(&path, &FrameSampling::default()).unwrap_err().to_string().contains("PNG: expected a complete"));
}

/// A GIF of so many frames of one pixel, a second each, on a screen of these sides.
fn wide_gif(side: u16, frames: usize) -> Vec<u8> {
    let sides = [side.to_le_bytes(), side.to_le_bytes()].concat();
    let frame = b"!\xf9\x04\0\x64\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0";
    [b"GIF89a", &sides[..], b"\x80\0\0\0\0\0\xff\xff\xff", &frame.repeat(frames), b";"].concat()
}

/// A WebP of the same kind.
fn wide_webp(side: u32, frames: usize) -> Vec<u8> {
    let chunk = |name: &[u8], data: &[u8]| [name, &(data.len() as u32).to_le_bytes(), data].concat();
    let edge = &(side - 1).to_le_bytes()[..3];
    let pixel = chunk(b"VP8L", b"\x2f\0\0\0\0\x07\x10\xfd\x8f\xfe\x07\x22\xa2\xff\x01\0");
    let frame = chunk(b"ANMF", &[&[0; 12], &b"\xe8\x03\0\0"[..], &pixel].concat());
    let head = chunk(b"VP8X", &[b"\x02\0\0\0", edge, edge].concat());
    let body = [b"WEBP", &head[..], &chunk(b"ANIM", &[0; 6]), &frame.repeat(frames)].concat();
    chunk(b"RIFF", &body)
}

#[test]
fn animations_are_refused_by_their_headers() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("wide.gif", wide_gif(8192, 16)), ("wide.webp", wide_webp(8192, 16))] {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        let start = std::time::Instant::now();
        let error = open(&file, &FrameSampling::default()).unwrap_err().to_string();
        assert!(error.contains("pixels of all frames held: 536870912 is over the limit of 268435456"), "{error}");
        assert!(start.elapsed() < std::time::Duration::from_millis(500));
        let error = open(&file, &FrameSampling::default().frames_max(2)).unwrap_err().to_string();
        assert!(error.contains("bytes of an animation's canvas and frames: "), "{error}");
    }
    for (name, bytes) in [("small.gif", wide_gif(9, 16)), ("small.webp", wide_webp(9, 16))] {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        assert_eq!(open(&file, &FrameSampling::default()).unwrap().frames().len(), 8);
    }
}

/// An image of one pixel.
fn dot(level: u8) -> Image {
    Image::from_rgb(1, 1, vec![level; 3]).unwrap()
}

/// The same as a file.
fn dot_file(level: u8) -> Vec<u8> {
    let mut file = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0".to_vec();
    file.resize(54, 0);
    file.extend([level, level, level, 0]);
    file
}

fn levels(frames: &[Image]) -> Vec<u8> {
    frames.iter().map(|frame| frame.pixels()[0]).collect()
}

#[test]
fn a_folder_is_its_files_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..12 {
        fs::write(folder.path().join(format!("frame{number}.bmp")), dot_file(number)).unwrap();
    }
    fs::write(folder.path().join(".DS_Store"), "passed over").unwrap();
    let taken = |frames_max| {
        let sampling = FrameSampling::default().frames_max(frames_max);
        levels(open(folder.path(), &sampling).unwrap().frames())
    };
    assert_eq!(taken(12), (0..12).collect::<Vec<u8>>());
    assert_eq!(taken(3), [0, 6, 10]);
    assert_eq!(taken(1), [0]);
}

#[test]
fn a_video_is_one_image_of_a_prompt() {
    use base64::Engine as _;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("clip")).unwrap();
    let mut uris = Vec::new();
    for number in 0..20 {
        fs::write(folder.path().join(format!("clip/{number}.bmp")), dot_file(number)).unwrap();
        let data = base64::engine::general_purpose::STANDARD.encode(dot_file(number));
        uris.push(serde_json::json!(format!("data:image/bmp;base64,{data}")));
    }
    let parts = serde_json::json!([
        {"video": "clip"}, {"text": "kep."}, {"image": "clip/3.bmp"}, {"video": uris, "frames": 2}, {"text": "mo"},
        {"video": ["clip/5.bmp", "clip/4.bmp"]}, {"video": data("exact/pillows.gif"), "fps": 2, "frames": 30},
    ]);
    let prompt = Prompt::from_json(&parts.to_string(), "here", folder.path(), PromptLimits::default()).unwrap();
    let media: Vec<Vec<u8>> = prompt.media().map(levels).collect();
    assert_eq!(media[..4], [vec![0, 2, 6, 8, 10, 12, 16, 18], vec![3], vec![0, 16], vec![5, 4]]);
    assert_eq!(media[4].len(), 10);
    assert!(matches!(&prompt.parts()[0], Part::Video(video) if video.frames().len() == 8));

    // The tokens are those of images in the same places.
    let mut images = Prompt::new();
    for part in prompt.parts() {
        match part {
            Part::Text(text) => images.text(text).unwrap(),
            Part::Image(_) | Part::Video(_) => images.image(dot(0)).unwrap(),
            other => panic!("{other:?} is not known here"),
        };
    }
    let flamingo =
        Flamingo::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"), &Options::default()).unwrap();
    let tokenizer = flamingo.tokenizer();
    assert_eq!(prompt.render(tokenizer).unwrap(), images.render(tokenizer).unwrap());

    // A marker cannot be written around a video, and its pixels count.
    let mut forged = Prompt::new();
    forged.text("<image>").unwrap().video(Video::new(vec![dot(0)]).unwrap()).unwrap();
    assert!(forged.render(tokenizer).is_err());
    let mut small = Prompt::with_limits(PromptLimits::default().pixels_max(3));
    small.video(Video::new(vec![dot(0); 3]).unwrap()).unwrap();
    assert!(small.image(dot(0)).unwrap_err().to_string().contains("4 is over the limit of 3"));
    let mut single = Prompt::with_limits(PromptLimits::default().images_max(1));
    single.video(Video::new(vec![dot(0); 3]).unwrap()).unwrap();
    assert!(single.video(Video::new(vec![dot(0)]).unwrap()).is_err());
}

/// A clip of 53 frames at 5 a second without loss, the pixels of each of its number.
fn clip(folder: &Path, name: &str, options: &[&str]) -> PathBuf {
    let (raw, path) = (folder.join("raw"), folder.join(name));
    let pixels: Vec<u8> =
        (0..53).flat_map(|number| [[number, 255 - number, 3 * number]; 16 * 12].into_iter().flatten()).collect();
    fs::write(&raw, pixels).unwrap();
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args([
        "-nostdin",
        "-loglevel",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        "16x12",
        "-r",
        "5",
        "-i",
    ]);
    assert!(ffmpeg.arg(raw).args(options).arg(&path).status().unwrap().success());
    path
}

#[test]
fn the_true_ffmpeg_gives_the_frames_of_the_times() {
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        eprintln!("there is no ffmpeg here: that video files are read is shown by the false one alone");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lossless = ["-c:v", "ffv1", "-pix_fmt", "bgr0"];
    let path = clip(folder.path(), "clip.mkv", &lossless);
    // The last ends at 10.6 s.
    for (per_second, frames_max, expected) in [
        (1.0, 16, &[0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50][..]),
        (1.0, 4, &[0, 20, 30, 50]),
        (0.3, 8, &[0, 16, 33, 50]),
        (
            2.5,
            27,
            &[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52],
        ),
        (12.0, 5, &[0, 13, 26, 33, 46]),
    ] {
        let video = open(&path, &FrameSampling::default().per_second(per_second).frames_max(frames_max)).unwrap();
        assert_eq!(levels(video.frames()), expected, "{per_second} {frames_max}");
        let last = video.frames().last().unwrap();
        let level = last.pixels()[0];
        assert_eq!(*last, Image::from_rgb(16, 12, [level, 255 - level, 3 * level].repeat(16 * 12)).unwrap());
    }
    // Neither a file cut short nor one that names others is read.
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let refused = |path: &Path, because: &str| {
        let error = open(path, &FrameSampling::default()).unwrap_err().to_string();
        assert!(error.contains(because) && !error.contains('\n'), "{error}");
    };
    refused(&path, "ended prematurely");
    clip(folder.path(), "other.ts", &["-c:v", "mpeg2video", "-r", "25"]);
    let playlist = folder.path().join("list.m3u8");
    fs::write(&playlist, "#EXTM3U\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n").unwrap();
    refused(&playlist, "found exit status: 1: ");
    fs::write(&playlist, "ffconcat version 1.0\nfile other.ts\n").unwrap();
    refused(&playlist, "found exit status: 1: ");
}

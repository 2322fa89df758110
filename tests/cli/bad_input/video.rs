//! Videos that are none, are broken, are cut short or ask for too much; as arguments, and inside prompts.

use super::arguments::usage;
use super::{Folder, refused, text};

/// One of the repository's own animations.
fn animation(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/video/exact/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn half(name: &str) -> Vec<u8> {
    let mut bytes = animation(name);
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// A GIF with one more frame, which lies outside the screen.
fn gif_beyond() -> Vec<u8> {
    let mut bytes = animation("plain.gif");
    bytes.pop();
    bytes.extend(b",\x0c\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;");
    bytes
}

#[test]
fn files() {
    const WHOLE: &str = ": expected a complete and undamaged file, found ";
    // What is no image is a script for the false ffmpeg.
    let table: [(&str, Vec<u8>, &str); 11] = [
        ("half a GIF", half("plain.gif"), WHOLE),
        ("a GIF without frames", b"GIF89a\x05\0\x05\0\0\0\0;".to_vec(), WHOLE),
        ("a frame outside the screen", gif_beyond(), "found a frame that reaches beyond the screen"),
        ("half a WebP", half("mixed0.webp"), "found fewer bytes than its header claims"),
        ("half a PNG", b"\x89PNG\r\n\x1a\n".to_vec(), WHOLE),
        ("nothing", vec![], ": video: expected at least one frame, found none"),
        ("a failure", b"image 001; echo 'moov atom not found' >&2; exit 1".to_vec(), "exit status: 1: moov atom"),
        (
            "a false size",
            b"printf 'P6\\n99999 1\\n255\\n'".to_vec(),
            ": width in pixels: 99999 is over the limit of 16384",
        ),
        ("garbage", b"exec cat /dev/zero".to_vec(), "false_ffmpeg, found something else"),
        ("half a frame", b"printf 'P6\\n2 1\\n255\\nab'".to_vec(), "false_ffmpeg, found half an image"),
        ("no end", b"while :; do image 001; done".to_vec(), ": frames: 65537 is over the limit of 65536"),
    ];
    let folder = Folder::new();
    for (case, bytes, mention) in table {
        folder.write("../clip.mp4", bytes);
        let video = text(&folder.model().with_file_name("clip.mp4"));
        folder.write("../prompt.json", r#"[{"text": "a"}, {"video": "clip.mp4"}]"#);
        let prompt = text(&folder.model().with_file_name("prompt.json"));
        for from in [["--video", &video], ["--prompt", &prompt]] {
            refused(&[&["generate", &text(&folder.model())][..], &from].concat(), case, &["clip.mp4", mention]);
        }
    }
}

#[test]
fn folders() {
    let folder = Folder::new();
    let path = |name: &str| text(&folder.model().with_file_name(name));
    folder.make_folder("../empty");
    folder.make_folder("../mixed");
    folder.write("../mixed/frame1.gif", animation("plain.gif"));
    folder.write("../mixed/notes.txt", "these are frames");
    folder.make_folder("../nested");
    folder.make_folder("../nested/frames");
    folder.make_pipe("../pipe.mp4");
    folder.write("../empty/.hidden", "passed over");
    for (case, name, mentions) in [
        ("a missing file", "none.mp4", &["none.mp4: No such file"][..]),
        ("an empty folder", "empty", &["empty: video: expected at least one frame, found none"]),
        ("a folder with a text", "mixed", &["notes.txt: image: expected PNG, JPEG, WebP, GIF or BMP data"]),
        ("a folder in a folder", "nested", &["nested/frames: not a regular file"]),
        ("a pipe", "pipe.mp4", &["pipe.mp4: not a regular file"]),
    ] {
        refused(&["generate", &text(&folder.model()), "--video", &path(name)], case, mentions);
    }
}

#[test]
fn prompts() {
    for (case, part, mention) in [
        ("a number", r#"{"video": 7}"#, "part 0: video: expected a string or an array of strings, found a number"),
        ("a list of none", r#"{"video": []}"#, "part 0: video: expected at least one frame, found none"),
        ("a list of numbers", r#"{"video": ["model/a.png", 7]}"#, "part 0: video: expected a string, found a number"),
        ("a list with a URL", r#"{"video": ["http://a/b.png"]}"#, "part 0: expected a path or a data URI, found a URL"),
        ("a URL", r#"{"video": "http://a/b.mp4"}"#, "part 0: expected a path or an array of images, found a URL"),
        ("no such frame", r#"{"video": ["none.png"]}"#, "none.png: No such file"),
        (
            "data of a video",
            r#"{"video": "data:image/gif;base64,"}"#,
            "part 0: expected a path or an array of images, found a data URI",
        ),
        ("broken data", r#"{"video": ["data:image/png;base64,%"]}"#, "part 0: video: expected base64, found"),
        ("a stranger", r#"{"video": "a", "text": "b"}"#, r#"expected "fps" or "frames" beside "video", found "text""#),
        ("fps of an image", r#"{"image": "a.png", "fps": 1}"#, "part 0: expected one key"),
        ("no rate", r#"{"video": "a", "fps": "fast"}"#, "part 0: fps: expected a number, found a string"),
        (
            "a rate of 0",
            r#"{"video": "a", "fps": 0}"#,
            "part 0: frames a second of a video: expected a number from 0.001 to 1000",
        ),
        ("half a frame", r#"{"video": "a", "frames": 1.5}"#, "part 0: frames: expected a whole number, found a number"),
        ("no frames", r#"{"video": "a", "frames": 0}"#, "frames of a video: expected a number from 1 to 128, found 0"),
        ("many frames", r#"{"video": "a", "frames": 129}"#, "expected a number from 1 to 128, found 129"),
    ] {
        let folder = Folder::new();
        folder.write("../prompt.json", format!("[{part}]"));
        // The first frame of the list of numbers.
        let image = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images/sources/rgb8-turned.png");
        std::fs::copy(image, folder.path("a.png")).unwrap();
        let prompt = text(&folder.model().with_file_name("prompt.json"));
        refused(&["score", &text(&folder.model()), "--prompt", &prompt], case, &[mention]);
    }
}

#[test]
fn settings() {
    let folder = Folder::new();
    folder.write("../clip.gif", animation("plain.gif"));
    let (model, clip) = (text(&folder.model()), text(&folder.model().with_file_name("clip.gif")));
    const RATE: &str = "frames a second of a video: expected a number from 0.001 to 1000, found ";
    const MOST: &str = "frames of a video: expected a number from 1 to 128, found ";
    for (flag, value, mention) in [
        ("--fps", "0", RATE),
        ("--fps", "NaN", RATE),
        ("--fps", "inf", RATE),
        ("--fps", "1e9", RATE),
        ("--frames", "0", MOST),
        ("--frames", "1000", MOST),
    ] {
        usage(&["generate", &model, "--video", &clip, flag, value], &[mention]);
    }
}

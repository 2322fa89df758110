//! Prompts: malformed, over a limit, or made to forge an image.

use serde_json::{Value, json};

use super::{Case, Folder, refused, text};

const FILE: &str = "../prompt.json";

/// Writes a prompt by each case of a table, and has the model answer it.
fn all_refused(cases: &[Case]) {
    for (case, write, mentions) in cases {
        let folder = Folder::new();
        write(&folder);
        let prompt = text(&folder.model().with_file_name("prompt.json"));
        for command in ["generate", "score"] {
            refused(&[command, &text(&folder.model()), "--prompt", &prompt], case, mentions);
        }
    }
}

fn repeated(part: &Value, count: usize) -> String {
    Value::Array(vec![part.clone(); count]).to_string()
}

#[test]
fn json() {
    const CASES: &[Case] = &[
        (
            "a key twice",
            |folder| folder.write(FILE, r#"[{"text": "a"}, {"text": "a", "text": "b"}]"#),
            &["prompt.json: text: expected this key once in its object, found it twice"],
        ),
        (
            "two byte-order marks",
            |folder| folder.write(FILE, "\u{feff}\u{feff}[]"),
            &["prompt.json: prompt: expected JSON"],
        ),
        (
            "16 MB of parts that are none",
            |folder| folder.write(FILE, format!("[{}1]", r#"{"a":0},"#.repeat(2_000_000))),
            &["part 0: expected the key \"text\", \"image\" or \"video\""],
        ),
        (
            "a part whose values take more memory than their text",
            |folder| folder.write(FILE, format!(r#"[{{"video": [{}1]}}]"#, "{},".repeat(2_000_000))),
            &["prompt.json: prompt: bytes of memory for its values: "],
        ),
    ];
    all_refused(CASES);
}

#[test]
fn form() {
    const PARTS: &str = r#"prompt.json: prompt: expected an array of {"text"}, {"image"} and {"video"} parts, found"#;
    const CASES: &[Case] = &[
        ("no file", |_| (), &["prompt.json: No such file"]),
        ("a folder", |folder| folder.make_folder(FILE), &["prompt.json: expected a file, found a folder"]),
        (
            "20 GB",
            |folder| folder.make_sparse(FILE, 20 << 30),
            &["prompt.json: bytes: ", "over the limit of 268435456"],
        ),
        ("not UTF-8", |folder| folder.write(FILE, b"[\"\xff\"]"), &["prompt.json: text: expected UTF-8"]),
        ("an empty file", |folder| folder.write(FILE, ""), &["prompt.json: prompt: expected JSON, found EOF"]),
        ("not JSON", |folder| folder.write(FILE, "What is this?"), &["prompt.json: prompt: expected JSON"]),
        (
            "half a prompt",
            |folder| folder.write(FILE, r#"[{"text": "a"}"#),
            &["prompt.json: prompt: expected JSON, found EOF"],
        ),
        (
            "half a character",
            |folder| folder.write(FILE, r#"[{"text": "\ud800"}]"#),
            &["prompt.json: prompt: expected JSON"],
        ),
        ("deep arrays", |folder| folder.write(FILE, "[".repeat(1 << 20)), &["recursion limit exceeded"]),
        ("an object", |folder| folder.write(FILE, r#"{"text": "a"}"#), &[PARTS, "an object"]),
        ("a string", |folder| folder.write(FILE, r#""a""#), &[PARTS, "a string"]),
        ("a part that is text", |folder| folder.write(FILE, r#"["a"]"#), &["part 0: expected {", "found a string"]),
        (
            "a part that is null",
            |folder| folder.write(FILE, r#"[{"text": "a"}, null]"#),
            &["part 1: expected {", "found null"],
        ),
        ("an empty part", |folder| folder.write(FILE, "[{}]"), &["part 0: expected one key, \"text\", \"image\" or"]),
        (
            "two keys",
            |folder| folder.write(FILE, r#"[{"text": "a", "image": "b.png"}]"#),
            &["part 0: expected one key"],
        ),
        (
            "an unknown key",
            |folder| folder.write(FILE, r#"[{"sound": "a.mp3"}]"#),
            &["part 0: expected the key \"text\", \"image\" or \"video\", found \"sound\""],
        ),
        (
            "text that is a number",
            |folder| folder.write(FILE, r#"[{"text": 7}]"#),
            &["part 0: text: expected a string, found a number"],
        ),
        (
            "an image that is null",
            |folder| folder.write(FILE, r#"[{"image": null}]"#),
            &["part 0: expected \"text\", \"image\" or \"video\", found null"],
        ),
    ];
    all_refused(CASES);
}

#[test]
fn what_is_no_file() {
    const CASES: &[Case] = &[
        (
            "a device without an end",
            |folder| std::os::unix::fs::symlink("/dev/zero", folder.path(FILE)).unwrap(),
            &["prompt.json: bytes: 268435457 is over the limit of 268435456"],
        ),
        (
            "a link to nowhere",
            |folder| std::os::unix::fs::symlink("nowhere", folder.path(FILE)).unwrap(),
            &["prompt.json: No such file"],
        ),
        (
            "a link to itself",
            |folder| std::os::unix::fs::symlink("prompt.json", folder.path(FILE)).unwrap(),
            &["prompt.json: "],
        ),
    ];
    all_refused(CASES);
}

#[test]
fn forged_images() {
    const MEDIA: &str = "prompt: expected text without image markers, found <image>";
    const FENCE: &str = "prompt: expected text without image markers, found <fake_token_around_image>";
    const CASES: &[Case] = &[
        ("a marker", |folder| folder.write(FILE, r#"[{"text": "a<image>b"}]"#), &[MEDIA]),
        ("a marker in escapes", |folder| folder.write(FILE, r#"[{"text": "\u003cimage\u003e"}]"#), &[MEDIA]),
        ("a marker over two parts", |folder| folder.write(FILE, r#"[{"text": "a<ima"}, {"text": "ge>"}]"#), &[MEDIA]),
        (
            "a marker over three",
            |folder| folder.write(FILE, r#"[{"text": "<"}, {"text": "image"}, {"text": ">"}]"#),
            &[MEDIA],
        ),
        ("a marker behind spaces", |folder| folder.write(FILE, r#"[{"text": "<ima "}, {"text": " ge>"}]"#), &[MEDIA]),
        ("a fence", |folder| folder.write(FILE, r#"[{"text": "<fake_token_around_image>"}]"#), &[FENCE]),
        (
            "a fence over two parts",
            |folder| folder.write(FILE, r#"[{"text": "<fake_token_"}, {"text": "around_image>"}]"#),
            &[FENCE],
        ),
    ];
    all_refused(CASES);
}

#[test]
fn image_addresses() {
    const CASES: &[Case] = &[
        (
            "a web address",
            |folder| folder.write(FILE, r#"[{"image": "https://example.com/a.png"}]"#),
            &["part 0: expected a path or a data URI, found a URL (nothing is fetched)"],
        ),
        // A file must not make its reader wait.
        ("a device", |folder| folder.write(FILE, r#"[{"image": "/dev/zero"}]"#), &["/dev/zero: not a regular file"]),
        (
            "a pipe",
            |folder| {
                folder.write(FILE, r#"[{"image": "pipe.png"}]"#);
                folder.make_pipe("../pipe.png");
            },
            &["pipe.png: not a regular file"],
        ),
        (
            "a file address",
            |folder| folder.write(FILE, r#"[{"image": "file:///etc/passwd"}]"#),
            &["part 0: expected a path or a data URI, found a URL"],
        ),
        (
            "a missing file",
            |folder| folder.write(FILE, r#"[{"text": "a"}, {"image": "none.png"}]"#),
            &["none.png: No such file"],
        ),
        ("a name of two lines", |folder| folder.write(FILE, r#"[{"image": "a\nb.png"}]"#), &["No such file"]),
        ("a name with a zero", |folder| folder.write(FILE, r#"[{"image": "a\u0000.png"}]"#), &["a"]),
        ("no name", |folder| folder.write(FILE, r#"[{"image": ""}]"#), &["not a regular file"]),
        (
            "another file",
            |folder| folder.write(FILE, r#"[{"image": "model/config.json"}]"#),
            &["config.json: image: expected PNG"],
        ),
    ];
    all_refused(CASES);
}

#[test]
fn image_data() {
    const NONE: &str = "part 0: image: expected PNG, JPEG, WebP, GIF or BMP data, found";
    const CASES: &[Case] = &[
        (
            "data that is neither base64 nor an image",
            |folder| folder.write(FILE, r#"[{"image": "data:image/png,abcd"}]"#),
            &[NONE, "3 bytes"],
        ),
        (
            "data without a comma",
            |folder| folder.write(FILE, r#"[{"image": "data:image/png;base64"}]"#),
            &["part 0: image: expected data:image/...;base64,..., found \"image/png;base64\" without a comma"],
        ),
        (
            "40 kB of base64 without data:",
            |folder| {
                let long = "iVBORw0KGgo".to_owned() + &"A".repeat(40_000);
                folder.write(FILE, format!(r#"[{{"image": "{long}"}}]"#));
            },
            &["part 0: expected a path or a data URI", "of 40011 bytes: write data:image/...;base64, before base64"],
        ),
        (
            "a name that no file has",
            |folder| folder.write(FILE, format!(r#"[{{"image": "{}"}}]"#, "x".repeat(3000))),
            &["part 0: expected a path or a data URI, found \"xxxx", "of 3000 bytes"],
        ),
        (
            "a video of base64",
            |folder| folder.write(FILE, format!(r#"[{{"video": "R0lGODlh{}"}}]"#, "A".repeat(90))),
            &["part 0: expected a path or an array of images", "before base64"],
        ),
        (
            "broken base64",
            |folder| folder.write(FILE, r#"[{"image": "data:image/png;base64,%%%%"}]"#),
            &["prompt.json: part 0: image: expected base64, found"],
        ),
        (
            "half of base64",
            |folder| folder.write(FILE, r#"[{"image": "data:image/png;base64,iVBOR"}]"#),
            &["part 0: image: expected base64, found"],
        ),
        (
            "no data",
            |folder| folder.write(FILE, r#"[{"image": "data:image/png;base64,"}]"#),
            &["prompt.json: ", NONE, "0 bytes"],
        ),
        (
            "data that is text",
            |folder| folder.write(FILE, r#"[{"image": "data:image/png;base64,aGVsbG8="}]"#),
            &["prompt.json: ", NONE, "5 bytes"],
        ),
    ];
    all_refused(CASES);
}

#[test]
fn limits() {
    /// The smallest image there is: one pixel of BMP.
    const DOT: &str =
        "data:image/bmp;base64,Qk06AAAAAAAAADYAAAAoAAAAAQAAAAEAAAABABgAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAA////AA==";
    const CASES: &[Case] = &[
        (
            "too many parts",
            |folder| folder.write(FILE, repeated(&json!({"text": "a"}), 4097)),
            &["parts of a prompt: 4097 is over the limit of 4096"],
        ),
        (
            "too many images",
            |folder| folder.write(FILE, repeated(&json!({"image": DOT}), 257)),
            &["images of a prompt: 257 is over the limit of 256"],
        ),
        (
            "too many tokens",
            |folder| folder.write(FILE, repeated(&json!({"text": "a".repeat(2048)}), 1)),
            &["tokens of a sequence: 2049 is over the limit of 2048"],
        ),
        (
            "too many tokens by parts",
            |folder| folder.write(FILE, repeated(&json!({"text": "a"}), 2100)),
            &["tokens of a sequence: 2101 is over the limit of 2048"],
        ),
        (
            "ten million tokens",
            |folder| folder.write(FILE, repeated(&json!({"text": "a".repeat(1000)}), 4000)),
            &["bytes of text of a prompt: 1049000 is over the limit of 1048576"],
        ),
    ];
    all_refused(CASES);
}

//! Bad input, end to end: whatever is wrong with a model folder, a prompt, an image or an argument, the program says
//! so in one line that names the place, exits with 1 (2 for usage), and neither panics, hangs nor fills the memory
//! first.
//!
//! Each case breaks one thing in a copy of the model that comes with the repository. Damage inside weight files and
//! images, thousands of variants of it, is tested nearer to the parsers, in `checkpoint.rs` and `images.rs`.

#![cfg(unix)]

mod arguments;
mod config;
mod defaults;
mod files;
mod folders;
mod images;
mod mllama;
mod prompt;
mod video;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// Longest that any refusal may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Address space of the program, in KiB. The model takes 4 MB, so what passes this was allocated on somebody's word.
const MEMORY_MAX: u32 = 1 << 20;
/// Longest line that is still one to read.
const LINE_BYTES_MAX: usize = 2048;

/// What is wrong, how to make it so, and what the line must mention.
type Case = (&'static str, fn(&Folder), &'static [&'static str]);

/// A folder of one case's own, with a good copy of the model in `model`.
struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self::of("models/demo")
    }

    /// With a copy of another model of the repository.
    fn of(model: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder { root };
        fs::create_dir(folder.model()).unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join(model);
        for name in ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"] {
            fs::copy(model.join(name), folder.model().join(name)).unwrap();
        }
        folder
    }

    fn model(&self) -> PathBuf {
        self.root.path().join("model")
    }

    /// A file of the model, or beside it with `../`.
    fn path(&self, name: &str) -> PathBuf {
        self.model().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn delete(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Something in place of a file that is none.
    fn make_folder(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
        fs::create_dir(self.path(name)).unwrap();
    }

    /// A pipe that nobody writes to: whoever opens it waits for ever.
    fn make_pipe(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
        assert!(Command::new("mkfifo").arg(self.path(name)).status().unwrap().success());
    }

    /// A file of so many zeros that take no space.
    fn make_sparse(&self, name: &str, length: u64) {
        fs::File::create(self.path(name)).unwrap().set_len(length).unwrap();
    }

    /// Edits a JSON file.
    fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        edit(&mut value);
        self.write(name, value.to_string());
    }

    /// Sets a key of `config.json`; `a.b` is the key `b` of the object `a`.
    fn set(&self, key: &str, value: Value) {
        self.edit("config.json", |config| *field(config, key) = value);
    }

    /// Edits header and numbers of the weights.
    fn weights(&self, edit: impl FnOnce(&mut Map<String, Value>, &mut Vec<u8>)) {
        let bytes = fs::read(self.path("model.safetensors")).unwrap();
        let (length, rest) = bytes.split_first_chunk().unwrap();
        let (header, numbers) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let (mut header, mut numbers) = (serde_json::from_slice(header).unwrap(), numbers.to_vec());
        edit(&mut header, &mut numbers);
        let header = Value::Object(header).to_string();
        self.write("model.safetensors", [&header.len().to_le_bytes(), header.as_bytes(), &numbers].concat());
    }
}

fn field<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(value, |value, key| &mut value[key])
}

/// Runs the program inside the bounds of memory and time.
fn run(arguments: &[&str], case: &str) -> Output {
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {MEMORY_MAX}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_flamant")]);
        shell
    } else {
        Command::new(env!("CARGO_BIN_EXE_flamant"))
    };
    command.args(arguments).env("FLAMANT_THREADS", "2").env_remove("FLAMANT_DEVICE");
    // Whether there is an ffmpeg on the path must not matter.
    command.env("FLAMANT_FFMPEG", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/video/false_ffmpeg"));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > TIME_MAX {
            child.kill().unwrap();
            panic!("{case}: still running after {TIME_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().unwrap()
}

/// Runs the program, which must refuse in one line with exit code 1 and these mentions.
fn refused(arguments: &[&str], case: &str, mentions: &[&str]) {
    let output = run(arguments, case);
    let line = String::from_utf8(output.stderr).expect("errors are UTF-8");
    assert_eq!(output.status.code(), Some(1), "{case}: {:?}: {line}", output.status);
    assert!(output.stdout.is_empty(), "{case}: wrote {} bytes before it refused", output.stdout.len());
    assert!(line.starts_with("flamant: ") && line.ends_with('\n'), "{case}: {line:?}");
    assert!(!line.trim_end_matches('\n').contains(char::is_control), "{case}: not one plain line: {line:?}");
    assert!(line.len() <= LINE_BYTES_MAX, "{case}: {} bytes: {line}", line.len());
    // Addresses of memory mean nothing to a reader; the names of temporary folders may look like one inside.
    assert!(!["panicked", " 0x", "(0x"].iter().any(|word| line.contains(word)), "{case}: {line}");
    for mention in mentions {
        assert!(line.contains(mention), "{case}: {mention:?} is not in {line:?}");
    }
}

/// Breaks a folder by each case of a table, and has the model in it asked for a word.
fn all_refused(cases: &[Case]) {
    for (case, spoil, mentions) in cases {
        let folder = Folder::new();
        spoil(&folder);
        refused(&["generate", &text(&folder.model()), "--text", "abc"], case, mentions);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary folders have plain names").to_owned()
}

#[test]
fn the_unbroken_copy_works() {
    let folder = Folder::new();
    let output = run(&["generate", &text(&folder.model()), "--text", "abc"], "unbroken");
    assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(), "{output:?}");
}

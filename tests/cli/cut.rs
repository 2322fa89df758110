//! A model file that is cut or overwritten while a batch runs: one line that names it, and no answer that it spoiled.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// 32-bit weights, which are used where they are mapped.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases/idefics-plain/model");

type Harm = Box<dyn FnOnce(&Path)>;

/// Runs a batch whose model is harmed once there is an answer: exit code, standard error, ids of all answers.
fn harmed(harm: impl FnOnce(&Path)) -> (Option<i32>, String, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let (model, output) = (folder.path().join("model"), folder.path().join("answers.jsonl"));
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(MODEL).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    let line = json!({"prompt": [{"text": "a"}], "max_new_tokens": 30, "ignore_eos": true}).to_string() + "\n";
    fs::write(folder.path().join("requests.jsonl"), line.repeat(20_000)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
    command.arg("batch").arg(&model).arg("--input").arg(folder.path().join("requests.jsonl"));
    command.arg("--output").arg(&output).args(["--no-prefix-caching", "--max-sequences", "4"]);
    let mut child = command.env("FLAMANT_THREADS", "2").stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    // The first line says what the answers belong to.
    while fs::read_to_string(&output).map_or(0, |text| text.lines().count()) < 1 + 3 {
        assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "it does not answer");
        std::thread::sleep(Duration::from_millis(1));
    }
    harm(&model.join("model.safetensors"));
    let ended = child.wait_with_output().unwrap();
    let answers = fs::read_to_string(&output).unwrap();
    let answers = answers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ids = answers.filter_map(|answer| answer.get("token_ids").cloned()).collect();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap(), ids)
}

#[test]
fn a_batch_names_the_file_and_writes_nothing_wrong() {
    let length = |path: &Path| fs::metadata(path).unwrap().len();
    let cut =
        |bytes: u64| move |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
    let harms: [(&str, Harm); 4] = [
        ("cut to nothing", Box::new(cut(0))),
        ("cut in a page", Box::new(cut(100_001))),
        ("cut by a byte", Box::new(move |path| cut(length(path) - 1)(path))),
        (
            "overwritten",
            Box::new(move |path| {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(&[0x3f; 4096], length(path) / 2).unwrap();
            }),
        ),
    ];
    for (case, harm) in harms {
        let (code, told, ids) = harmed(harm);
        assert_eq!((code, told.lines().count()), (Some(1), 1), "{case}: {told}");
        assert!(told.starts_with("flamant: ") && told.contains("model.safetensors: "), "{case}: {told}");
        assert!(ids.len() >= 3 && ids.iter().all(|found| *found == ids[0]), "{case}: {ids:?}");
    }
}

//! An output that a batch goes on with. What is accepted is gone on with: another start finds it as it was left. What is
//! refused is left alone.

#![no_main]

use std::sync::LazyLock;

use flamant::batch::Batch;
use flamant::{Engine, Options};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let line = "{\"prompt\": [{\"text\": \"kep.\"}], \"task\": \"score\"}\n";
    std::fs::write(folder.path().join("requests.jsonl"), line.repeat(3)).expect("a writable folder");
    folder
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (input, output) = (FOLDER.path().join("requests.jsonl"), FOLDER.path().join("answers.jsonl"));
    std::fs::write(&output, bytes).expect("a writable folder");
    let mut engine = Engine::demo(&Options::default().threads(1)).expect("the model in the box");
    match Batch::open(&input, &output).and_then(|batch| batch.run(&mut engine, |_| {})) {
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
            assert_eq!(std::fs::read(&output).expect("it is there"), bytes, "{error}");
        }
        Ok(_) => {
            let answered = std::fs::read(&output).expect("it is there");
            let batch = Batch::open(&input, &output).expect("what was written can be read");
            assert_eq!((batch.answered_before(), batch.total()), (3, Some(3)));
            batch.run(&mut engine, |_| {}).expect("there is nothing left to do");
            assert_eq!(std::fs::read(&output).expect("it is there"), answered);
        }
    }
});

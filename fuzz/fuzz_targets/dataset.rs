//! Evaluation sets of all formats; the first byte says which. Those of two files are cut at a zero byte.

#![no_main]

use std::sync::LazyLock;

use flamant::ErrorKind;
use flamant::eval::data::vqa::Naming;
use flamant::eval::data::{self, Format, Source, Task};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for class in ["a", "b"] {
        std::fs::create_dir(folder.path().join(class)).expect("a writable folder");
        std::fs::write(folder.path().join(class).join("1.png"), "").expect("a writable folder");
    }
    folder
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, text)) = bytes.split_first() else { return };
    let format = match kind % 12 {
        0 => Format::Jsonl(None),
        1 => Format::Jsonl(Some(Task::Question)),
        2 => Format::Jsonl(Some(Task::Classify)),
        3 => Format::Karpathy,
        4 => Format::Vqa(Naming::Coco),
        5 => Format::Vqa(Naming::Jpeg),
        6 => Format::Vqa(Naming::Whole),
        7 => Format::HatefulMemes,
        8 | 9 => Format::ImageNet,
        10 => Format::VideoQuestions,
        _ => Format::VideoCaptions,
    };
    let end = if kind % 12 == 9 { "txt" } else { "json" };
    let files = text.splitn(2, |&byte| byte == 0).zip(["one", "two"]).map(|(content, name)| {
        let path = FOLDER.path().join(name).with_extension(end);
        std::fs::write(&path, content).expect("a writable folder");
        path
    });
    let mut source = Source::default();
    source.files = files.collect();
    source.media = Some(FOLDER.path().to_owned());
    source.split = (format == Format::Karpathy).then(|| "test".to_owned());
    match data::read(format, &source) {
        Ok(set) => {
            assert!(!set.examples.is_empty() && set.examples.iter().all(|example| !example.answers.is_empty()));
            data::missing(&set);
        }
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
            assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
        }
    }
});

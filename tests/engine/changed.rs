//! Files of weights that change while a model is open: nothing that may have come of the change is handed out.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flamant::image::Image;
use flamant::{Engine, Error, EventKind, Generation, Load, Options, Prompt, Request};

/// A copy of the model in the box whose files were written long ago.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    let file = OpenOptions::new().write(true).open(weights(folder.path())).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
    folder
}

fn weights(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

fn open(folder: &Path, load: Load) -> Engine {
    Engine::open(folder, &Options::default().threads(1).load(load)).unwrap()
}

fn ask(engine: &mut Engine) -> Result<String, Error> {
    let mut prompt = Prompt::new();
    prompt.text("kep.").unwrap();
    let generation = Generation::default().max_new_tokens(4).ignore_eos(true);
    engine.submit(Request::generate(prompt, generation)).unwrap();
    while !engine.is_idle() {
        for event in engine.step() {
            match event.kind {
                EventKind::Written(answer) => return Ok(answer.text),
                EventKind::Failed(error) => return Err(error),
                _ => {}
            }
        }
    }
    panic!("every request has a last event");
}

fn overwrite(folder: &Path) {
    let mut file = OpenOptions::new().write(true).open(weights(folder)).unwrap();
    file.seek(SeekFrom::End(-100)).unwrap();
    file.write_all(&[0x3f; 50]).unwrap();
}

#[test]
fn nothing_is_answered_after_weights_were_written_to() {
    let folder = copy();
    let mut engine = open(folder.path(), Load::Map);
    ask(&mut engine).unwrap();
    overwrite(folder.path());
    let expected = format!(
        "{}: file: expected one that stays as it is while it is in use, found one that was written to",
        weights(folder.path()).display()
    );
    for _ in 0..2 {
        assert_eq!(ask(&mut engine).unwrap_err().to_string(), expected);
    }
    let image = Image::from_rgb(2, 2, vec![1; 12]).unwrap();
    assert_eq!(engine.features(&[&[image]]).unwrap_err().to_string(), expected);
    assert_eq!(engine.preparer().checkpoint().check_unchanged().unwrap_err().to_string(), expected);
}

#[test]
fn a_file_that_grows_has_changed_too() {
    let folder = copy();
    let mut engine = open(folder.path(), Load::Map);
    let length = fs::metadata(weights(folder.path())).unwrap().len();
    OpenOptions::new().append(true).open(weights(folder.path())).unwrap().write_all(b"more").unwrap();
    let error = ask(&mut engine).unwrap_err().to_string();
    assert!(error.ends_with(&format!("found {} bytes, {length} when it was opened", length + 4)), "{error}");
}

/// What is mapped lives on under no name, and what was read does not need a file.
#[test]
fn other_files_of_the_same_name_are_no_matter() {
    let folder = copy();
    let mut engine = open(folder.path(), Load::Map);
    let right = ask(&mut engine).unwrap();
    fs::write(folder.path().join("other"), "another model").unwrap();
    fs::rename(folder.path().join("other"), weights(folder.path())).unwrap();
    assert_eq!(ask(&mut engine).unwrap(), right);
    fs::remove_file(weights(folder.path())).unwrap();
    assert_eq!(ask(&mut engine).unwrap(), right);

    let folder = copy();
    let mut engine = open(folder.path(), Load::Read);
    overwrite(folder.path());
    File::create(weights(folder.path())).unwrap();
    assert_eq!(ask(&mut engine).unwrap(), right);
    assert_eq!(engine.preparer().checkpoint().check_unchanged(), Ok(()));
}

//! Inputs that change or have no end, and what tables and editors write.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{DEMO, Folder, disturbed, many};

/// What is read twice, and was read in between by an engine, is the same both times.
#[test]
fn an_input_that_changes_meanwhile_is_an_error() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("removed", |input| fs::remove_file(input).unwrap()),
        ("replaced", |input| {
            fs::write(input.with_extension("other"), "{}").unwrap();
            fs::rename(input.with_extension("other"), input).unwrap();
        }),
        ("cut", |input| File::options().write(true).open(input).unwrap().set_len(100).unwrap()),
        ("added to", |input| File::options().append(true).open(input).unwrap().write_all(b"\n{}\n").unwrap()),
        ("overwritten", |input| {
            let file = File::options().write(true).open(input).unwrap();
            let times = fs::FileTimes::new().set_modified(file.metadata().unwrap().modified().unwrap());
            (&file).write_all(b"{\"id\": \"Request 0").unwrap();
            file.set_times(times).unwrap();
        }),
    ];
    for (name, harm) in harms {
        let (code, told) = disturbed(|folder| harm(&folder.input()));
        assert_eq!((code, told.lines().count()), (Some(1), 1), "{name}: {told}");
        assert!(told.contains("requests.jsonl: it was replaced, removed or changed"), "{name}: {told}");
    }
    // A new time of an old content is no change.
    let folder = Folder::new(&many(100));
    let child = folder.command().stderr(Stdio::piped()).spawn().unwrap();
    fs::copy(folder.input(), folder.input().with_extension("copy")).unwrap();
    fs::rename(folder.input().with_extension("copy"), folder.input()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_input_without_lines_comes_to_an_end() {
    let folder = Folder::new(&[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
    command.args(["batch", DEMO, "--input", "/dev/zero", "--output"]).arg(folder.output());
    let told = folder.refused(command);
    assert_eq!(told, "flamant: /dev/zero: expected lines of at most 1073741824 bytes, found a longer one\n");
}

/// As editors leave them.
#[test]
fn empty_lines_of_an_output_do_not_count() {
    let folder = Folder::new(&many(2));
    folder.run();
    let (whole, expected) = (fs::read_to_string(folder.output()).unwrap(), folder.answers());
    let [head, first, second] = whole.lines().collect::<Vec<_>>()[..] else { panic!("{whole}") };
    for edited in [format!("{whole}\n"), format!("{whole}\r\n \n\t"), format!("\n{head}\n\n\n{first}\n{second}\n")] {
        fs::write(folder.output(), edited).unwrap();
        assert!(folder.run().contains("all 2 requests were answered before"));
        assert_eq!(folder.answers(), expected);
        assert_eq!(fs::read_to_string(folder.output()).unwrap(), whole, "what does not count is gone");
    }
    fs::write(folder.output(), whole.replacen("\"id\":", "\"line\":1,\"id\":", 1)).unwrap();
    assert!(folder.refused(folder.command()).contains("found the key \"line\" twice"));
}

/// Tables whose parts all have the same keys (Arrow's, pandas') write `null` for those that a part does not have.
#[test]
fn parts_and_ids_are_what_tables_write() {
    let folder = Folder::new(&[]);
    let table = r#"[{"text": null, "image": "a.gif", "video": null, "fps": null}, {"text": "kep.", "image": null}]"#;
    let lines = [
        r#"{"id": 1e29, "task": "score", "prompt": [{"image": "a.gif"}, {"text": "kep."}]}"#.to_owned(),
        format!(r#"{{"id": -3.0, "task": "score", "prompt": {table}}}"#),
        r#"{"id": 100000000000000000000000000000, "prompt": [{"text": "kep."}]}"#.to_owned(),
        r#"{"id": "x", "prompt": [{"text": "kep."}, {"image": null}]}"#.to_owned(),
    ];
    fs::write(folder.input(), lines.join("\n")).unwrap();
    folder.ends(folder.command(), 3);
    let answers = folder.answers();
    let line = |text: &str| fs::read_to_string(folder.output()).unwrap().contains(text);
    assert!(line("\"id\":1e29,") || line("\"id\":1e+29,"), "{answers:?}");
    assert_eq!((&answers[&2]["id"], &answers[&2]["logprobs"]), (&json!(-3), &answers[&1]["logprobs"]));
    let errors = [
        (3, "id: expected a string, or a number of 64 bits, found 100000000000000000000000000000"),
        (4, "part 1: expected \"text\", \"image\" or \"video\", found null"),
    ];
    for (line, error) in errors {
        assert!(answers[&line]["error"].as_str().unwrap().ends_with(error), "{}", answers[&line]);
    }
}

/// What a model does not see of an image stands with the answer.
#[test]
fn notes_stand_with_their_answers() {
    let folder = Folder::new(&[
        json!({"prompt": [{"image": "ramp.png"}, {"text": "kep."}], "task": "score"}),
        json!({"prompt": [{"image": "a.gif"}, {"text": "kep."}], "task": "score"}),
    ]);
    let mut encoder = png::Encoder::new(File::create(folder.root.path().join("ramp.png")).unwrap(), 4, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Sixteen);
    encoder.write_header().unwrap().write_image_data(&[0, 0, 0, 200, 100, 0, 200, 0]).unwrap();
    let output = folder.command().output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.ends_with("1 requests have images of which the model does not see all, as \"notes\" in their lines say\n")
    );
    let answers = folder.answers();
    let note = "part 0: 16-bit grey: levels above 255 are white, as in Pillow 12.0; save it as 8 bits to show them";
    assert!(answers[&1]["notes"][0].as_str().unwrap().ends_with(note), "{}", answers[&1]);
    assert_eq!(answers[&2].get("notes"), None);
}

/// A limit of the system is an error as a full disk is, and what was answered before is kept.
#[cfg(target_os = "linux")]
#[test]
fn an_output_that_passes_a_limit_of_the_system_is_an_error() {
    let folder = Folder::new(&many(40));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 16; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_flamant"), "batch", DEMO, "--input"]);
    command.arg(folder.input()).arg("--output").arg(folder.output());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.ends_with("answers.jsonl: File too large (os error 27)\n"), "{told}");
    let before = fs::read_to_string(folder.output()).unwrap().lines().count();
    assert!(folder.run().contains(&format!(", {} before", before - 2)), "whole lines are kept");
    assert_eq!(folder.answers().len(), 40);
}

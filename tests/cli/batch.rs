//! `flamant batch`: its answers are those of the single commands, whatever stops it, and it touches no other file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::sick;
use serde_json::{Value, json};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images/sources/");

/// A folder with an input and an output.
struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    fn new(requests: &[Value]) -> Folder {
        let folder = Folder { root: tempfile::tempdir().unwrap() };
        folder.write(requests);
        for (name, copy) in [("palette.gif", "a.gif"), ("rgb8-turned.png", "b.png")] {
            fs::copy(Path::new(IMAGES).join(name), folder.root.path().join(copy)).unwrap();
        }
        folder
    }

    /// Writes the input.
    fn write(&self, requests: &[Value]) {
        let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
        fs::write(self.input(), lines.join("\n")).unwrap();
    }

    fn input(&self) -> PathBuf {
        self.root.path().join("requests.jsonl")
    }

    fn output(&self) -> PathBuf {
        self.root.path().join("answers.jsonl")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.args(["batch", DEMO, "--max-sequences", "4", "--input"]).arg(self.input());
        command.arg("--output").arg(self.output());
        command.env_remove("FLAMANT_THREADS").env_remove("FLAMANT_DEVICE").stdin(Stdio::null());
        command
    }

    /// Runs to the end; what it says.
    fn run(&self) -> String {
        let Output { status, stderr, .. } = self.command().output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        told
    }

    /// Must be refused, and leave the output as it was; the one line.
    fn refused(&self, mut command: Command) -> String {
        // An empty file may have been made.
        let content = || fs::read(self.output()).unwrap_or_default();
        let before = content();
        let Output { status, stderr, .. } = command.output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), told.lines().count()), (Some(1), 1), "{told}");
        assert_eq!(content(), before, "the output was changed");
        told
    }

    /// What the output answers, by line; without what depends on the moment.
    fn answers(&self) -> BTreeMap<u64, Value> {
        let text = fs::read_to_string(self.output()).unwrap();
        assert!(text.ends_with('\n'), "whole lines");
        let mut answers = BTreeMap::new();
        for line in text.lines() {
            let mut answer: Value = serde_json::from_str(line).unwrap();
            forget_the_moment(&mut answer);
            let number = answer["line"].as_u64().unwrap();
            assert!(answers.insert(number, answer).is_none(), "two answers to line {number}");
        }
        answers
    }
}

fn forget_the_moment(answer: &mut Value) {
    let fields = answer.as_object_mut().unwrap();
    fields.remove("timings");
    if let Some(usage) = fields.get_mut("usage").and_then(Value::as_object_mut) {
        usage.remove("cached_tokens");
        usage.remove("images_encoded");
    }
}

/// What a single command prints.
fn single(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_flamant")).args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    let mut answer = serde_json::from_slice(&output.stdout).unwrap();
    forget_the_moment(&mut answer);
    answer
}

/// Requests that differ, long enough that one can stop between them.
fn many(count: usize) -> Vec<Value> {
    let request = |number: usize| {
        let image = ["a.gif", "b.png"][number % 2];
        let prompt = json!([{"image": image}, {"text": "kep."}]);
        json!({
            "id": format!("request {number}"), "prompt": prompt, "max_new_tokens": 60, "ignore_eos": true,
            "temperature": 1.5, "seed": number,
        })
    };
    (0..count).map(request).collect()
}

#[test]
fn answers_are_those_of_the_single_commands() {
    let prompt = json!([{"image": "a.gif"}, {"text": "kep."}, {"image": "b.png"}, {"text": "mo"}]);
    let folder = Folder::new(&[
        json!({"id": "first", "prompt": prompt}),
        json!({"prompt": prompt, "task": "generate", "max_new_tokens": 9, "num_beams": 3, "length_penalty": 0.5,
            "ignore_eos": true, "stop": ["zz"]}),
        json!({"id": "drawn", "prompt": prompt, "max_new_tokens": 20, "temperature": 2, "top_k": 9, "top_p": 0.9,
            "min_p": 0.01, "repetition_penalty": 1.2, "seed": 7, "ignore_eos": true}),
        json!({"prompt": prompt, "task": "classify", "choices": ["mo", "a", "zebra."]}),
        json!({"prompt": prompt, "task": "classify", "choices": ["mo", "a", "zebra."], "mean": true}),
        json!({"id": "weighed", "prompt": prompt, "task": "score"}),
    ]);
    let told = folder.run();
    assert!(told.contains("6 requests answered") && told.contains("0 of them with an error"), "{told}");
    let path = |name: &str| folder.root.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (path("a.gif"), path("b.png"));
    let parts = ["--image", &a, "--text", "kep.", "--image", &b, "--text", "mo"];
    let choices = ["--choice", "mo", "--choice", "a", "--choice", "zebra."];
    let beams = ["--max-new-tokens", "9", "--num-beams", "3", "--length-penalty", "0.5", "--stop", "zz"];
    let drawn = ["--max-new-tokens", "20", "--temperature", "2", "--top-k", "9", "--top-p", "0.9", "--min-p", "0.01"];
    let more = ["--repetition-penalty", "1.2", "--seed", "7", "--ignore-eos"];
    let expected = [
        (json!("first"), [&["generate", DEMO], &parts[..]].concat()),
        (Value::Null, [&["generate", DEMO, "--ignore-eos"], &parts[..], &beams].concat()),
        (json!("drawn"), [&["generate", DEMO], &parts[..], &drawn, &more].concat()),
        (Value::Null, [&["classify", DEMO], &parts[..], &choices].concat()),
        (Value::Null, [&["classify", DEMO, "--mean"], &parts[..], &choices].concat()),
        (json!("weighed"), [&["score", DEMO], &parts[..]].concat()),
    ];
    let mut answers = folder.answers();
    for ((id, arguments), line) in expected.into_iter().zip(1..) {
        let mut answer = answers.remove(&line).unwrap();
        let fields = answer.as_object_mut().unwrap();
        assert_eq!((fields.remove("line"), fields.remove("id")), (Some(json!(line)), Some(id)));
        assert!(fields.remove("request").is_some_and(|digest| digest.as_str().unwrap().len() == 16));
        assert_eq!(answer, single(&arguments), "{arguments:?}");
    }
    assert!(answers.is_empty());
}

#[test]
fn killed_again_and_again_it_loses_and_repeats_nothing() {
    let requests = many(60);
    let undisturbed = Folder::new(&requests);
    undisturbed.run();
    let expected = undisturbed.answers();
    assert_eq!(expected.len(), 60);
    let folder = Folder::new(&requests);
    let lines = || fs::read(folder.output()).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count());
    for round in 1..=3 {
        let mut child = folder.command().stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while lines() < 12 * round {
            assert!(begun.elapsed() < Duration::from_secs(60), "no answer comes");
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lines() < 60, "it was done before it was killed");
    }
    let told = folder.run();
    assert!(told.contains(" before, 0 of them with an error"), "{told}");
    assert_eq!(folder.answers(), expected);
    // Nothing is left to do.
    let whole = fs::read(folder.output()).unwrap();
    assert!(folder.run().contains("all 60 requests were answered before"));
    assert_eq!(fs::read(folder.output()).unwrap(), whole);
}

#[test]
fn a_torn_line_is_answered_again() {
    let folder = Folder::new(&many(3));
    folder.run();
    let (whole, expected) = (fs::read(folder.output()).unwrap(), folder.answers());
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in [last, last + 1, last + 7, last + 8, last + 40, whole.len() - 2, whole.len() - 1] {
        fs::write(folder.output(), &whole[..cut]).unwrap();
        folder.run();
        assert_eq!(folder.answers(), expected, "cut at {cut} of {}", whole.len());
    }
}

#[test]
fn other_files_are_left_alone() {
    let requests = many(3);
    let folder = Folder::new(&requests);
    folder.run();
    let answers = fs::read_to_string(folder.output()).unwrap();
    let cases = [
        ("notes without an end".to_owned(), "line 1: expected an answer of flamant batch, found something else"),
        ("notes\n{\"line\":".to_owned(), "line 1: expected an answer of flamant batch"),
        ("{\"line\":1}\n".to_owned(), "missing field `request`"),
        (format!("{answers}{answers}"), "answers to line 1: expected one, found more"),
        (answers.replace("{\"line\":3", "{\"line\":7"), "expected an answer to one of the 3 lines of"),
    ];
    for (content, mention) in cases {
        fs::write(folder.output(), &content).unwrap();
        let told = folder.refused(folder.command());
        assert!(told.contains("answers.jsonl") && told.contains(mention), "{content:?}: {told}");
    }
    // Answers to other requests, with the same ids.
    fs::write(folder.output(), &answers).unwrap();
    let mut others = requests.clone();
    others[1]["seed"] = json!(99);
    folder.write(&others);
    let told = folder.refused(folder.command());
    assert!(told.contains("answer to line 2: expected an answer to line 2 of"), "{told}");
    // Fewer requests than answers.
    folder.write(&requests[..2]);
    assert!(folder.refused(folder.command()).contains("expected an answer to one of the 2 lines"));
    // A second program at the same time.
    folder.write(&many(4));
    let held = File::open(folder.output()).unwrap();
    held.lock().unwrap();
    assert!(folder.refused(folder.command()).contains("answers.jsonl: another program is writing it"));
    drop(held);
    folder.write(&requests);
    folder.run();
}

/// So many entries of an object.
fn keys(count: usize) -> String {
    (0..count).map(|key| format!("\"{key}\": 0, ")).collect()
}

#[test]
fn bad_lines_are_recorded_and_stop_nothing() {
    let folder = Folder::new(&[]);
    let text = json!([{"text": "kep."}]);
    let bad = [
        ("{\"prompt\"", "request: expected JSON, found EOF"),
        ("[1]", "request: expected a JSON object"),
        (
            "{\"prompt\": [{\"text\": \"kep.\"}], \"seed\": 1, \"seed\": 2}",
            "seed: expected this key once in its object",
        ),
        (&format!("{{{}\"prompt\": 1}}", keys(100)), "request: expected a JSON object, found invalid length 65"),
        (&format!("{{\"prompt\": [{}1]}}", "{\"a\":0},".repeat(100_000)), "part 0: expected the key \"text\""),
        (
            &format!("{{\"prompt\": 1, \"stop\": [{}\"\"]}}", "\"\",".repeat(2_000_000)),
            "bytes of stop: 6000004 is over",
        ),
        (&json!({"id": 3, "prompt": text}).to_string(), "id: expected a string, found 3"),
        (&json!({"id": "x"}).to_string(), "prompt: expected a prompt, found none"),
        (&json!({"prompt": "kep."}).to_string(), "prompt: expected an array"),
        (&json!({"prompt": [{"image": "none.png"}]}).to_string(), "none.png"),
        (&json!({"prompt": text, "temprature": 1}).to_string(), "temperature, top_k"),
        (&json!({"prompt": text, "temprature": 1}).to_string(), "found \"temprature\""),
        (&json!({"prompt": text, "temperature": "1"}).to_string(), "temperature: expected a number, found \"1\""),
        (&json!({"prompt": text, "temperature": -1}).to_string(), "temperature: expected a number of 0 or more"),
        (&json!({"prompt": text, "max_new_tokens": 1.5}).to_string(), "max_new_tokens: expected a whole number"),
        (&json!({"prompt": text, "stop": "x"}).to_string(), "stop: expected an array of strings"),
        (&json!({"prompt": text, "task": "paint"}).to_string(), "task: expected generate, classify or score"),
        (&json!({"prompt": text, "task": "classify"}).to_string(), "choices: expected choices, found none"),
        (&json!({"prompt": text, "task": "score", "seed": 1}).to_string(), "key: expected id, prompt, task, found"),
        (&json!({"prompt": text, "task": "score", "choices": []}).to_string(), "found \"choices\""),
        (&json!({"prompt": [{"text": "<image>"}]}).to_string(), "prompt: expected text without image markers"),
        (&json!({"prompt": [{"text": "k".repeat(100_000)}]}).to_string(), "tokens of a sequence"),
    ];
    let good = json!({"id": "good", "prompt": text, "task": "score"}).to_string();
    let lines: Vec<&str> = bad.iter().flat_map(|(line, _)| [line, "", good.as_str()]).collect();
    fs::write(folder.input(), [lines.join("\r\n").as_bytes(), b"\n\xff\xfe\n"].concat()).unwrap();
    let told = folder.run();
    let count = bad.len();
    assert!(told.contains(&format!("{} requests answered", 2 * count + 1)), "{told}");
    assert!(told.contains(&format!("{} of them with an error", count + 1)), "{told}");
    let answers = folder.answers();
    for ((line, mention), number) in bad.iter().zip((1..).step_by(3)) {
        let answer = &answers[&number];
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{line}: {answer}"));
        assert!(error.contains(mention) && !error.contains('\n'), "{line}: {error}");
        assert_eq!(answers[&(number + 2)]["id"], "good");
        assert_eq!(answers[&(number + 2)].get("error"), None);
    }
    assert!(answers[&(3 * count as u64 + 1)]["error"].as_str().unwrap().contains("expected UTF-8"), "not UTF-8");
    assert_eq!(answers[&22]["id"], "x", "an id is told as soon as it is known");
    assert_eq!(answers.len(), 2 * count + 1);
}

#[test]
fn requests_come_from_standard_input_too() {
    let folder = Folder::new(&many(3));
    folder.run();
    let expected = folder.answers();
    fs::remove_file(folder.output()).unwrap();
    let piped = |input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.args(["batch", DEMO, "--input", "-", "--output", "answers.jsonl"]).current_dir(folder.root.path());
        command.stdin(File::open(folder.root.path().join(input)).unwrap());
        command
    };
    assert!(piped("requests.jsonl").output().unwrap().status.success());
    assert_eq!(folder.answers(), expected);
    // And goes on there, or sees that these are other requests.
    let whole = fs::read_to_string(folder.output()).unwrap();
    let first = whole.lines().next().unwrap();
    fs::write(folder.output(), format!("{first}\n{{\"li")).unwrap();
    assert!(piped("requests.jsonl").output().unwrap().status.success());
    assert_eq!(folder.answers(), expected);
    // A pipe is read once, whatever its name.
    fs::remove_file(folder.output()).unwrap();
    let shell = "cat requests.jsonl | \"$0\" batch \"$1\" --input /dev/stdin --output answers.jsonl";
    let mut pipe = Command::new("sh");
    pipe.args(["-c", shell, env!("CARGO_BIN_EXE_flamant"), DEMO]).current_dir(folder.root.path());
    assert!(pipe.output().unwrap().status.success());
    assert_eq!(folder.answers(), expected);
    folder.write(&many(1));
    assert!(folder.refused(piped("requests.jsonl")).contains("lines of standard input"));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Folder::new(&many(1));
    let with = |input: &Path, output: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.args(["batch", DEMO, "--input"]).arg(input).arg("--output").arg(output);
        folder.refused(command)
    };
    let root = folder.root.path();
    assert!(with(&root.join("none.jsonl"), &folder.output()).contains("none.jsonl: No such file"));
    assert!(with(root, &folder.output()).contains("Is a directory"));
    assert!(with(&folder.input(), root).contains("Is a directory"));
    assert!(with(&folder.input(), &root.join("none/answers.jsonl")).contains("none/answers.jsonl: No such file"));
    assert!(with(&folder.input(), Path::new("/dev/null")).contains("/dev/null: expected a file"));
}

/// What the model makes of one request is that request's answer: it is not asked again.
#[test]
fn a_request_that_is_not_finite_is_answered_by_its_error() {
    let model = sick::model(0x7fc0);
    let request = |text: &str| json!({"prompt": [{"text": text}], "max_new_tokens": 4, "ignore_eos": true});
    let folder = Folder::new(&["abc", "abz", "abd"].map(request));
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.arg("batch").arg(model.path()).arg("--input").arg(folder.input()).arg("--output").arg(folder.output());
        let output = command.env_remove("FLAMANT_DEVICE").stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        told
    };
    assert!(run().contains("3 requests answered") && run().contains("all 3 requests were answered before"));
    let answers = folder.answers();
    assert_eq!(answers[&2]["kind"], "not_finite");
    assert!(answers[&2]["error"].as_str().unwrap().contains(" are not finite: "), "{}", answers[&2]);
    assert!([1, 3].iter().all(|line| answers[line]["text"].is_string() && answers[line].get("error").is_none()));
}

//! `flamant batch`: its answers are those of the single commands, whatever stops it, and it touches no other file.

mod edges;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
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

    /// Runs to the end, without an error; what it says.
    fn run(&self) -> String {
        self.ends(self.command(), 0)
    }

    /// Runs to the end; what it says.
    fn ends(&self, mut command: Command, code: i32) -> String {
        let Output { status, stderr, .. } = command.output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), told.lines().count()), (Some(code), 1), "{told}");
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
        answers_in(&fs::read_to_string(self.output()).unwrap())
    }
}

/// Answers by line, behind what they belong to.
fn answers_in(text: &str) -> BTreeMap<u64, Value> {
    assert!(text.ends_with('\n'), "whole lines");
    let mut answers = BTreeMap::new();
    let mut lines = text.lines();
    let head: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert!(["weights", "tokenizer.json", "device", "dtype"].iter().all(|key| head["batch"][key].is_string()));
    for line in lines {
        let mut answer: Value = serde_json::from_str(line).unwrap();
        forget_the_moment(&mut answer);
        let number = answer["line"].as_u64().unwrap();
        assert!(answers.insert(number, answer).is_none(), "two answers to line {number}");
    }
    answers
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

/// How a batch of many requests ends, and what it says, if something is done to its files once answers come.
fn disturbed(disturb: impl FnOnce(&Folder)) -> (Option<i32>, String) {
    let folder = Folder::new(&many(400));
    let child = folder.command().stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while fs::metadata(folder.output()).map_or(0, |file| file.len()) < 2000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no answer comes");
        thread::sleep(Duration::from_millis(1));
    }
    disturb(&folder);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
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
        // A failure of the system leaves zeros where nothing was written, perhaps before what was.
        for tail in [&b""[..], &[0; 4096], b"\0\0\0\"tail\n{\"line\":"] {
            fs::write(folder.output(), [&whole[..cut], tail].concat()).unwrap();
            folder.run();
            assert_eq!(folder.answers(), expected, "cut at {cut} of {}, {} bytes behind it", whole.len(), tail.len());
        }
    }
    for nothing in [&[][..], &[0; 100], b"{\"bat", b"{\"batch\":\0\0"] {
        fs::write(folder.output(), nothing).unwrap();
        folder.run();
        assert_eq!(folder.answers(), expected);
    }
}

#[test]
fn other_files_are_left_alone() {
    let requests = many(3);
    let folder = Folder::new(&requests);
    folder.run();
    let answers = fs::read_to_string(folder.output()).unwrap();
    let (head, rest) = answers.split_once('\n').unwrap();
    let cases = [
        ("notes without an end".to_owned(), "line 1: expected an answer of flamant batch, found something else"),
        ("notes\n{\"line\":".to_owned(), "line 1: expected an answer of flamant batch"),
        ("{\"line\":1}\n".to_owned(), "missing field `batch`"),
        (
            format!("{head}\n{{\"line\":1}}\n"),
            "line 2: expected an answer of flamant batch, found missing field `request`",
        ),
        (format!("{head}\nnotes\n"), "line 2: expected an answer of flamant batch"),
        (format!("{head}\nnotes"), "line 2: expected an answer of flamant batch, found something else"),
        ("notes\0\0".to_owned(), "line 1: expected an answer of flamant batch, found something else"),
        (format!("{answers}{answers}"), "line 5: expected an answer of flamant batch"),
        (format!("{answers}{rest}"), "answers to line 1: expected one, found more"),
        (answers.replace("{\"line\":3", "{\"line\":7"), "expected an answer to one of the 3 lines of"),
        (answers.replace("{\"line\":3", "{\"line\":0"), "expected an answer of flamant batch, found one to line 0"),
        (answers.replace("{\"line\":3", "{\"line\":-1"), "expected an answer of flamant batch"),
        (answers.replace("\"device\":\"cpu\"", "\"device\":\"cuda\""), "device of its batch: expected cpu, found cuda"),
        (answers.replace("\"dtype\":\"default\",", ""), "dtype of its batch: expected default, found nothing"),
        (
            answers.replace("{\"batch\":{", "{\"batch\":{\"more\":\"1\","),
            "more of its batch: expected nothing, found 1",
        ),
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
        (&json!({"id": 3.5, "prompt": text}).to_string(), "id: expected a string or a whole number, found 3.5"),
        (&json!({"id": [3], "prompt": text}).to_string(), "id: expected a string or a whole number, found [3]"),
        (&json!({"id": "y", "prompt": null}).to_string(), "prompt: expected a prompt, found none"),
        (
            &json!({"prompt": text, "max_new_tokens": -1}).to_string(),
            "max_new_tokens: expected a whole number, found -1",
        ),
        (&json!({"prompt": text, "max_new_tokens": 1e300}).to_string(), "max_new_tokens: expected a whole number"),
        (&json!({"prompt": text, "seed": "1"}).to_string(), "seed: expected a whole number, found \"1\""),
        (&json!({"prompt": text, "num_beams": 65.0}).to_string(), "num-beams: expected 1 to 64, found 65"),
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
        (
            &json!({"prompt": text, "task": "classify", "choices": vec!["a"; 70_000]}).to_string(),
            "choices: 70000 is over",
        ),
        (
            &json!({"prompt": text, "task": "score", "seed": 1}).to_string(),
            "key: expected id, prompt, task, top_logprobs, found",
        ),
        (&json!({"prompt": text, "task": "score", "choices": []}).to_string(), "found \"choices\""),
        (&json!({"prompt": [{"text": "<image>"}]}).to_string(), "prompt: expected text without image markers"),
        (&json!({"prompt": [{"text": "k".repeat(100_000)}]}).to_string(), "tokens of a sequence"),
    ];
    let good = json!({"id": "good", "prompt": text, "task": "score"}).to_string();
    let lines: Vec<&str> = bad.iter().flat_map(|(line, _)| [line, "", good.as_str()]).collect();
    fs::write(folder.input(), [lines.join("\r\n").as_bytes(), b"\n\xff\xfe\n"].concat()).unwrap();
    let told = folder.ends(folder.command(), 3);
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
    assert_eq!(answers[&40]["id"], "x", "an id is told as soon as it is known");
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
    let first: Vec<&str> = whole.lines().take(2).collect();
    fs::write(folder.output(), format!("{}\n{{\"li", first.join("\n"))).unwrap();
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
    assert!(with(root, &folder.output()).contains("expected a file, found a folder"));
    assert!(with(&folder.input(), root).contains("Is a directory"));
    assert!(with(&folder.input(), &root.join("none/answers.jsonl")).contains("none/answers.jsonl: No such file"));
}

#[test]
fn a_request_that_is_not_finite_is_answered_by_its_error() {
    let model = sick::model(0x7fc0);
    let request = |text: &str| json!({"prompt": [{"text": text}], "max_new_tokens": 4, "ignore_eos": true});
    let folder = Folder::new(&["abc", "abz", "abd"].map(request));
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.arg("batch").arg(model.path()).arg("--input").arg(folder.input()).arg("--output").arg(folder.output());
        command.env_remove("FLAMANT_DEVICE").stdin(Stdio::null());
        folder.ends(command, 3)
    };
    assert!(run().contains("3 requests answered") && run().contains("1 requests answered"));
    let answers = folder.answers();
    assert_eq!(answers[&2]["kind"], "not_finite");
    assert!(answers[&2]["error"].as_str().unwrap().contains(" are not finite: "), "{}", answers[&2]);
    assert!([1, 3].iter().all(|line| answers[line]["text"].is_string() && answers[line].get("error").is_none()));
}

/// A folder with a copy of the model in the program.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(DEMO).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&entry, folder.path().join(entry.file_name().unwrap())).unwrap();
    }
    folder
}

#[test]
fn an_output_belongs_to_its_model_wherever_that_is() {
    let folder = Folder::new(&many(3));
    let with = |model: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.args(["batch", model, "--input"]).arg(folder.input()).arg("--output").arg(folder.output());
        command.env_remove("FLAMANT_DEVICE").stdin(Stdio::null());
        command
    };
    folder.run();
    let whole = fs::read_to_string(folder.output()).unwrap();
    let expected = folder.answers();
    let half = whole.lines().take(2).map(|line| format!("{line}\n")).collect::<String>();
    for (name, key) in [
        ("model.safetensors", "weights"),
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("generation_config.json", "generation_config.json"),
    ] {
        let other = model();
        let path = other.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        if key == "weights" {
            // One bit, far from the ends of any tensor.
            let place = bytes.len() - 1_000_001;
            bytes[place] ^= 1;
        } else {
            bytes.push(b' ');
        }
        fs::write(path, bytes).unwrap();
        for there in [&half, &whole] {
            fs::write(folder.output(), there).unwrap();
            let told = folder.refused(with(other.path().to_str().unwrap()));
            assert!(told.contains(&format!("{key} of its batch: expected ")), "{name}: {told}");
        }
    }
    // The same elsewhere, or under another name.
    let same = model();
    let elsewhere = same.path().to_str().unwrap();
    for spelling in [elsewhere, &format!("{elsewhere}/"), &format!("{DEMO}/"), &format!("{DEMO}/../demo")] {
        fs::write(folder.output(), &half).unwrap();
        assert!(folder.ends(with(spelling), 0).contains("2 requests answered"), "{spelling}");
        assert_eq!(folder.answers(), expected);
    }
}

#[test]
fn errors_are_asked_again_and_leave_one_answer_to_each_line() {
    let [first, second] = [0, 1].map(|number| many(2).remove(number));
    let later = json!({"id": 7, "prompt": [{"image": "later.png"}, {"text": "kep."}]});
    let folder = Folder::new(&[first.clone(), later.clone(), json!({"prompt": "x"}), second.clone()]);
    let told = folder.ends(folder.command(), 3);
    assert!(told.contains("4 requests answered") && told.contains("2 of them with an error"), "{told}");
    let before = folder.answers();
    assert_eq!(before[&2]["id"], 7);
    assert!(before[&2]["error"].as_str().unwrap().contains("later.png"), "{}", before[&2]);
    fs::copy(Path::new(IMAGES).join("palette.gif"), folder.root.path().join("later.png")).unwrap();
    let told = folder.ends(folder.command(), 3);
    assert!(told.contains("2 requests answered") && told.contains("2 before, 1 of them with an error"), "{told}");
    let after = folder.answers();
    assert!(after[&2]["text"].is_string() && after[&2].get("error").is_none());
    assert_eq!((&after[&1], &after[&4]), (&before[&1], &before[&4]));
    assert!(after[&3]["error"].is_string());
    // A line that was wrong may be mended.
    folder.write(&[first, later, json!({"prompt": [{"text": "x"}]}), second]);
    assert!(folder.run().contains("1 requests answered"));
    assert!(folder.answers().values().all(|answer| answer.get("error").is_none()));
    assert!(folder.run().contains("all 4 requests were answered before"));
    assert_eq!(fs::read_dir(folder.root.path()).unwrap().count(), 5, "nothing else is left");
    // Where nothing is answered at all it is no success of any kind.
    let folder = Folder::new(&[json!({"prompt": "x"})]);
    folder.ends(folder.command(), 1);
}

#[test]
fn numbers_and_nulls_are_what_tables_write() {
    let prompt = json!([{"text": "kep."}]);
    let plain = json!({"id": 262148000, "prompt": prompt, "max_new_tokens": 5, "temperature": 1.5, "seed": 3});
    let table = r#"{"id": 262148000.0, "prompt": [{"text": "kep."}], "task": null, "max_new_tokens": 5.0,
        "num_beams": null, "temperature": 1.5, "top_k": null, "top_p": null, "seed": 3e0, "stop": null, "choices": null}"#;
    let negative = json!({"id": -3, "prompt": prompt, "task": "score", "seed": null});
    let folder = Folder::new(&[plain, negative, json!({"id": null, "prompt": prompt, "max_new_tokens": 1})]);
    let lines = fs::read_to_string(folder.input()).unwrap();
    fs::write(folder.input(), format!("{lines}\n{}\n", table.replace('\n', " "))).unwrap();
    folder.run();
    let mut answers = folder.answers();
    let ids: Vec<&Value> = answers.values().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!(262148000), &json!(-3), &Value::Null, &json!(262148000)]);
    for line in [1, 4] {
        let fields = answers.get_mut(&line).unwrap().as_object_mut().unwrap();
        fields.retain(|key, _| key != "line" && key != "request");
    }
    assert_eq!(answers[&1], answers[&4]);
}

#[test]
fn streams_serve_on_both_ends() {
    let folder = Folder::new(&many(3));
    folder.run();
    let expected = folder.answers();
    let place = folder.root.path();
    let before = fs::read_dir(place).unwrap().count();
    let command = |output: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.args(["batch", DEMO, "--input", "-", "--output", output]).current_dir(place);
        command.stdin(File::open(folder.input()).unwrap()).env_remove("FLAMANT_DEVICE");
        command.output().unwrap()
    };
    let output = command("-");
    assert!(output.status.success());
    assert_eq!(answers_in(&String::from_utf8(output.stdout).unwrap()), expected);
    // Devices and pipes are written as they are.
    assert!(command("/dev/null").status.success());
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    assert!(Command::new("mkfifo").arg(place.join("fifo")).status().unwrap().success());
    let fifo = place.join("fifo");
    let reader = thread::spawn(move || fs::read_to_string(fifo).unwrap());
    assert!(command("fifo").status.success());
    assert_eq!(answers_in(&reader.join().unwrap()), expected);
    fs::remove_file(place.join("fifo")).unwrap();
    assert_eq!(fs::read_dir(place).unwrap().count(), before, "nothing was made, not even a file named -");
    let full = command("/dev/full");
    let told = String::from_utf8(full.stderr).unwrap();
    assert_eq!((full.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("/dev/full: "), "{told}");
}

#[test]
fn an_output_that_is_not_there_any_more_is_an_error() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("removed", |output| fs::remove_file(output).unwrap()),
        ("replaced", |output| {
            fs::write(output.with_extension("other"), "").unwrap();
            fs::rename(output.with_extension("other"), output).unwrap();
        }),
        ("cut", |output| File::options().write(true).open(output).unwrap().set_len(10).unwrap()),
        ("added to", |output| File::options().append(true).open(output).unwrap().write_all(b"notes\n").unwrap()),
    ];
    for (name, harm) in harms {
        let (code, told) = disturbed(|folder| harm(&folder.output()));
        assert_eq!((code, told.lines().count()), (Some(1), 1), "{name}: {told}");
        assert!(told.contains("answers.jsonl: it was replaced, removed or changed"), "{name}: {told}");
    }
}

/// Also where the file is made anew without its errors.
#[test]
fn a_link_to_the_output_stays_a_link() {
    let folder = Folder::new(&[many(1).remove(0), json!({"prompt": "x"})]);
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target.jsonl");
    std::os::unix::fs::symlink(&target, folder.output()).unwrap();
    for _ in 0..2 {
        folder.ends(folder.command(), 3);
        assert!(folder.output().is_symlink() && target.is_file());
        assert_eq!(folder.answers().len(), 2);
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

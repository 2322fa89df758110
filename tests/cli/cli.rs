//! The command line on good input: what it prints, and that all ways to say the same thing mean the same.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images/sources/");

/// Runs the program with a text on standard input; it must succeed in silence.
fn run_with(arguments: &[&str], input: &str) -> String {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let told = String::from_utf8(stderr).unwrap();
    assert!(status.success() && told.is_empty(), "{arguments:?}: {status:?} {told}");
    String::from_utf8(stdout).expect("answers are UTF-8")
}

fn run(arguments: &[&str]) -> String {
    run_with(arguments, "")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
    command.args(arguments).env_remove("FLAMANT_THREADS").env_remove("FLAMANT_DEVICE");
    command
}

/// A command that prints one line of JSON, without the time it took.
fn json(arguments: &[&str]) -> Value {
    let line = run(&[arguments, &["--json"]].concat());
    assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
    let mut value: Value = serde_json::from_str(&line).unwrap();
    if let Some(report) = value.as_object_mut() {
        report.remove("timings");
    }
    value
}

/// One flag raises the limits of an image: of a prompt on the command line, of a prompt file, of a batch's.
#[test]
fn limits_of_pixels_can_be_raised() {
    const SIDE: u32 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (image, prompt, requests, answers) =
        (path("long.png"), path("prompt.json"), path("requests.jsonl"), path("answers.jsonl"));
    let mut encoder = png::Encoder::new(std::fs::File::create(&image).unwrap(), SIDE, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[7; SIDE as usize]).unwrap();
    let parts = json!([{"image": "long.png"}, {"text": "a"}]);
    std::fs::write(&prompt, parts.to_string()).unwrap();
    std::fs::write(&requests, json!({"prompt": parts, "task": "score"}).to_string()).unwrap();
    let batch = ["batch", DEMO, "--input", &requests, "--output", &answers];
    let commands: [&[&str]; 3] =
        [&["score", DEMO, "--image", &image, "--text", "a"], &["score", DEMO, "--prompt", &prompt], &batch];
    for arguments in commands {
        let told = |more: &[&str]| {
            let output = command(&[arguments, more].concat()).output().unwrap();
            let answers = std::fs::read_to_string(&answers).unwrap_or_default();
            (output.status.success(), String::from_utf8(output.stderr).unwrap() + &answers)
        };
        let (done, why) = told(&[]);
        assert!(!done && why.contains("16384") && why.contains("20000"), "{arguments:?}: {why}");
        let (done, why) = told(&["--max-pixels", "100000000"]);
        assert!(done, "{arguments:?}: {why}");
    }
}

/// What a model writes cannot move a terminal's cursor or change its title; a pipe gets it as it is.
#[test]
fn a_terminal_gets_no_control_characters() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"] {
        std::fs::copy(Path::new(DEMO).join(name), folder.path().join(name)).unwrap();
    }
    let file = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let replaced = ["k", "c"].iter().zip(["\u{1b}[2J", "\u{7}"]);
    let mut steps: Vec<Value> =
        replaced.map(|(from, to)| json!({"type": "Replace", "pattern": {"String": from}, "content": to})).collect();
    steps.push(json!({"type": "Fuse"}));
    tokenizer["decoder"] = json!({"type": "Sequence", "decoders": steps});
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    let folder = folder.path().to_str().unwrap();
    let write = ["generate", folder, "--text", "kep", "--ignore-eos", "--temperature", "3", "--seed", "1"];
    let piped = run(&write);
    assert!(piped.contains("\u{1b}[2J") && piped.contains('\u{7}'), "{piped:?}");
    let on_terminal = |arguments: &[&str]| -> String {
        const PTY: &str = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))";
        let mut command = Command::new("python3");
        command.args(["-c", PTY, env!("CARGO_BIN_EXE_flamant")]).args(arguments).stdin(Stdio::null());
        String::from_utf8(command.output().expect("python3 is there").stdout).unwrap()
    };
    let shown = on_terminal(&write).replace("\r\n", "\n");
    assert_eq!(shown, piped.replace('\u{1b}', "\\u001b").replace('\u{7}', "\\u0007"));
    let line = on_terminal(&[&write[..], &["--json"]].concat());
    assert!(!line.trim_end().contains(char::is_control), "{line:?}");
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["text"], piped.strip_suffix('\n').unwrap());
}

/// The help of a command says how it is used before it lists anything: an example of it, and its options by subject.
#[test]
fn help_has_examples_and_headings() {
    let commands = run(&["--help"]);
    let commands = commands.split("Commands:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    // What goes on in a second line stands further to the right.
    let commands = commands.filter(|line| line.as_bytes()[2] != b' ').map(|line| line.split(' ').nth(2).unwrap());
    let commands = commands.filter(|name| *name != "help");
    let mut count = 0;
    for name in commands {
        let help = run(&[name, "--help"]);
        let lines = &help;
        let section = |title: &'static str| {
            lines.lines().skip_while(move |line| *line != title).skip(1).take_while(|line| !line.is_empty())
        };
        assert!(help.contains(&format!("Usage: flamant {name}")), "{name}: {help}");
        let examples = section("Example:").chain(section("Examples:")).collect::<Vec<_>>();
        let right = examples.iter().all(|line| line.starts_with(&format!("  flamant {name}")));
        assert!(right && !examples.is_empty(), "{name}: {examples:?}");
        // What every command has stands under the parser's own heading, and nothing else.
        let plain = section("Options:").filter(|line| line.contains(" -")).collect::<Vec<_>>();
        assert!(plain.len() == 1 && plain[0].contains("--help"), "{name}: {plain:?}");
        count += 1;
    }
    assert!(count >= 11);
    for (command, flags) in [
        ("generate", "-m, --model|-p, --prompt|-t, --text|-i, --image"),
        ("score", "-m, --model|-p, --prompt"),
        ("classify", "-m, --model|-i, --image"),
        ("batch", "-m, --model|-i, --input|-o, --output"),
        ("eval", "-m, --model|-o, --output"),
        ("bench", "-m, --model"),
        ("inspect", "-m, --model"),
        ("convert", "-o, --output"),
    ] {
        let help = run(&[command, "--help"]);
        assert!(flags.split('|').all(|flag| help.contains(flag)), "{command}: {flags}");
    }
}

#[test]
fn the_model_is_an_argument_or_an_option() {
    let texts = ["-t", "kep.", "--max-new-tokens", "4"];
    let first = json(&[&["generate", DEMO], &texts[..]].concat());
    assert_eq!(json(&[&["generate", "-m", DEMO], &texts[..]].concat()), first);
    assert_eq!(json(&[&["generate"], &texts[..], &["--model", DEMO]].concat()), first);
}

fn generate(arguments: &[&str]) -> Value {
    json(&[&["generate", DEMO, "--max-new-tokens", "12", "--ignore-eos"], arguments].concat())
}

fn image(name: &str) -> String {
    format!("{IMAGES}{name}")
}

fn text(answer: &Value) -> &str {
    answer["text"].as_str().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().filter_map(Value::as_f64).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-4
}

/// Two prompts that differ in nothing but order, with the images `a` and `b`.
fn shots() -> (String, String) {
    (image("rgb8-turned.png"), image("palette.gif"))
}

#[test]
fn texts_and_images_keep_their_order() {
    let (a, b) = shots();
    let folder = tempfile::tempdir().unwrap();
    let written = |parts: Value| {
        let file = folder.path().join("prompt.json");
        std::fs::write(&file, parts.to_string()).unwrap();
        json(&["score", DEMO, "--prompt", file.to_str().unwrap()])
    };
    let given = |parts: &[&str]| json(&[&["score", DEMO], parts].concat());
    let first = given(&["--image", &a, "--text", "kep.", "--image", &b, "--text", "mo"]);
    let second = given(&["--image", &b, "--text", "kep.", "--image", &a, "--text", "mo"]);
    let third = given(&["--text", "kep.", "--image", &a, "--image", &b, "--text", "mo"]);
    assert_eq!(first, written(json!([{"image": a}, {"text": "kep."}, {"image": b}, {"text": "mo"}])));
    assert_eq!(second, written(json!([{"image": b}, {"text": "kep."}, {"image": a}, {"text": "mo"}])));
    assert_eq!(third, written(json!([{"text": "kep."}, {"image": a}, {"image": b}, {"text": "mo"}])));
    assert_ne!(first, second, "which image comes first must matter");
    // An image is a video of one frame, wherever it stands.
    assert_eq!(first, given(&["--video", &a, "--text", "kep.", "--image", &b, "--text", "mo"]));
    assert_eq!(second, given(&["--image", &b, "--text", "kep.", "--video", &a, "--frames", "1", "--text", "mo"]));
    assert_eq!(third, written(json!([{"text": "kep."}, {"video": [a], "fps": 2}, {"image": b}, {"text": "mo"}])));
    assert_ne!(first["tokens"], third["tokens"]);
}

#[test]
fn prompts_come_from_everywhere() {
    use base64::Engine as _;
    let (a, _) = shots();
    let given = generate(&["--image", &a, "--text", "k"]);

    let piped = json!([{"image": a}, {"text": "k"}]).to_string();
    let arguments = ["generate", DEMO, "--max-new-tokens", "12", "--ignore-eos", "--prompt", "-"];
    assert_eq!(run_with(&arguments, &piped), format!("{}\n", text(&given)), "standard input");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.json");
    let prompt = |parts: Value| {
        std::fs::write(&file, parts.to_string()).unwrap();
        generate(&["--prompt", file.to_str().unwrap()])
    };
    let data = base64::engine::general_purpose::STANDARD.encode(std::fs::read(&a).unwrap());
    assert_eq!(prompt(json!([{"image": format!("data:image/png;base64,{data}")}, {"text": "k"}])), given, "data");
    std::fs::copy(&a, folder.path().join("beside.png")).unwrap();
    assert_eq!(prompt(json!([{"image": "beside.png"}, {"text": "k"}])), given, "a path relative to the file");
}

#[test]
fn an_answer_has_the_documented_keys() {
    let (a, _) = shots();
    let line = run(&["generate", DEMO, "--image", &a, "--text", "k", "--max-new-tokens", "5", "--json"]);
    let answer: Value = serde_json::from_str(&line).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&answer), ["finish_reason", "logprobs", "text", "timings", "token_ids", "usage"]);
    let usage = ["cached_tokens", "completion_tokens", "images", "images_encoded", "prompt_tokens"];
    assert_eq!(keys(&answer["usage"]), usage);
    let timings = ["decode_seconds", "media_seconds", "prompt_seconds", "queue_seconds"];
    assert_eq!(keys(&answer["timings"]), timings);
    let tokens = answer["token_ids"].as_array().unwrap().len();
    assert_eq!((&answer["usage"]["completion_tokens"], &answer["usage"]["images"]), (&json!(tokens), &json!(1)));
    // Begin, fence, image, fence, letter.
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
    assert_eq!(numbers(&answer["logprobs"]).len(), tokens);
    assert!(numbers(&answer["logprobs"]).iter().all(|&logprob| logprob <= 0.0));
}

/// Only where they are asked for; the first of a greedy answer is its own token.
#[test]
fn the_likeliest_tokens_are_told_in_each_place() {
    let settings = ["--text", "kep.", "--top-logprobs", "3"];
    let answer = json(&[&["generate", DEMO, "--max-new-tokens", "5", "--ignore-eos"], &settings[..]].concat());
    let score = json(&[&["score", DEMO], &settings[..]].concat());
    let [written, scored] = [&answer, &score].map(|value| value["top_logprobs"].as_array().unwrap().clone());
    let own = numbers(&answer["logprobs"]);
    assert_eq!((written.len(), scored.len()), (5, score["token_ids"].as_array().unwrap().len()));
    for ((top, id), logprob) in written.iter().zip(answer["token_ids"].as_array().unwrap()).zip(own) {
        assert_eq!((top.as_array().unwrap().len(), &top[0]["token_id"]), (3, id));
        assert_eq!(top[0]["logprob"].as_f64().unwrap(), logprob);
    }
    assert_eq!((&scored[0], scored[1].as_array().unwrap().len()), (&json!([]), 3));
}

#[test]
fn words_as_they_come_are_the_words_of_the_report() {
    for settings in
        [&["--text", "kep."][..], &["--text", "a", "--num-beams", "3"], &["--text", "b", "--temperature", "2"]]
    {
        let arguments = [&["generate", DEMO, "--max-new-tokens", "20", "--ignore-eos"], settings].concat();
        assert_eq!(run(&arguments), format!("{}\n", text(&json(&arguments))));
    }
}

#[test]
fn a_stop_text_is_cut_and_never_shown() {
    // Hot enough that letters vary.
    let settings = ["--text", "kep.", "--temperature", "3", "--seed", "5"];
    let whole = generate(&settings);
    let whole = text(&whole);
    assert!(whole.len() >= 6, "{whole:?}");
    let stop = &whole[3..5];
    let expected = &whole[..whole.find(stop).unwrap()];
    let cut = generate(&[&settings[..], &["--stop", "nowhere", "--stop", stop]].concat());
    assert_eq!((text(&cut), &cut["finish_reason"]), (expected, &json!("stop")));
    let arguments = ["generate", DEMO, "--max-new-tokens", "12", "--ignore-eos", "--stop", stop];
    assert_eq!(run(&[&arguments[..], &settings].concat()), format!("{expected}\n"));
    // One that begins but never ends is given out in the end.
    let half = format!("{}#", &whole[whole.len() - 1..]);
    assert_eq!(text(&generate(&[&settings[..], &["--stop", &half]].concat())), whole);
}

#[test]
fn seeds_reproduce() {
    let draw = |seed: &str| generate(&["--text", "kep.", "--temperature", "2", "--seed", seed]);
    assert_eq!(draw("1"), draw("1"));
    let all = ["1", "2", "3", "4"].map(draw);
    assert!(all.iter().any(|answer| *answer != all[0]), "four seeds, one answer: {all:?}");
    let sure = |seed: &str| generate(&["--text", "kep.", "--temperature", "0", "--seed", seed]);
    assert_eq!(sure("1"), sure("2"));
}

/// A choice is worth what its tokens are as part of the prompt.
#[test]
fn a_choice_is_scored_like_a_prompt() {
    let (a, _) = shots();
    let prompt = ["--image", &a, "--text", "kep."];
    let choices = ["mo", "a", "zebra."];
    let offered: Vec<&str> = choices.iter().flat_map(|choice| ["--choice", choice]).collect();
    let ranked = json(&[&["classify", DEMO], &prompt[..], &offered].concat());
    assert_eq!(ranked["choice"], ranked["choices"][0]["choice"]);
    let mut shares = 0.0;
    let mut before = f64::INFINITY;
    for choice in ranked["choices"].as_array().unwrap() {
        let whole = format!("kep.{}", choice["choice"].as_str().unwrap());
        let scored = json(&["score", DEMO, "--image", &a, "--text", &whole]);
        let tokens = choice["token_ids"].as_array().unwrap().len();
        let logprobs = numbers(&scored["logprobs"]);
        let sum: f64 = logprobs[logprobs.len() - tokens..].iter().sum();
        let found = choice["sum"].as_f64().unwrap();
        assert!(close(found, sum), "{choice}: {sum}");
        assert!(close(choice["mean"].as_f64().unwrap(), sum / tokens as f64), "{choice}");
        assert!(found <= before, "ranked by the sum");
        before = found;
        shares += choice["probability"].as_f64().unwrap();
    }
    assert!(close(shares, 1.0));
    let by_mean = json(&[&["classify", DEMO, "--mean"], &prompt[..], &offered].concat());
    let means: Vec<f64> =
        by_mean["choices"].as_array().unwrap().iter().map(|choice| choice["mean"].as_f64().unwrap()).collect();
    assert!(means.is_sorted_by(|a, b| a >= b), "{means:?}");
}

/// The file of logits is a safetensors file, and its softmax is what the report says of the tokens.
#[test]
fn logits_on_file_give_the_scores() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logits.safetensors");
    let (a, _) = shots();
    let scored = json(&["score", DEMO, "--image", &a, "--text", "kep.abc", "--logits", file.to_str().unwrap()]);
    let ids: Vec<usize> = numbers(&scored["token_ids"]).iter().map(|&id| id as usize).collect();
    let bytes = std::fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("logits").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[ids.len(), 32][..]));
    let values: Vec<f64> = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect();
    assert_eq!(scored["logprobs"][0], Value::Null, "nothing stands before the first token");
    for (row, (next, logprob)) in values.chunks(32).zip(ids[1..].iter().zip(numbers(&scored["logprobs"]))) {
        let total = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        assert!(close(row[*next] - total, logprob), "{} {logprob}", row[*next] - total);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file is left");
}

/// Where outputs lead decides how they are written: files whole or not at all, links to what they lead to, pipes and
/// devices as they are.
#[test]
fn outputs_are_never_replaced_by_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let score = |output: &std::path::Path| run(&["score", DEMO, "--text", "kep", "--logits", output.to_str().unwrap()]);
    score(&path("plain"));
    let expected = std::fs::read(path("plain")).unwrap();
    // A chain of links, of which the last one leads to nothing yet.
    std::os::unix::fs::symlink("second", path("first")).unwrap();
    std::os::unix::fs::symlink(path("target"), path("second")).unwrap();
    for before in [None, Some(&b"longer than what comes, perhaps"[..])] {
        if let Some(before) = before {
            std::fs::write(path("target"), before).unwrap();
        }
        score(&path("first"));
        assert!(path("first").is_symlink() && path("second").is_symlink() && !path("target").is_symlink());
        assert_eq!(std::fs::read(path("target")).unwrap(), expected);
    }
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    let fifo = path("fifo");
    let reader = std::thread::spawn(move || std::fs::read(fifo).unwrap());
    score(&path("fifo"));
    assert_eq!(reader.join().unwrap(), expected);
    score("/dev/null".as_ref());
    // An open file of the program is written where it stands, whatever it is.
    let piped = command(&["score", DEMO, "--text", "kep", "--json", "--logits", "/dev/stdout"]).output().unwrap();
    assert!(piped.stdout.starts_with(&expected), "{}", String::from_utf8_lossy(&piped.stderr));
    run(&["demo", "--prompts", "0", "--html", path("fifth").to_str().unwrap()]);
    assert!(std::fs::read_to_string(path("fifth")).unwrap().starts_with("<!doctype html>"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 6, "no partial file is left");
}

/// Pipes serve where files do, and paths are bytes.
#[test]
fn inputs_may_be_pipes_and_have_any_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (a, _) = shots();
    let expected = json(&["score", DEMO, "--text", "kep", "--image", &a]);
    let score = |shell: &str, arguments: &[&OsStr]| {
        let mut command = Command::new("bash");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_flamant"), DEMO]).args(arguments);
        let output = command.env_remove("FLAMANT_DEVICE").output().unwrap();
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report.as_object_mut().unwrap().remove("timings");
        report
    };
    let prompt = json!([{"text": "kep"}, {"image": a}]).to_string();
    let name = folder.path().join(OsStr::from_bytes(b"prompt \xff.json"));
    std::fs::write(&name, &prompt).unwrap();
    let image = folder.path().join(OsStr::from_bytes(b"\xfe.gif"));
    std::fs::copy(&a, &image).unwrap();
    assert_eq!(score("\"$0\" score \"$1\" --json --prompt <(cat \"$2\")", &[name.as_ref()]), expected);
    assert_eq!(score("\"$0\" score \"$1\" --json --prompt \"$2\"", &[name.as_ref()]), expected);
    assert_eq!(score("\"$0\" score \"$1\" --json --text kep --image <(cat \"$2\")", &[image.as_ref()]), expected);
    assert_eq!(score("\"$0\" score \"$1\" --json --text kep --image \"$2\"", &[image.as_ref()]), expected);
}

#[test]
fn a_demo_that_asks_nothing_has_measured_nothing() {
    let shown = json(&["demo", "--prompts", "0"]);
    assert_eq!(shown["measured"], Value::Null);
    assert!(shown["answer"].is_string());
    let measured = json(&["demo", "--prompts", "1"]);
    assert!(measured["measured"]["held_out_mean"][0].is_number());
    // Of one prompt that was answered wrongly there is nothing to follow.
    let followed = measured["measured"]["controls"].as_array().unwrap();
    assert!(followed.iter().all(|control| control["swap_followed_percent"] != json!(-1)));
}

#[test]
fn tables_hold_what_the_json_holds() {
    let scored = json(&["score", DEMO, "--text", "kep"]);
    let table = run(&["score", DEMO, "--text", "kep"]);
    assert_eq!(table.lines().count(), scored["tokens"].as_array().unwrap().len());
    let last = format!("{:10.4}  p", numbers(&scored["logprobs"]).last().unwrap());
    assert_eq!(table.lines().last(), Some(last.as_str()));
    let table = run(&["classify", DEMO, "--text", "k", "--choice", "e", "--choice", "o"]);
    assert_eq!(table.lines().next(), Some(" share         sum        mean  choice"));
    assert_eq!(table.lines().count(), 3);
}

#[test]
fn an_inspection_names_family_and_parts() {
    let table = run(&["inspect", DEMO]);
    for mention in [
        "Idefics",
        "Llama",
        "2048 tokens and 32 images on cuda",
        "vision",
        "resampler",
        "gated blocks",
        "decoder",
        "bf16",
        "tanh(attention gate)",
        "answers     end with tokens 2, 3\n",
        "            applied where a request asks, and sampling and penalties by serve: max_new_tokens 8\n",
    ] {
        assert!(table.contains(mention), "{mention} is not in:\n{table}");
    }
    let report = json(&["inspect", DEMO]);
    assert_eq!((&report["family"], &report["language_model"]), (&json!("Idefics"), &json!("Llama")));
    assert_eq!(report["decoder"]["vocabulary"], 32);
    assert_eq!(report["steps"]["cpu"], json!({"max_batched_tokens": 256, "max_batched_images": 8}));
    assert_eq!(report["gates"].as_array().unwrap().len(), 3);
    assert_eq!(report["generation"]["end_tokens"], json!([2, 3]));
    assert_eq!(report["generation"]["not_applied"], json!({"max_new_tokens": 8}));
    let parts = report["parts"].as_object().unwrap();
    assert!(["vision", "resampler", "gated_blocks", "decoder"].iter().all(|part| parts.contains_key(*part)));
    let bytes = std::fs::metadata(Path::new(DEMO).join("model.safetensors")).unwrap().len();
    assert!(report["bytes"].as_u64().is_some_and(|found| found < bytes && bytes - found < 100_000));
}

#[test]
fn any_number_of_threads_gives_the_same_answer() {
    let (a, b) = shots();
    let prompt = ["--image", &a, "--text", "kep.", "--image", &b, "--text", "mo"];
    let answer = |threads: &str| generate(&[&prompt[..], &["--threads", threads]].concat());
    assert_eq!(answer("1"), answer("2"));
    assert_eq!(answer("1"), answer("5"));
    let by_variable = command(&["generate", DEMO, "--text", "k"]).env("FLAMANT_THREADS", "2").output().unwrap();
    assert!(by_variable.status.success());
}

/// A model folder whose stop token the model would write next, to go past it or not.
#[test]
fn the_stop_token_ends_unless_it_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(Path::new(DEMO).join(name), folder.path().join(name)).unwrap();
    }
    // Of an end, the configuration speaks before the tokenizer.
    let config = std::fs::read_to_string(Path::new(DEMO).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config.as_object_mut().unwrap().remove("eos_token_id");
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    // The likeliest letter after this prompt is declared the end of a document.
    let first = generate(&["--text", "kep."])["text"].as_str().unwrap()[..1].to_owned();
    std::fs::write(folder.path().join("tokenizer_config.json"), json!({"eos_token": first}).to_string()).unwrap();
    let model = folder.path().to_str().unwrap();
    let arguments = ["generate", model, "--text", "kep.", "--max-new-tokens", "6"];
    let stopped = json(&arguments);
    assert_eq!((&stopped["finish_reason"], &stopped["usage"]["completion_tokens"]), (&json!("stop"), &json!(1)));
    let ignored = json(&[&arguments[..], &["--ignore-eos"]].concat());
    assert_eq!((&ignored["finish_reason"], &ignored["usage"]["completion_tokens"]), (&json!("length"), &json!(6)));
}

#[test]
fn help_and_version() {
    for command in [
        &["--help"][..],
        &["generate", "--help"],
        &["score", "--help"],
        &["classify", "-h"],
        &["inspect", "-h"],
        &["convert", "-h"],
        &["batch", "--help"],
        &["bench", "-h"],
    ] {
        assert!(run(command).contains("Usage: flamant"), "{command:?}");
    }
    assert_eq!(run(&["--version"]), format!("flamant {}\n", env!("CARGO_PKG_VERSION")));
}

/// The load is what was asked for, and sharing does what it says.
#[test]
fn made_up_requests_are_counted() {
    let load = ["bench", "--demo", "--requests", "12", "--shots", "3", "--prompt-tokens", "7", "--max-new-tokens", "5"];
    let shared = ["--shared-prefix", "--image-reuse", "4", "--max-sequences", "3"];
    let report = json(&[&load[..], &shared].concat());
    let count = |report: &Value, key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key}: {report}"));
    // Begin, and four images with their fences and seven letters.
    let all = [("requests", 12), ("tokens", 60), ("images", 48), ("prompt_tokens", 12 * (1 + 4 * 10))];
    for (key, expected) in all {
        assert_eq!(count(&report, key), expected, "{key}");
    }
    assert_eq!(count(&report, "images_encoded"), 3 + 12 / 4);
    assert!(close(report["images_cached"].as_f64().unwrap(), 42.0 / 48.0), "{report}");
    assert!(report["prompt_tokens_cached"].as_f64().unwrap() > 0.5, "{report}");
    assert_eq!((&report["concurrency"], &report["text_pages"]["held"]), (&json!(3), &json!(0)));
    let held = count(&report["text_pages"], "most_held");
    assert!(held > 0 && held < count(&report["text_pages"], "total"), "{report}");
    for times in ["first_token_seconds", "between_tokens_seconds"] {
        let times = ["p50", "p95", "p99"].map(|quantile| report[times][quantile].as_f64().unwrap());
        assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");
    }
    for key in ["requests", "images", "prompt_tokens", "tokens"] {
        let rate = report[format!("{key}_per_second")].as_f64().unwrap();
        assert!(close(rate * report["seconds"].as_f64().unwrap() / count(&report, key) as f64, 1.0), "{key}");
    }
    let alone = json(&[&load[..], &shared, &["--no-prefix-caching"]].concat());
    assert_eq!(count(&alone, "images_encoded"), 48);
    assert_eq!((&alone["images_cached"], &alone["prompt_tokens_cached"]), (&json!(0.0), &json!(0.0)));
    let own = json(&[&load[..], &["--concurrency", "2"]].concat());
    assert_eq!((count(&own, "images_encoded"), &own["concurrency"]), (48, &json!(2)));
    let table = run(&[&load[..], &shared].concat());
    for line in ["requests", "first token", "between tokens", "images", "text pages", "the scheduler took"] {
        assert!(table.contains(line), "{line} is not in:\n{table}");
    }
}

/// As in `flamant ... | head -c 1`.
#[test]
fn a_reader_that_leaves_is_no_fault() {
    let commands: [&[&str]; 5] = [
        &["generate", DEMO, "--text", "kep.", "--max-new-tokens", "200", "--ignore-eos"],
        &["generate", DEMO, "--text", "kep.", "--json"],
        &["score", DEMO, "--text", "kep."],
        &["classify", DEMO, "--text", "kep.", "--choice", "a"],
        &["inspect", DEMO],
    ];
    for arguments in commands {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert!(status.success() && told.is_empty(), "{arguments:?}: {status:?} {told}");
    }
}

#[test]
fn devices_are_chosen_by_name() {
    let devices = json(&["devices"]);
    let names: Vec<&str> =
        devices.as_array().unwrap().iter().map(|device| device["device"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["cpu", "emulated"]);
    let tokens: Vec<&Value> = devices.as_array().unwrap().iter().map(|device| &device["max_batched_tokens"]).collect();
    assert_eq!((tokens[0], *tokens.last().unwrap()), (&json!(256), &json!(2048)));
    let prompt = ["--image", &image("rgb16-30x45.png"), "--text", "a"];
    let on_processor = generate(&prompt);
    for dtype in ["bf16", "f16"] {
        let emulated = generate(&[&prompt[..], &["--device", "emulated", "--dtype", dtype]].concat());
        assert_eq!(text(&emulated), text(&on_processor), "{dtype}");
    }
    // Auto says which device it took; the processor does not know f16.
    let Output { status, stderr, .. } =
        command(&["generate", DEMO, "--text", "a", "--device", "auto", "--max-new-tokens", "1"]).output().unwrap();
    assert!(status.success() && String::from_utf8(stderr).unwrap().starts_with("flamant: device c"));
    let Output { status, stderr, .. } = command(&["generate", DEMO, "--text", "a", "--dtype", "f16"]).output().unwrap();
    let line = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.contains("dtype: expected f32 or bf16 on cpu, found f16"), "{line}");
}

/// A GPU that only PTX serves, whose driver is as old as any that we try: older than all compilers that we take.
#[cfg(target_os = "linux")]
#[test]
fn a_driver_too_old_for_the_kernels_leaves_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda_driver/fake_libcuda.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-O1", "-fPIC", "-shared", "-o"]).arg(folder.path().join("libcuda.so")).arg(source);
    assert!(compiler.status().unwrap().success());
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("LD_LIBRARY_PATH", folder.path());
        let Output { status, stdout, stderr } =
            command.envs([("FAKE_CUDA_VERSION", "12000"), ("FAKE_CUDA_CAPABILITY", "110")]).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    };
    let (_, listed, _) = run(&["devices", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let gpu = listed.as_array().unwrap().iter().find(|device| device["device"] == "cuda:0").unwrap();
    let problem = gpu["problem"].as_str().unwrap();
    let prompt = ["generate", DEMO, "--text", "a", "--max-new-tokens", "1", "--device"];
    let (code, answer, told) = run(&[&prompt[..], &["auto"]].concat());
    assert_eq!((code, answer.is_empty()), (Some(0), false), "{told}");
    if flamant::probe::report().is_empty() {
        assert!(problem.starts_with("built without kernels"), "{problem}");
        assert_eq!(told, "flamant: device cpu\n");
    } else {
        if std::env::var_os("FLAMANT_CUDA_ARCHITECTURES").is_none() {
            assert!(problem.starts_with("the NVIDIA driver is too old for the kernels, by nvcc "), "{problem}");
            assert!(
                problem.contains("(for CUDA 12.0, ") && problem.ends_with(" is the least): update it"),
                "{problem}"
            );
        }
        assert_eq!(told, format!("flamant: device cpu (cuda:0: {problem})\n"));
    }
    let (code, answer, told) = run(&[&prompt[..], &["cuda"]].concat());
    assert_eq!((code, answer.as_str(), told.lines().count()), (Some(1), "", 1), "{told}");
    assert!(told.ends_with(&format!("cuda:0: Fake GPU 0: {problem}\n")), "{told}");
}

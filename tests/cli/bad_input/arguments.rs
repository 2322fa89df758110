//! Arguments: what the parser of the command line refuses (exit code 2), what only the commands can tell (1).

use super::{Folder, refused, run, text};

/// Runs the program, which must call this a matter of usage.
pub fn usage(arguments: &[&str], mentions: &[&str]) {
    let case = arguments.join(" ");
    let output = run(arguments, &case);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{case}: {told}");
    assert!(output.stdout.is_empty() && !told.contains("panicked"), "{case}: {told}");
    // The parser explains itself over several lines; the fault stands in the first.
    let first = told.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: "), "{case}: {told}");
    for mention in mentions {
        assert!(first.contains(mention), "{case}: {mention:?} is not in {first:?}");
    }
    shows_its_usage(arguments[0], &told);
}

/// A command explains itself, not the program, and without holes.
fn shows_its_usage(command: &str, told: &str) {
    let own = command == "conjure" || told.contains(&format!("Usage: flamant {command} "));
    assert!(own && !told.contains("\n\n\n"), "{command}: {told}");
}

#[test]
fn usage_errors() {
    let folder = Folder::new();
    let model = text(&folder.model());
    let generate = |arguments: &[&'static str]| {
        [&["generate", &model, "--text", "a"], arguments].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let table: [(&[&str], &[&str]); 12] = [
        (&["--device", "abacus"], &["--device", "expected auto, cpu, cuda, cuda:N or emulated, found abacus"]),
        (&["--device", ""], &["--device"]),
        (&["--threads", "many"], &["'many'", "--threads"]),
        (&["--threads=-1"], &["'-1'", "--threads"]),
        (&["--max-new-tokens", "ten"], &["'ten'", "--max-new-tokens"]),
        (&["--max-new-tokens", "1e3"], &["'1e3'", "--max-new-tokens"]),
        (&["--max-new-tokens=-5"], &["'-5'", "--max-new-tokens"]),
        (&["--num-beams", "2.5"], &["'2.5'", "--num-beams"]),
        (&["--temperature", "hot"], &["'hot'", "--temperature"]),
        (&["--seed=-1"], &["'-1'", "--seed"]),
        (&["--colour"], &["--colour"]),
        (&["--prompt", "a.json"], &["--prompt <FILE>", "cannot be used with"]),
    ];
    for (arguments, mentions) in table {
        let arguments = generate(arguments);
        usage(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), mentions);
    }
    usage(&["generate", &model], &["required arguments"]);
    usage(&["score", &model], &["required arguments"]);
    usage(&["score", &model, "--max-pixels", "100000000"], &["required arguments"]);
    usage(&["classify", &model, "--choice", "a"], &["required arguments"]);
    usage(&["generate", &model, "--text"], &["--text"]);
    usage(&["generate"], &["required arguments"]);
    usage(&["classify", &model, "--text", "a"], &["required arguments"]);
    usage(&["convert", "--output", "x"], &["required arguments"]);
    usage(&["batch", &model, "--input", "x"], &["required arguments"]);
    usage(&["bench"], &["required arguments"]);
    usage(&["bench", &model, "--demo"], &["cannot be used with"]);
    usage(&["bench", "--demo", "--requests", "0"], &["'0'", "--requests"]);
    usage(&["bench", "--demo", "--max-sequences", "few"], &["'few'", "--max-sequences"]);
    usage(&["conjure"], &["conjure"]);
    usage(&["inspect"], &["required arguments"]);
    usage(&["inspect", &model, "-m", &model], &["cannot be used with"]);
    usage(&["bench", "--demo", "-m", &model], &["cannot be used with"]);
    usage(&["eval", "--demo", "--output", "x", "--nltk", "y"], &["--demo", "cannot be used with"]);
}

/// Values that no parser alone can tell from good ones.
#[test]
fn settings_out_of_range() {
    let (long, many) = ("x".repeat(5000), ["--stop", "x"].repeat(65));
    let table: [(&str, &[&str], &str); 31] = [
        ("generate", &["--num-beams", "0"], "num-beams: expected 1 to 64, found 0"),
        ("generate", &["--num-beams", "1000"], "num-beams: expected 1 to 64, found 1000"),
        ("generate", &["--num-beams", "4", "--temperature", "1"], "num-beams: expected 1 with temperature"),
        ("generate", &["--temperature=-1"], "temperature: expected a number of 0 or more, found -1"),
        ("generate", &["--temperature", "NaN"], "temperature: expected a number of 0 or more, found NaN"),
        ("generate", &["--temperature", "inf"], "temperature: expected a number of 0 or more, found inf"),
        ("generate", &["--top-p", "0"], "top-p: expected a number above 0 and at most 1, found 0"),
        ("generate", &["--top-p", "2"], "top-p: expected a number above 0 and at most 1, found 2"),
        ("generate", &["--top-p", "NaN"], "top-p: expected a number above 0 and at most 1, found NaN"),
        ("generate", &["--min-p", "1.5"], "min-p: expected a number from 0 to 1, found 1.5"),
        ("generate", &["--min-p=-0.5"], "min-p: expected a number from 0 to 1, found -0.5"),
        ("generate", &["--no-repeat-ngram-size", "1025"], "no-repeat-ngram-size: expected 0 to 1024, found 1025"),
        ("generate", &["--repetition-penalty", "0"], "repetition-penalty: expected a number above 0, found 0"),
        ("generate", &["--length-penalty", "NaN"], "length-penalty: expected a number from -5 to 5, found NaN"),
        ("generate", &["--stop", ""], "stop: expected a text, found an empty one"),
        ("generate", &["--length-penalty", "1e38"], "length-penalty: expected a number from -5 to 5, found 1"),
        ("generate", &["--stop", &long], "bytes of all stop texts: 5000 is over the limit of 4096"),
        ("generate", &many, "stop texts: 65 is over the limit of 64"),
        ("generate", &["--length-penalty=-inf"], "length-penalty: expected a number from -5 to 5, found -inf"),
        ("generate", &["--temperature", "1e39"], "temperature: expected a number of 0 or more, found inf"),
        ("generate", &["--video", "a", "--fps", "0"], "frames a second of a video: expected a number from 0.001"),
        ("generate", &["--video", "a", "--fps", "NaN"], "frames a second of a video: expected a number from 0.001"),
        ("score", &["--video", "a", "--frames", "0"], "frames of a video: expected a number from 1"),
        ("score", &["--frames", "3"], "required arguments"),
        ("score", &["--fps", "3"], "required arguments"),
        ("classify", &["--choice", ""], "--choice"),
        ("classify", &["--choice", "a", "--threads", "1025"], "threads: 1025 is over the limit of 1024"),
        ("score", &["--threads", "1000000"], "threads: 1000000 is over the limit of 1024"),
        ("generate", &["--threads", "100000"], "threads: 100000 is over the limit of 1024"),
        ("generate", &["--repetition-penalty", "inf"], "repetition-penalty: expected a number above 0, found inf"),
        ("score", &["--logits", ""], "--logits"),
    ];
    for (command, arguments, mention) in table {
        // It is told before anything is opened.
        usage(&[&[command, "nowhere", "--text", "a"], arguments].concat(), &[mention]);
    }
    let beside = ["score", "nowhere", "--prompt", "a", "--frames", "3"];
    usage(&beside, &["cannot be used with"]);
    usage(&["demo", "--alphabet", "klingon"], &["'klingon'", "--alphabet"]);
    usage(&["eval", "nowhere", "--benchmark", "mme", "--data", "x", "--output", "y"], &["'mme'", "--benchmark"]);
    usage(&["eval", "--demo", "--output", "y", "--fps", "0"], &["frames a second of a video"]);
    usage(&["convert", "--cross-attn-every", "0"], &["--cross-attn-every"]);
    usage(&["convert", "--media-mask", "next"], &["media-mask: expected preceding or following, found \"next\""]);
    usage(&["convert", "--model", "x", "--checkpoint", "y", "-o", "z"], &["--model", "cannot be used with"]);
    usage(&["convert", "--tokenizer", "x", "-o", "z"], &["required arguments"]);
    let batch = ["batch", "nowhere", "--input", "x", "--output", "y"];
    usage(&[&batch[..], &["--max-sequences", "0"]].concat(), &["max-sequences: expected 1 to 1024, found 0"]);
    usage(&[&batch[..], &["--threads", "2000"]].concat(), &["threads: 2000 is over the limit"]);
}

/// Every flag of every command that takes a number, with what is none or far too large: usage, before anything is
/// opened.
#[test]
fn no_number_is_taken_for_another() {
    const COMMANDS: [&[&str]; 7] = [
        &["generate", "nowhere", "--text", "a"],
        &["score", "nowhere", "--text", "a"],
        &["classify", "nowhere", "--text", "a", "--choice", "b"],
        &["batch", "nowhere", "--input", "nowhere", "--output", "/nowhere/x"],
        &["bench", "nowhere"],
        &["eval", "nowhere", "--benchmark", "jsonl", "--data", "nowhere", "--output", "/nowhere/x"],
        &["convert", "--checkpoint", "x", "--language-model", "x", "--vision-model", "x", "--output", "/nowhere/x"],
    ];
    const VALUES: &str = "|-1|NaN|nan|inf|1e400|99999999999999999999999|0x10|1;5|abc| 1|0";
    let mut tried = 0;
    for command in COMMANDS {
        for flag in number_flags(command[0]) {
            let video: &[&str] = match (flag.as_str(), command[0]) {
                ("--fps" | "--frames", "generate" | "score" | "classify") => &["--video", "nowhere"],
                _ => &[],
            };
            for value in VALUES.split('|').filter(|value| !serves(&flag, value)) {
                // Without a sign between them a negative number would be a flag.
                let given = format!("{flag}={value}");
                usage(&[command, video, &[&given]].concat(), &[]);
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "{tried}");
}

/// The flags of a command that take neither a path nor a text.
fn number_flags(command: &str) -> Vec<String> {
    const OTHERS: &str = "prompt text image video stop choice logits input output model data media support support-media \
                          split support-split template nltk checkpoint language-model vision-model adapter tokenizer \
                          media-mask";
    let help = String::from_utf8(run(&[command, "--help"], command).stdout).unwrap();
    let flags = help.lines().filter_map(|line| line.trim_start().split_once(" <")?.0.split(", ").last());
    let flags =
        flags.filter(|flag| flag.strip_prefix("--").is_some_and(|name| !OTHERS.split(' ').any(|other| other == name)));
    flags.map(str::to_owned).collect()
}

/// Whether a value that most flags cannot have is one of this flag's.
fn serves(flag: &str, value: &str) -> bool {
    let flags = match value {
        "0" => {
            "--temperature --top-k --min-p --seed --threads --max-new-tokens --length-penalty --shots --support-max \
             --samples --no-repeat-ngram-size"
        }
        "-1" => "--length-penalty",
        "99999999999999999999999" => "--temperature --repetition-penalty",
        _ => "",
    };
    flags.split(' ').any(|other| other == flag)
}

#[test]
fn texts_and_places_that_do_not_serve() {
    let folder = Folder::new();
    let table: [(&str, &[&str], &str); 3] = [
        ("classify", &["--choice", "b", "--choice", "<image>"], "image markers, found \"<image>\""),
        ("classify", &["--choice", "<fake_token_around_image>"], "choice: expected a text without image markers"),
        ("score", &["--logits", "/nowhere/logits.safetensors"], "/nowhere/logits.safetensors"),
    ];
    for (command, arguments, mention) in table {
        let case = format!("{command} {}", arguments.join(" "));
        refused(&[&[command, &text(&folder.model()), "--text", "a"], arguments].concat(), &case, &[mention]);
    }
}

/// Settings at the edge of what is allowed must not end in a panic either.
#[test]
fn settings_at_the_edge() {
    let folder = Folder::new();
    let model = text(&folder.model());
    let table: [&[&str]; 10] = [
        &["--temperature", "1e-45", "--min-p", "0.1"],
        &["--temperature", "1e-45", "--top-k", "3", "--top-p", "0.5"],
        &["--temperature", "1", "--repetition-penalty", "1e-45", "--min-p", "0.1"],
        &["--temperature", "3e38", "--repetition-penalty", "3e38", "--top-p", "1e-45", "--min-p", "1"],
        &["--temperature", "1", "--top-k", "18446744073709551615", "--seed", "18446744073709551615"],
        &["--max-new-tokens", "0"],
        &["--max-new-tokens", "0", "--num-beams", "64"],
        &["--num-beams", "64", "--length-penalty", "5"],
        &["--num-beams", "64", "--length-penalty=-5"],
        &["--max-new-tokens", "18446744073709551615", "--ignore-eos"],
    ];
    for arguments in table {
        let case = arguments.join(" ");
        let output = run(
            &[&["generate", &model, "--text", "a", "--max-new-tokens", "4"][..2], &["--text", "a"], arguments].concat(),
            &case,
        );
        assert_eq!(output.status.code(), Some(0), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn model_folders() {
    let folder = Folder::new();
    folder.make_folder("../empty");
    folder.write("../file", "weights");
    let table = [
        ("none", "none: No such file"),
        ("empty", "empty: weights: expected one of model.safetensors,"),
        ("file", "file: "),
        ("a\nb", "No such file"),
        ("file/under", "file/under: "),
    ];
    let commands: [&[&str]; 4] = [
        &["generate", "--text", "a"],
        &["score", "--text", "a"],
        &["classify", "--choice", "a", "--text", "a"],
        &["inspect"],
    ];
    for (name, mention) in table {
        let path = text(&folder.model().with_file_name(name));
        for command in commands {
            refused(&[&command[..1], &[&path], &command[1..]].concat(), name, &[mention]);
        }
    }
}

/// A table of logits is written whole or not at all.
#[test]
fn a_score_that_fails_leaves_nothing_behind() {
    let folder = Folder::new();
    let logits = text(&folder.model().with_file_name("logits"));
    let long = "a".repeat(5000);
    let mention = "tokens of a sequence: 5001 is over the limit of 2048";
    refused(&["score", &text(&folder.model()), "--text", &long, "--logits", &logits], "too long", &[mention]);
    folder.make_folder("../logits");
    let link = text(&folder.model().with_file_name("link"));
    std::os::unix::fs::symlink("link", &link).unwrap();
    refused(&["score", &text(&folder.model()), "--text", "a", "--logits", &link], "a link to itself", &["link: "]);
    std::fs::remove_file(link).unwrap();
    refused(&["score", &text(&folder.model()), "--text", "a", "--logits", &logits], "a folder", &["logits: "]);
    let left = std::fs::read_dir(folder.model().parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.filter(|name| name != "model" && name != "logits").count() == 0, "a partial file was left");
}

#[test]
fn conversions() {
    let folder = Folder::new();
    folder.make_folder("../full");
    folder.write("../full/kept", "");
    folder.write("../text", "weights");
    // A whole archive of torch, whose pickle would run a command: "cos\nsystem".
    folder.write("../hostile", zip("archive/data.pkl", b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."));
    let at = |name: &str| text(&folder.model().with_file_name(name));
    let weights = text(&folder.path("model.safetensors"));
    let (none, hostile, words) = (at("none"), at("hostile"), at("text"));
    // checkpoint, language model, vision model, further arguments, mention.
    let table: [(&str, &str, &str, &[&str], &str); 8] = [
        (&none, &none, &none, &[], "none: No such file"),
        (&words, &none, &none, &[], "text: first bytes: expected a safetensors file or a PyTorch archive"),
        (&hostile, &none, &none, &[], "os.system"),
        (&weights, &none, &none, &[], "none"),
        (&weights, &at("full"), &none, &[], "full"),
        (&weights, &at("model"), &none, &[], "model_type: expected"),
        (&weights, &at("model"), &words, &[], "expected"),
        (&weights, &at("model"), &hostile, &[], "expected"),
    ];
    for (checkpoint, language, vision, further, mention) in table {
        let output = at("output");
        let arguments = ["convert", "--checkpoint", checkpoint, "--language-model", language, "--vision-model", vision];
        let case = format!("{checkpoint} {language} {vision}");
        refused(&[&arguments[..], &["--output", &output], further].concat(), &case, &[mention]);
        assert!(!std::path::Path::new(&output).exists(), "{case}: left something behind");
    }
}

/// A zip file of one stored entry.
fn zip(name: &str, content: &[u8]) -> Vec<u8> {
    let (length, name_length) = ((content.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
    let fields = [&[20, 0, 0, 0, 0, 0][..], &[0; 8], &length, &length, &name_length, &[0; 2]].concat();
    let local = [&b"PK\x03\x04"[..], &fields, name.as_bytes(), content].concat();
    let directory = [&b"PK\x01\x02\0\0"[..], &fields, &[0; 14], name.as_bytes()].concat();
    let (start, size) = ((local.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    [&local[..], &directory, b"PK\x05\x06\0\0\0\0\x01\0\x01\0", &size, &start, &[0; 2]].concat()
}

#[test]
fn limits_out_of_range() {
    let table: [(&[&str], &str); 8] = [
        (&["--max-sequences", "0"], "max-sequences: expected 1 to 1024, found 0"),
        (&["--max-sequences", "5000"], "max-sequences: expected 1 to 1024, found 5000"),
        (&["--max-batched-tokens", "0"], "max-batched-tokens: expected 1 to 8192, found 0"),
        (&["--max-batched-images", "65"], "max-batched-images: expected 1 to 64, found 65"),
        (&["--text-pages", "0"], "text-pages: expected 1 to"),
        (&["--text-pages", "300000000"], "text-pages: expected 1 to 268435456"),
        (&["--media-pages", "0"], "media-pages: expected 1 to"),
        (&["--media-pages", "300000000"], "media-pages: expected 1 to 268435456"),
    ];
    for (arguments, mention) in table {
        usage(&[&["bench", "--demo", "--requests", "1"], arguments].concat(), &[mention]);
    }
    // What depends on the model is told by the model.
    let bench = ["bench", "--demo", "--requests", "1"];
    refused(&[&bench[..], &["--text-pages", "3"]].concat(), "text pages", &["text-pages: expected 129 to"]);
    let long = ["--shots", "255", "--prompt-tokens", "100"];
    refused(&[&bench[..], &long].concat(), "long prompts", &["tokens of a sequence"]);
}

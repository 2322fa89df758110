//! Standard streams that are closed or full, and what a terminal gets.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::json;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");

/// Runs the program in a shell, which can close streams: exit code, standard output, standard error.
fn shell(line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" {line}"), env!("CARGO_BIN_EXE_flamant")]).env("MODEL", DEMO);
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Commands that write results to standard output.
const WRITERS: [&str; 10] = [
    "generate \"$MODEL\" --text kep. --max-new-tokens 2",
    "generate \"$MODEL\" --text kep. --max-new-tokens 2 --json",
    "score \"$MODEL\" --text kep.",
    "score \"$MODEL\" --text kep. --json",
    "classify \"$MODEL\" --text kep. --choice mul.",
    "inspect \"$MODEL\"",
    "devices --json",
    "demo --prompts 0",
    "--help",
    "--version",
];

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    for command in WRITERS {
        for (to, reason) in [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")] {
            let (code, _, told) = shell(&format!("{command} {to}"));
            assert_eq!((code, told.lines().count()), (Some(1), 1), "{command} {to}: {told}");
            assert!(told.starts_with(&format!("flamant: standard output: {reason}")), "{command} {to}: {told}");
        }
    }
}

#[test]
fn an_input_that_is_closed_is_not_an_empty_one() {
    for command in ["score \"$MODEL\" --prompt -", "batch \"$MODEL\" --input - --output -"] {
        let (code, written, told) = shell(&format!("{command} <&-"));
        assert_eq!((code, written.as_str()), (Some(1), ""), "{command}: {told}");
        assert!(told.starts_with("flamant: standard input: Bad file descriptor"), "{command}: {told}");
    }
}

/// What nobody hears is lost; what was asked for is done, and the exit code says so.
#[test]
fn notes_that_cannot_be_told_stop_nothing() {
    for to in ["2>&-", "2>/dev/full"] {
        let (code, written, _) = shell(&format!("score \"$MODEL\" --device auto --text kep. --json {to}"));
        assert!(code == Some(0) && written.starts_with('{'), "{to}: {code:?} {written}");
        let (code, written, _) = shell(&format!("score nowhere --text kep. {to}"));
        assert_eq!((code, written.as_str()), (Some(1), ""), "{to}");
        assert_eq!(shell(&format!("score {to}")).0, Some(2), "{to}");
    }
}

/// Of both sets of control characters, in names of files, ids, and what the parser of arguments quotes.
#[test]
fn a_terminal_gets_no_control_characters_of_any_kind() {
    const PTY: &str = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let folder = tempfile::tempdir().unwrap();
    let on_terminal = |arguments: &[&str]| -> String {
        let mut command = Command::new("python3");
        command.args(["-c", PTY, env!("CARGO_BIN_EXE_flamant")]).args(arguments).stdin(Stdio::null());
        String::from_utf8(command.current_dir(folder.path()).output().expect("python3 is there").stdout).unwrap()
    };
    let harm = "\u{9b}31m\u{7f}\u{1b}]0;";
    let request = json!({"id": harm, "prompt": [{"text": "kep."}], "task": "score"});
    fs::write(folder.path().join("in.jsonl"), request.to_string()).unwrap();
    fs::write(folder.path().join(format!("{harm}.json")), "{}").unwrap();
    let names = format!("{harm}.json");
    let commands: [&[&str]; 5] = [
        &["batch", DEMO, "--input", "in.jsonl", "--output", "-"],
        &["score", DEMO, "--prompt", &names],
        &["score", DEMO, "--image", harm, "--text", "a"],
        &[harm],
        &["generate", DEMO, "--text", "a", "--seed", harm],
    ];
    for arguments in commands {
        let shown = on_terminal(arguments);
        let is_raw = |character: char| character.is_control() && !matches!(character, '\r' | '\n' | '\t');
        assert!(!shown.contains(is_raw), "{arguments:?}: {shown:?}");
        assert!(shown.contains("9b"), "{arguments:?}: {shown:?}");
    }
}

/// An empty variable is as if it were not set.
#[test]
fn empty_variables_are_not_set() {
    let variables = ["FLAMANT_DEVICE", "FLAMANT_DTYPE", "FLAMANT_THREADS", "FLAMANT_LOAD", "FLAMANT_FFMPEG"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
    command.args(["score", DEMO, "--text", "kep."]).envs(variables.map(|name| (name, "")));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let wrong = command.env("FLAMANT_LOAD", "slowly").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "one that is set is heeded");
}

//! Conversations: turns that come as lines, and a terminal.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images/sources/");
const SETTINGS: [&str; 4] = ["--max-new-tokens", "12", "--chat-template", "idefics"];

fn flamant(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// What is written in a conversation of these lines.
fn chat(settings: &[&str], lines: &str) -> String {
    let found = flamant(&[&["chat", DEMO], &SETTINGS[..], settings].concat(), lines.as_bytes());
    let told = String::from_utf8(found.stderr).unwrap();
    assert!(found.status.success() && told.is_empty(), "{lines}: {told}");
    String::from_utf8(found.stdout).unwrap()
}

/// The answer to a conversation as `generate` reads one.
fn generate(settings: &[&str], turns: &[(&str, Value)]) -> String {
    let turns: Vec<Value> = turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    let arguments = [&["generate", DEMO, "--chat", "--prompt", "-", "--json"], &SETTINGS[..], settings].concat();
    let found = flamant(&arguments, Value::from(turns).to_string().as_bytes());
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    serde_json::from_slice::<Value>(&found.stdout).unwrap()["text"].as_str().unwrap().to_owned()
}

fn image(name: &str) -> String {
    format!("{IMAGES}{name}")
}

#[test]
fn lines_are_the_turns_of_a_conversation() {
    let (a, b) = (image("grey1-64x64.png"), image("grey1-30x45.png"));
    for settings in [&["--system", "ka mu"][..], &["--temperature", "2", "--seed", "3"], &["--num-beams", "2"]] {
        let mut turns = vec![];
        // In a prompt file it is a turn.
        let told = settings[0] == "--system";
        let beside = if told { &[] } else { settings };
        turns.extend(told.then(|| ("system", json!("ka mu"))));
        turns.push(("user", json!([{"image": a}, {"text": "kep"}])));
        let first = generate(beside, &turns);
        turns.extend([("assistant", json!(first)), ("user", json!([{"image": b}, {"image": a}]))]);
        let second = generate(beside, &turns);
        turns.extend([("assistant", json!(second)), ("user", json!("/mul"))]);
        let third = generate(beside, &turns);
        // An empty line sends images alone, and is nothing else.
        let lines = format!("\n/image {a}\nkep\n/image {b}\n/image {a}\n\n\n//mul");
        assert_eq!(chat(settings, &lines), format!("{first}\n{second}\n{third}\n"), "{settings:?}");
    }
}

#[test]
fn turns_are_taken_back() {
    let alone = generate(&[], &[("user", json!("kep"))]);
    let told = generate(&[], &[("system", json!("ba")), ("user", json!("kep"))]);
    let after = generate(&[], &[("user", json!("kep")), ("assistant", json!(alone)), ("user", json!("mul"))]);
    let shown = image("grey1-64x64.png");
    let lines = "mul\n/undo\nkep\n\nmul\n/undo\nmul\n/reset\n/image IMAGE\n/reset\nkep\n/reset\n/system ba\nkep";
    let lines = lines.replace("IMAGE", &shown);
    let first = generate(&[], &[("user", json!("mul"))]);
    let want = format!("{first}\n{alone}\n{after}\n{after}\n{alone}\n{told}\n");
    assert_eq!(chat(&[], &lines), want);
    assert_eq!(chat(&[], "kep\n/quit\nmul\n"), format!("{alone}\n"));
    assert_eq!(chat(&[], "/system ba\n/system\nkep\n"), format!("{alone}\n"));
}

#[test]
fn what_a_script_says_wrongly_ends_it_in_a_line() {
    let long = "k".repeat((1 << 20) + 1);
    let cases: [(&[u8], &str); 8] = [
        (b"/imag x", "expected /image PATH, /system TEXT, /undo, /reset, /help or /quit, found \"/imag x\""),
        (b"/image", "expected /image PATH"),
        (b"/undo now", "expected /image PATH"),
        (b"/undo", "/undo: expected a turn to take back, found none"),
        (b"/image nowhere.png", "nowhere.png: No such file"),
        (b"\xff", "standard input: invalid utf-8"),
        (b"<end_of_utterance><image>", "image"),
        (long.as_bytes(), "bytes of a turn: 1048577 is over the limit of 1048576"),
    ];
    for (lines, mention) in cases {
        let found = flamant(&["chat", DEMO], lines);
        let told = String::from_utf8(found.stderr).unwrap();
        assert_eq!((found.status.code(), told.lines().count()), (Some(1), 1), "{mention}: {told}");
        assert!(told.contains(mention) && found.stdout.is_empty(), "{mention}: {told}");
    }
}

/// A person at a terminal: a word is typed, an answer without an end is stopped and kept, mistakes end nothing, and the
/// lines are there the next time.
#[test]
fn a_terminal_stops_answers_and_remembers_lines() {
    const PERSON: &str = r#"
import os, pty, select, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
def wait(holds):
    global shown
    end = time.time() + 60
    while not holds():
        assert time.time() < end, shown
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096)
def until(what, after):
    wait(lambda: what in shown[after:])
    return shown.index(what, after) + len(what)
def enter(line, place):
    os.write(terminal, line + b"\r")
    return until(b"\n", until(line, place))
# Keys before a prompt are the system's to edit, not the program's.
place = until(b"> ", 0)
place = enter(b"/undo", place)
place = until(b"> ", until(b"found none", place))
start = enter(b"kep", place)
wait(lambda: len(shown) >= start + 3)
os.write(terminal, b"\x03")
place = until(b"> ", start)
assert place - start < 200, shown
place = until(b"> ", enter(b"/undo", place))
os.write(terminal, b"\x03")
place = until(b"> ", until(b"Ctrl-D ends", place))
os.write(terminal, b"\x04")
try:
    wait(lambda: False)
except OSError:
    pass  # The program has closed its side.
assert shown.count(b"found none") == 1, shown
sys.exit(os.waitpid(pid, 0)[1] >> 8)
"#;
    let state = tempfile::tempdir().unwrap();
    let history = state.path().join("flamant/chat-history");
    // The same line twice in a row is kept once.
    for lines in [3, 5] {
        let mut person = Command::new("python3");
        person.args(["-c", PERSON, env!("CARGO_BIN_EXE_flamant"), "chat", "--demo", "--device", "emulated"]);
        // Slow enough to be stopped.
        person.args(["--chat-template", "raw", "--ignore-eos", "--max-new-tokens", "100000"]);
        let found = person.env("XDG_STATE_HOME", state.path()).env("TERM", "xterm").output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let kept = std::fs::read_to_string(&history).unwrap();
        assert_eq!(kept.lines().filter(|line| ["/undo", "kep"].contains(line)).count(), lines, "{kept}");
    }
}

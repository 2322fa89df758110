//! The examples run: those that can on the model in the program, the others on its folder and images from the tests.

use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What an example prints.
fn run(example: &str, arguments: &[&str]) -> String {
    // `cargo test` has built them, if it was not told to build this test alone; then this does.
    let mut cargo = Command::new(env!("CARGO"));
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    cargo.current_dir(ROOT).args(["run", "--quiet", "--profile", profile, "--example", example]);
    let output = cargo.arg("--").args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn examples_do_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("images")).unwrap();
    for name in ["palette.gif", "rgb8-turned.png"] {
        std::fs::copy(format!("{ROOT}/tests/data/images/sources/{name}"), path(&format!("images/{name}"))).unwrap();
    }
    std::fs::write(path("images/notes.txt"), "no image").unwrap();
    let model = format!("{ROOT}/models/demo");

    let captions = run("caption", &[&model, &path("images")]);
    assert_eq!(captions.lines().count(), 2, "{captions}");
    assert!(captions.contains("palette.gif:") && captions.contains("rgb8-turned.png:"), "{captions}");

    let ranked = run("classify", &[]);
    let right = ranked.lines().next().unwrap().rsplit(' ').next().unwrap();
    assert!(ranked.lines().nth(1).unwrap().ends_with(&format!(" {right}.")), "{ranked}");

    let answers = run("few_shot", &[]);
    for line in answers.lines().take(4) {
        let (question, answer) = line.split_once("?: ").unwrap();
        assert_eq!(question.strip_prefix("is it "), Some(answer), "{answers}");
    }
    // Eight shots are encoded once; the first request may be read alone.
    assert!(answers.lines().last().unwrap().contains("12 images encoded, 24 found"), "{answers}");

    let streamed = run("stream", &[]);
    assert!(streamed.contains(" tokens, "), "{streamed}");

    let scheduled = run("scheduler", &[]);
    assert!(scheduled.contains("7 answered, 1 cancelled; pages held now: 0"), "{scheduled}");

    // Started again, what was answered stands, and what had an error is asked again.
    let output = path("output");
    let done = run("batch", &[&output]);
    assert!(done.contains("3 answered now, 1 of them with an error\n48 questions answered now\n"), "{done}");
    let again = run("batch", &[&output]);
    assert!(again.contains("2 of Some(3) requests were answered before\n1 answered now, 1 of them"), "{again}");
    assert!(again.contains("\n0 questions answered now\n"), "{again}");
    let scores = |told: &str| told.lines().filter(|line| line.ends_with('%')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((scores(&again), scores(&again).len()), (scores(&done), 3), "{again}");
    let answers = std::fs::read_to_string(format!("{output}/answers.jsonl")).unwrap();
    assert!(answers.contains(r#""id":"third","#) && answers.contains(r#""kind":"file""#), "{answers}");
    assert!(std::fs::exists(format!("{output}/evaluation/index.html")).unwrap());
}

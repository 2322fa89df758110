//! What the tree promises: who imports whom, where `unsafe` may stand, how long lines and files are, what opens a file.

use std::path::{Path, PathBuf};

/// Modules from the ground up. A module may use what stands on a lower step, and others of its own step where noted.
const STEPS: &[&[&str]] = &[
    &["error"],
    &["checkpoint"],
    &["config", "image", "kv", "sample"],
    &["weights", "tokenizer", "search", "preprocessor", "video"],
    &["graph", "prompt"],
    // These two never meet: models know no device, devices know no model.
    &["model", "backend"],
    &["executor", "inspect"],
    &["engine"],
    &["async_engine", "flamingo", "demo", "convert", "probe", "ffi"],
    &["eval"],
    &["lib", "main", "cli"],
];

/// Uses within a step: the model in the box is opened like any other, and its task is played on an open model.
const BESIDE: &[(&str, &str)] = &[("demo", "flamingo"), ("engine", "demo")];

/// Files that may hold `unsafe`, each block with its reason.
const UNSAFE: &[&str] = &[
    "src/backend/kernels/cuda/context.rs",
    "src/backend/kernels/cuda/functions.rs",
    "src/backend/kernels/cuda/mod.rs",
    "src/backend/kernels/cuda/tests.rs",
    "src/backend/kernels/emulated.rs",
    "src/checkpoint/mod.rs",
    "src/ffi/memory.rs",
    "src/ffi/mod.rs",
    "src/ffi/show.rs",
    "src/ffi/tests.rs",
    "tests/allocations.rs",
];

const LINE_MAX: usize = 120;
const FILE_LINES_MAX: usize = 1000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files below a folder, relative to the root.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|suffix| suffix == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// Sources of kernels, of the emulator and of the interpreter, and all that is for C, C++ and Python.
fn other_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let folders = ["kernels", "kernels/interpreter", "include", "examples/c", "examples/python", "tests/capi"];
    for folder in folders.map(Path::new) {
        let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let before = files.len();
        files.extend(entries.filter(|path| path.is_file()).map(|path| folder.join(path.file_name().unwrap())));
        assert!(files.len() > before);
    }
    files
}

/// "src/backend/cpu/mod.rs" to "backend".
fn module(file: &Path) -> String {
    let first = file.components().nth(1).unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn step(module: &str) -> usize {
    STEPS.iter().position(|step| step.contains(&module)).unwrap_or_else(|| panic!("no step for the module {module}"))
}

#[test]
fn no_module_uses_what_stands_above_it() {
    for file in rust_files("src").into_iter().filter(|file| !file.ends_with("tests.rs")) {
        let user = module(&file);
        let text = text(&file);
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for used in code.match_indices("crate::").map(|(at, _)| &code[at + "crate::".len()..]) {
            let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            // Names of the crate's root, such as a re-exported type, begin with a capital.
            if used.is_empty() || used == user {
                continue;
            }
            let beside = BESIDE.contains(&(user.as_str(), used.as_str()));
            assert!(step(&used) < step(&user) || beside, "{}: {user} may not use {used}", file.display());
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_may_and_says_why() {
    for file in ["src", "tests", "benches", "examples"].into_iter().flat_map(rust_files) {
        let text = text(&file);
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            if !code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
                || code.contains('"')
            {
                continue;
            }
            let place = format!("{}:{}", file.display(), number + 1);
            assert!(UNSAFE.contains(&file.to_str().unwrap()), "{place}: unsafe code");
            let before: Vec<&str> = text.lines().take(number).collect();
            let comment = before.iter().rev().take_while(|line| line.trim_start().starts_with("//"));
            assert!(comment.into_iter().any(|line| line.contains("SAFETY:")), "{place}: no reason");
        }
    }
}

#[test]
fn lines_and_files_have_a_length_one_can_read() {
    let rust = ["src", "tests", "benches", "examples", "build"].into_iter().flat_map(rust_files);
    for file in rust.chain(other_files()) {
        let text = text(&file);
        assert!(text.lines().count() <= FILE_LINES_MAX, "{}: more than {FILE_LINES_MAX} lines", file.display());
        for (number, line) in text.lines().enumerate() {
            // A literal that cannot be broken may be longer.
            let long = line.chars().count() > LINE_MAX && !line.contains('"');
            assert!(!long, "{}:{}: more than {LINE_MAX} characters", file.display(), number + 1);
        }
    }
}

#[test]
fn files_open_with_what_they_are() {
    for file in ["src", "tests", "benches", "examples"].into_iter().flat_map(rust_files) {
        assert!(text(&file).starts_with("//!"), "{}: no words on what it is", file.display());
    }
    for file in other_files() {
        let opens = ["//", "/*", "\"\"\""].iter().any(|comment| text(&file).starts_with(comment));
        assert!(opens, "{}: no words on what it is", file.display());
    }
}

//! What the tree promises: who imports whom, where `unsafe` may stand, how long lines, functions and files are, what
//! opens a file.

mod licences;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use tree::{Tree, circles};

/// Modules from the ground up. A module may use what stands on a lower step.
const STEPS: &[&[&str]] = &[
    &["error"],
    &["files", "parse", "setters", "trace"],
    &["checkpoint", "graph"],
    &["hub", "model::config", "image", "kv", "sample", "weights"],
    &["family", "search", "video"],
    &["tokenizer", "preprocessor"],
    &["prompt", "generation_config"],
    &["chat"],
    // These two never meet: models know no device, devices know no model.
    &["model", "backend"],
    &["executor", "inspect"],
    &["engine"],
    &["async_engine", "flamingo", "convert", "probe", "ffi"],
    &["demo", "batch", "quantize"],
    &["eval"],
    &["serve"],
    &["lib", "main", "cli"],
];

/// Files that may hold `unsafe`, each use with its reason.
const UNSAFE: &[&str] = &[
    "src/backend/cpu/machine/x86.rs",
    "src/backend/gpu/cuda/context.rs",
    "src/backend/gpu/cuda/functions.rs",
    "src/backend/gpu/cuda/mod.rs",
    "src/backend/gpu/cuda/tests.rs",
    "src/backend/gpu/emulated.rs",
    "src/checkpoint/mapped.rs",
    "src/cli/cut.rs",
    "src/cli/streams.rs",
    "src/ffi/memory.rs",
    "src/ffi/mod.rs",
    "src/ffi/show.rs",
    "src/ffi/tests.rs",
    "src/image/jpeg.rs",
    "tests/allocations.rs",
];

/// Functions that are longer than they should be, and how long they are: they may only shrink.
const LONG: &[(&str, &str, usize)] = &[
    ("benches/synthetic.rs", "tensors", 91),
    ("src/backend/gpu/memory.rs", "open", 85),
    ("src/cli/demo.rs", "measure", 76),
    ("src/engine/scheduler/tests.rs", "play", 82),
    ("tests/cli/bad_input/files.rs", "tokenizers", 78),
    ("tests/cli/bad_input/files.rs", "weights", 150),
    ("tests/formats/checkpoint/convert.rs", "parts_that_do_not_fit", 338),
    ("tests/formats/checkpoint/hostile.rs", "pickles_that_lie", 105),
    ("tests/formats/checkpoint/hostile.rs", "safetensors_that_lie", 122),
    ("tests/formats/checkpoint/hostile.rs", "tensors_that_lie", 77),
    ("tests/formats/checkpoint/hostile.rs", "zip_files_that_lie", 108),
    ("tests/eval/trouble.rs", "an_output_of_something_else_is_left_alone", 71),
    ("tests/eval/trouble.rs", "what_makes_no_sense_is_refused_and_leaves_nothing_behind", 83),
    ("tests/soak.rs", "nothing_is_lost_repeated_or_changed_under_random_load", 85),
];

const LINE_MAX: usize = 120;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 1000;
/// A family is a file that one reads at a sitting.
const FAMILY_LINES_MAX: usize = 300;

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

/// A path as code writes it.
fn joined(path: &[String]) -> String {
    path.join("::")
}

/// What of a module's path has a step: its first name, or two of them where the second has a step of its own.
fn unit(path: &[String]) -> String {
    let two = joined(&path[..path.len().min(2)]);
    if STEPS.iter().any(|step| step.contains(&two.as_str())) { two } else { path[0].clone() }
}

fn step(module: &str) -> usize {
    STEPS.iter().position(|step| step.contains(&module)).unwrap_or_else(|| panic!("no step for the module {module}"))
}

#[test]
fn every_file_belongs_to_a_module() {
    let mut reached: BTreeSet<PathBuf> = BTreeSet::from(["src/main.rs".into()]);
    for crate_root in ["src/lib.rs", "src/main.rs"] {
        reached.extend(Tree::read(root(), crate_root).modules.into_values().map(|module| module.file));
    }
    let is_test = |file: &Path| {
        file.components().any(|part| ["tests", "tests.rs"].map(AsRef::as_ref).contains(&part.as_os_str()))
    };
    let lost: Vec<PathBuf> =
        rust_files("src").into_iter().filter(|file| !is_test(file) && !reached.contains(file)).collect();
    assert!(lost.is_empty(), "no module has {lost:?}");
}

#[test]
fn no_module_uses_what_stands_above_it() {
    let tree = Tree::read(root(), "src/lib.rs");
    for (path, module) in tree.modules.iter().filter(|(path, _)| !path.is_empty()) {
        let user = unit(path);
        let used = tree.used_by(path).into_iter().filter(|used| !used.is_empty()).map(|used| unit(&used));
        for used in used.filter(|used| *used != user) {
            assert!(step(&used) < step(&user), "{}: {user} may not use {used}", module.file.display());
        }
    }
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    for crate_root in ["src/lib.rs", "src/main.rs"] {
        let found = circles(&Tree::read(root(), crate_root).siblings());
        assert!(found.is_empty(), "circles of modules: {found:?}");
    }
}

/// Lines of the word `unsafe` in code, but for types of functions, which do nothing.
fn unsafe_lines(tokens: TokenStream, lines: &mut Vec<usize>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => unsafe_lines(group.stream(), lines),
            TokenTree::Ident(ident) if ident == "unsafe" => {
                // unsafe extern "C" fn(...)
                let is_type = match &tokens[at + 1..] {
                    [_, _, TokenTree::Ident(function), TokenTree::Group(_), ..] => function == "fn",
                    _ => false,
                };
                lines.extend((!is_type).then(|| ident.span().start().line));
            }
            _ => {}
        }
    }
}

/// The compiler denies `unsafe` but where a file allows it, which reaches the modules below: each file asks for itself.
#[test]
fn unsafe_stands_only_in_files_that_ask_for_it_and_says_why() {
    let mut asking = BTreeSet::new();
    for file in ["src", "tests", "benches", "examples", "build"].into_iter().flat_map(rust_files) {
        let text = text(&file);
        let mut found = Vec::new();
        unsafe_lines(text.parse().unwrap(), &mut found);
        let asks = text.lines().any(|line| line == "#![allow(unsafe_code)]");
        assert_eq!(asks, !found.is_empty(), "{}: asks for unsafe code, or has it, and not both", file.display());
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for number in found {
            // Up to where the statement begins, and then up its comment.
            let above = lines[..number - 1].iter().rev();
            let above = above.skip_while(|line| !line.starts_with("//") && !line.ends_with([';', '{', '}']));
            let mut comment = above.take_while(|line| line.starts_with("//"));
            assert!(comment.any(|line| line.contains("SAFETY:")), "{}:{number}: no reason", file.display());
        }
        if asks {
            asking.insert(file);
        }
    }
    assert_eq!(asking, UNSAFE.iter().map(PathBuf::from).collect(), "files with unsafe code, and those that may");
}

/// How many lines functions have, by name.
#[derive(Default)]
struct Lengths(BTreeMap<String, usize>);

impl Lengths {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (signature.fn_token.span.start(), block.brace_token.span.close().end());
        let length = self.0.entry(signature.ident.to_string()).or_default();
        *length = (last.line - first.line + 1).max(*length);
    }
}

impl<'a> Visit<'a> for Lengths {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn functions_have_a_length_one_can_read() {
    let mut wrong = Vec::new();
    let mut known: BTreeSet<_> = LONG.iter().collect();
    for file in ["src", "tests", "benches", "examples", "build"].into_iter().flat_map(rust_files) {
        let mut lengths = Lengths::default();
        lengths.visit_file(&syn::parse_file(&text(&file)).unwrap());
        for (name, length) in lengths.0.into_iter().filter(|(_, length)| *length > FUNCTION_LINES_MAX) {
            let exception = LONG.iter().find(|(place, long, _)| Path::new(place) == file && *long == name);
            let most = exception.map_or(FUNCTION_LINES_MAX, |(.., most)| *most);
            exception.map(|exception| known.remove(exception));
            if length > most {
                wrong.push(format!("{}: {name} has {length} lines, {most} at most", file.display()));
            }
        }
    }
    wrong.extend(known.iter().map(|(file, name, _)| format!("{file}: {name} is no longer long: take it off the list")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lines_and_files_have_a_length_one_can_read() {
    let rust = ["src", "tests", "benches", "examples", "build"].into_iter().flat_map(rust_files);
    for file in rust.chain(other_files()) {
        let text = text(&file);
        let most = if file.starts_with("src/family") { FAMILY_LINES_MAX } else { FILE_LINES_MAX };
        assert!(text.lines().count() <= most, "{}: more than {most} lines", file.display());
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

/// Whose a model is, only its room asks, what joins sources of one family, and evaluations, whose templates are named
/// so.
#[test]
fn nothing_but_its_room_knows_a_family() {
    let rooms = ["src/family", "src/convert", "src/eval"];
    let elsewhere = rust_files("src").into_iter().filter(|file| !rooms.iter().any(|room| file.starts_with(room)));
    for file in elsewhere.filter(|file| !file.components().any(|part| part.as_os_str() == "tests.rs")) {
        let text = text(&file);
        let code = text.split("#[cfg(test)]").next().unwrap().lines().filter(|line| !line.trim().starts_with("//"));
        let named = code.filter(|line| {
            ["Idefics", "OpenFlamingo", "\"idefics\"", "\"open_flamingo\""].iter().any(|name| line.contains(name))
        });
        assert_eq!(named.collect::<Vec<_>>(), Vec::<&str>::new(), "{}", file.display());
    }
}

//! The C++ compiler for tests that build the kernels in other ways than build.rs does: same flags, kept by content.

#![allow(dead_code, reason = "each program that includes it uses a part")]

#[path = "../../../build/nvcc.rs"]
mod nvcc;
#[path = "../../../build/objects.rs"]
mod objects;
pub mod ptx;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As in build/emulator.rs, and with all warnings.
const FLAGS: &[&str] =
    &["-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas", "-pthread"];

/// What a call of the compiler makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An object of one source, for any kind of program.
    Object,
    /// A shared library of a source and objects.
    Library,
    /// A program of a source and objects.
    Program,
}

/// One call of the compiler.
pub struct Unit {
    kind: Kind,
    /// Unlike all others.
    name: String,
    source: PathBuf,
    arguments: Vec<OsString>,
}

/// The folder of the kernels.
pub fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// The `.cu` files, in the order of their names.
pub fn kernel_sources() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(kernels()).unwrap().map(|entry| entry.unwrap().path());
    let mut sources: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "cu")).collect();
    sources.sort();
    sources
}

impl Unit {
    /// `source`, compiled with the further `flags` and linked with `objects`. Headers are found beside it.
    pub fn new(kind: Kind, name: &str, source: &Path, flags: &[&str], objects: &[PathBuf]) -> Unit {
        let kind_flags: &[&str] = match kind {
            Kind::Object => &["-fPIC", "-c"],
            Kind::Library => &["-fPIC", "-shared"],
            Kind::Program => &[],
        };
        let flags = FLAGS.iter().chain(kind_flags).chain(flags).map(Into::into);
        // Names of objects tell their content; what follows them is C++ whatever its extension.
        let objects = objects.iter().map(|object| object.clone().into_os_string());
        let arguments = flags.chain(objects).chain(["-x", "c++"].map(Into::into)).collect();
        Unit { kind, name: name.to_owned(), source: source.to_owned(), arguments }
    }
}

/// The compiler: what `CXX` names, or the usual one.
pub fn program() -> OsString {
    env::var_os("CXX").filter(|name| !name.is_empty()).unwrap_or("c++".into())
}

/// Compiles side by side what has changed; the files made, in the order of the units.
pub fn compile(units: Vec<Unit>) -> Vec<PathBuf> {
    let program = program();
    let version = objects::run(Command::new(&program).arg("--version")).expect("a C++ compiler");
    let job = |unit: Unit| objects::Job {
        name: (unit.name, if unit.kind == Kind::Object { "o" } else { "out" }),
        source: unit.source,
        program: program.clone().into(),
        arguments: unit.arguments,
        version: version.clone(),
    };
    let made = run(&units.into_iter().map(job).collect::<Vec<_>>());
    made.into_iter()
        .map(|object| {
            eprint!("{}", object.messages);
            object.path
        })
        .collect()
}

fn run(jobs: &[objects::Job]) -> Vec<objects::Object> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("flamant-kernels");
    objects::compile(jobs, &folder).unwrap_or_else(|message| panic!("{message}"))
}

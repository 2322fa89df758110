//! The kernels compiled for the processor, against `kernels/emulator.h`.

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::objects::{self, Job};

/// Sums keep their order and products their rounding, as the sources have them; values are read as other types.
const FLAGS: [&str; 6] = ["-x", "c++", "-ffp-contract=off", "-fno-strict-aliasing", "-Wno-unknown-pragmas", "-pthread"];

/// Builds a static library of the emulator and all kernels, and has it linked.
///
/// # Errors
/// What the compiler says.
pub fn build(root: &Path, sources: &[PathBuf], kept: &Path, out: &Path) -> Result<(), String> {
    for name in ["CXX", "CXXFLAGS", "AR"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let missing = |error: &dyn Display| format!("the feature `emulated` needs a C++ compiler: {error}");
    let mut settings = cc::Build::new();
    settings.cpp(true).std("c++17").opt_level(2).debug(false).cargo_metadata(false).out_dir(out);
    let compiler = settings.try_get_compiler().map_err(|error| missing(&error))?;
    let command = compiler.to_command();
    let version = objects::run(compiler.to_command().arg("--version")).map_err(|error| missing(&error))?;

    let job = |source: &PathBuf| Job {
        name: (format!("{}-emulated", source.file_stem().unwrap_or_default().display()), "o"),
        source: source.clone(),
        program: command.get_program().into(),
        arguments: command.get_args().map(Into::into).chain(FLAGS.map(Into::into)).chain(["-c".into()]).collect(),
        version: version.clone(),
    };
    let emulator = root.join("kernels/emulator.cpp");
    let jobs: Vec<Job> = sources.iter().chain([&emulator]).map(job).collect();
    let objects = objects::compile(&jobs, kept)?;
    settings.objects(objects.iter().map(|object| &object.path));
    settings.try_compile("flamant_emulator").map_err(|error| error.to_string())?;

    println!("cargo::rustc-link-search=native={}", out.display());
    // Whole: kernels enter themselves in a table at start, and nothing else refers to them.
    println!("cargo::rustc-link-lib=static:+whole-archive=flamant_emulator");
    let apple = env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple");
    println!("cargo::rustc-link-lib={}", if apple { "c++" } else { "stdc++" });
    Ok(())
}

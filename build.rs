//! Compiles `src/image/jpeg.c`, and `kernels/*.cu`: with nvcc, where there is one, to images for GPUs that the library embeds; with a C++
//! compiler, if the feature `emulated` is on, to a static library that runs the same kernels on the processor.
//!
//! The library includes `OUT_DIR/arguments.rs`, which is `kernels/arguments.h` in Rust and `enum Kernel`, all kernels
//! that the sources declare; it is written with no compiler. And it includes `OUT_DIR/kernels.rs`: `MODULES`, a fat binary for each source (none without nvcc),
//! `ARCHITECTURES`, what they have code for, `RELEASE`, the compiler's own, and `REPORT`, what ptxas says of each kernel.
//! Settings: `NVCC`, `CUDA_HOME` and `CUDA_PATH` say where the compiler is, `FLAMANT_CUDA_ARCHITECTURES` for what it
//! compiles, and `FLAMANT_REQUIRE_KERNELS=1` makes its absence an error.

#[cfg(feature = "emulated")]
#[path = "build/emulator.rs"]
mod emulator;
#[path = "build/header.rs"]
mod header;
#[path = "build/jpeg.rs"]
mod jpeg;
#[path = "build/kernels.rs"]
mod kernels;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/objects.rs"]
mod objects;
#[path = "build/tokens.rs"]
mod tokens;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=kernels");
    let folder = |name| env::var_os(name).map(PathBuf::from).ok_or(format!("{name}: expected a folder, found nothing"));
    jpeg::build()?;
    let (root, out) = (folder("CARGO_MANIFEST_DIR")?, folder("OUT_DIR")?);
    let sources = sources(&root.join("kernels"))?;
    // Next to OUT_DIR, so that builds with other features find the same objects.
    let kept = out.ancestors().nth(2).unwrap_or(&out).join("flamant-objects");
    write_arguments(&root, &sources, &out)?;
    write_kernels(&root, &sources, &kept, &out)?;
    #[cfg(feature = "emulated")]
    emulator::build(&root, &sources, &kept, &out)?;
    Ok(())
}

/// The `.cu` files of a folder, in the order of their names.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut sources: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "cu")).collect();
    sources.sort();
    Ok(sources)
}

/// Writes `arguments.rs` with what kernels are told, and their names.
fn write_arguments(root: &Path, sources: &[PathBuf], out: &Path) -> Result<(), String> {
    let header = root.join("kernels/arguments.h");
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        Ok::<_, String>((name, text))
    };
    let (name, text) = read(&header)?;
    let header = header::Header::read(&name, &text)?;
    let sources = sources.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let text = header.write() + &kernels::write(&sources, &header)?;
    fs::write(out.join("arguments.rs"), text).map_err(|error| format!("arguments.rs: {error}"))
}

/// Writes `kernels.rs` with what nvcc makes of the sources.
fn write_kernels(root: &Path, sources: &[PathBuf], kept: &Path, out: &Path) -> Result<(), String> {
    let required = flag("FLAMANT_REQUIRE_KERNELS");
    let compiled = match nvcc::find(root)? {
        // Documentation needs no kernels, and its builders have no compiler for them.
        _ if flag("DOCS_RS") => nvcc::Compiled::default(),
        Some(nvcc) => nvcc.compile(sources, kept, out)?,
        None if required => return Err(format!("FLAMANT_REQUIRE_KERNELS is set, but {}", nvcc::MISSING)),
        None => {
            println!("cargo::warning=built without kernels for NVIDIA GPUs: {}", nvcc::MISSING);
            nvcc::Compiled::default()
        }
    };
    let mut text = String::from("/// Name of each source of kernels, and its fat binary.\n");
    text.push_str("pub const MODULES: &[(&str, &[u8])] = &[\n");
    for (name, path) in &compiled.modules {
        writeln!(text, "    ({name:?}, include_bytes!({path:?})),").expect("strings take all that is written");
    }
    text.push_str("];\n/// What they have code for: \"sm_90a\", or \"compute_80\" for PTX.\n");
    writeln!(text, "pub const ARCHITECTURES: &[&str] = &{:?};", compiled.architectures)
        .expect("strings take all that is written");
    text.push_str("/// The release of CUDA whose nvcc compiled them; 0.0 without one.\n");
    writeln!(text, "pub const RELEASE: (u32, u32) = {:?};", compiled.release)
        .expect("strings take all that is written");
    text.push_str("/// Of each kernel and architecture: registers, bytes of spills, stack and static shared memory.\n");
    writeln!(text, "pub const REPORT: &str = {:?};", compiled.report).expect("strings take all that is written");
    fs::write(out.join("kernels.rs"), text).map_err(|error| format!("kernels.rs: {error}"))
}

/// Whether a setting of the environment is on.
fn flag(name: &str) -> bool {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}

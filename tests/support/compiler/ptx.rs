//! The compiled side: PTX that nvcc makes of the kernels, and libraries of the interpreter that run it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Kind, Unit, compile, kernel_sources, kernels, nvcc, objects, run};
use crate::support::absent::without_nvcc;

/// Architectures whose PTX is run: what is compiled for older cards, and for Hopper.
pub const ARCHITECTURES: [&str; 2] = ["80", "90a"];

/// NVIDIA's compiler; without one, says so on the standard error, or fails if it is required.
pub fn nvcc() -> Option<nvcc::Nvcc> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Some(nvcc) = nvcc::find(root).unwrap_or_else(|message| panic!("{message}")) {
        return Some(nvcc);
    }
    without_nvcc("without nvcc there are no compiled kernels to run", nvcc::MISSING);
    None
}

/// The PTX of sources, each with a name unlike all others and an architecture.
pub fn modules(nvcc: &nvcc::Nvcc, sources: &[(String, PathBuf, &str)]) -> Vec<PathBuf> {
    let job = |(name, source, architecture): &(String, PathBuf, &str)| objects::Job {
        name: (format!("{name}-{architecture}"), "ptx"),
        ..nvcc.ptx(source, architecture)
    };
    run(&sources.iter().map(job).collect::<Vec<_>>()).into_iter().map(|object| object.path).collect()
}

/// Objects of the sources of the interpreter, or of its test.
fn objects_of(test: bool) -> Vec<PathBuf> {
    let folder = kernels().join("interpreter");
    let mut sources: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    // The file that has the test's main function is compiled last, into the program.
    sources.retain(|path| path.extension().is_some_and(|end| end == "cpp") && !path.ends_with("test.cpp"));
    sources.retain(|path| stem(path).starts_with("test_") == test);
    sources.sort();
    #[cfg(target_arch = "x86_64")]
    let wide = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let wide = false;
    let flags: &[&str] = match (test, wide) {
        (true, _) => &["-O1"],
        (false, true) => &["-O3", "-mavx2", "-mfma"],
        (false, false) => &["-O3"],
    };
    let unit = |path: &PathBuf| Unit::new(Kind::Object, &format!("interpreter-{}", stem(path)), path, flags, &[]);
    compile(sources.iter().map(unit).collect())
}

/// Objects of the interpreter.
pub fn interpreter() -> Vec<PathBuf> {
    objects_of(false)
}

/// The interpreter's own test, a program.
pub fn test_of_interpreter() -> PathBuf {
    let objects = [objects_of(false), objects_of(true)].concat();
    let main = kernels().join("interpreter/test.cpp");
    compile(vec![Unit::new(Kind::Program, "interpreter-test", &main, &["-O1"], &objects)]).remove(0)
}

/// A source that brings these modules to the interpreter.
fn table(name: &str, modules: &[PathBuf]) -> PathBuf {
    let mut text = String::from("#include <stddef.h>\n");
    let (mut declared, mut entries) = (String::new(), String::new());
    for (index, module) in modules.iter().enumerate() {
        let file = module.file_name().unwrap().to_str().unwrap();
        let (begin, end) = (format!("module_{index}_begin"), format!("module_{index}_end"));
        let labels = format!(".global {begin}, {end}\\n.hidden {begin}, {end}\\n");
        let bytes = format!("{begin}: .incbin \\\"{}\\\"\\n{end}: .byte 0\\n", module.display());
        text += &format!("asm(\".section .rodata\\n{labels}{bytes}.text\");\n");
        declared += &format!("extern const char {begin}[], {end}[];\n");
        entries += &format!("    {{\"{file}\", {begin}, {end}}},\n");
    }
    text += &format!(
        "extern \"C\" {{\n{declared}struct InterpreterModule {{ const char *file, *begin, *end; }};\n\
         extern const InterpreterModule flamant_interpreter_modules[];\n\
         extern const size_t flamant_interpreter_module_count;\n\
         const InterpreterModule flamant_interpreter_modules[] = {{\n{entries}}};\n\
         const size_t flamant_interpreter_module_count = {};\n}}\n",
        modules.len()
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interpreter");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}.cpp"));
    fs::write(&path, text).unwrap();
    path
}

/// A library for each list of modules: the interpreter, behind the emulator's interface.
pub fn libraries(interpreter: &[PathBuf], modules: &[(String, Vec<PathBuf>)]) -> Vec<PathBuf> {
    let unit = |(name, modules): &(String, Vec<PathBuf>)| {
        Unit::new(Kind::Library, name, &table(name, modules), &["-O1"], interpreter)
    };
    compile(modules.iter().map(unit).collect())
}

/// All kernels, compiled for each of [`ARCHITECTURES`].
pub fn compiled_kernels(nvcc: &nvcc::Nvcc) -> Vec<PathBuf> {
    let sources = kernel_sources();
    let named = |source: &PathBuf, architecture| {
        (source.file_stem().unwrap().to_str().unwrap().to_owned(), source.clone(), architecture)
    };
    let all: Vec<_> =
        ARCHITECTURES.iter().flat_map(|&one| sources.iter().map(move |source| named(source, one))).collect();
    let made = modules(nvcc, &all);
    let lists: Vec<_> = ARCHITECTURES
        .iter()
        .zip(made.chunks(sources.len()))
        .map(|(architecture, modules)| (format!("compiled-{architecture}"), modules.to_vec()))
        .collect();
    libraries(&interpreter(), &lists)
}

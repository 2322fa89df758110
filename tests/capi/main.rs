//! The C interface from outside: programs in C, C++ and Python, compiled with all warnings as errors, linked with
//! the shared or the static library, and run, those in C under a checker of memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const C_FLAGS: &[&str] = &["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"];

/// The libraries as `tools/c_library.sh` builds them now: the shared one and the static one.
fn libraries() -> &'static [PathBuf; 2] {
    static BUILT: OnceLock<[PathBuf; 2]> = OnceLock::new();
    BUILT.get_or_init(|| {
        // The profile that this test was built in, so that what it depends on is there already.
        let here = std::env::current_exe().unwrap();
        let target = here.ancestors().nth(2).unwrap();
        let profile = target.file_name().unwrap().to_str().unwrap().replace("debug", "dev");
        let folder = program("library");
        let mut script = Command::new(format!("{ROOT}/tools/c_library.sh"));
        script.arg(&folder).args(["--profile", &profile, "--target-dir"]).arg(target.parent().unwrap());
        output(&mut script);
        ["so", "a"].map(|end| folder.join("libflamant").with_extension(end))
    })
}

/// Runs a command that must succeed; what it says.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{told}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Where a program is made.
fn program(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Compiles a source in C and links it with the shared library.
fn compile(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let program = program(name);
    let folder = libraries()[0].parent().unwrap().display();
    let mut compiler = Command::new("cc");
    compiler.args(C_FLAGS).args(flags).arg(format!("-I{ROOT}/include")).arg(format!("{ROOT}/{source}"));
    compiler.arg(format!("-L{folder}")).arg(format!("-Wl,-rpath,{folder}")).args(["-lflamant", "-lm", "-o"]);
    output(compiler.arg(&program));
    program
}

/// Compiles a program and runs it under valgrind, or where that is not installed, with gcc's own checker of addresses
/// and leaks. One of both must be there.
fn checked(source: &str, name: &str, arguments: &[&str]) -> String {
    let valgrind = ["-q", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite,indirect"];
    if Command::new("valgrind").arg("--version").output().is_ok() {
        let program = compile(source, name, &[]);
        let mut command = Command::new("valgrind");
        command.args(valgrind).arg("--errors-for-leak-kinds=definite,indirect").arg(program).args(arguments);
        return output(&mut command);
    }
    let program = compile(source, name, &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    output(Command::new(program).args(arguments))
}

#[test]
fn the_example_in_c_names_what_it_is_shown() {
    let said = checked("examples/c/few_shot.c", "few_shot", &[]);
    assert_eq!(
        said,
        "A ring is a kep, a cross is a mul, a Z is a zon. A smaller cross is a mul\n\
         4 tokens after a prompt of 25 with 4 images\n"
    );
}

#[test]
fn the_example_in_python_names_the_same() {
    let mut python = Command::new("python3");
    python.arg(format!("{ROOT}/examples/python/ctypes_demo.py")).env("FLAMANT_LIBRARY", &libraries()[0]);
    let said = output(&mut python);
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("A smaller cross is a mul"));
    let logprobs: Vec<(&str, f64)> = lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, rest)| (name, rest.trim().parse().unwrap()))
        .collect();
    assert_eq!(logprobs.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["kep.", "mul.", "zon."]);
    assert!(logprobs[1].1 > logprobs[0].1 && logprobs[1].1 > logprobs[2].1, "{logprobs:?}");
}

/// A program that uses the module of the example.
const PYTHON: &str = r#"
import math, ctypes_demo as flamant
with flamant.Engine(threads=1, device="cpu") as engine:
    whole = "".join(engine.generate(["kep."], max_new_tokens=9, ignore_eos=1))
    for count in range(1, 4):
        # Given up in the middle, and with the last event due.
        for text in engine.generate(["kep."], max_new_tokens=count, ignore_eos=1):
            assert whole.startswith(text)
            break
    assert "".join(engine.generate(["kep."], max_new_tokens=9, ignore_eos=1)) == whole, whole
    assert engine.info()["config"]["decoder"]["vocabulary"] == 32, engine.info()
    scores = engine.score(["kep.", "mo"])
    assert math.isnan(scores[0]) and all(score < 0 for score in scores[1:]), scores
    image = (2, 2, bytes(range(12)))
    # A video of one frame is an image.
    assert engine.score([[image], "kep."])[1:] == engine.score([image, "kep."])[1:]
    one, same = engine.features([image, [image]])
    assert one == same and abs(sum(number * number for number in one) - 1) < 1e-5, one
    wrong = ["<image>"], [b"no image"], [(2, 2, bytes(11))], [(0, 0, b"")], [[]], [[b"no image"]], [["kep."]]
    for prompt, status in zip(wrong, (10, 22, 10, 10, 22, 22, 10)):
        try:
            engine.score(prompt)
            raise AssertionError(prompt)
        except flamant.FlamantError as error:
            assert error.status == status and len(str(error)) > 10, error
try:
    engine.score(["kep."])
    raise AssertionError("closed")
except flamant.FlamantError as error:
    print(error.status)
"#;

#[test]
fn the_module_in_python_gives_up_and_raises() {
    let mut python = Command::new("python3");
    python.args(["-B", "-c", PYTHON]).env("FLAMANT_LIBRARY", &libraries()[0]);
    assert_eq!(output(python.env("PYTHONPATH", format!("{ROOT}/examples/python"))), "11\n");
}

#[test]
fn misuse_is_answered_by_a_status() {
    assert_eq!(checked("tests/capi/misuse.c", "misuse", &[]), "done\n");
}

#[test]
fn threads_are_served_or_turned_away() {
    assert_eq!(checked("tests/capi/threads.c", "threads", &[]), "done\n");
}

#[test]
fn a_library_tells_of_itself_and_of_images() {
    assert_eq!(checked("tests/capi/told.c", "told", &[]), "done\n");
}

/// What a program that is linked with it gets: a name to be found under, and nothing that it would have to bring.
#[test]
fn the_library_has_a_name_and_needs_no_cpp() {
    let dynamic = output(Command::new("readelf").arg("-d").arg(&libraries()[0]));
    let version: Vec<&str> = env!("CARGO_PKG_VERSION").split('.').collect();
    let name = format!("[libflamant.so.{}.{}]", version[0], version[1]);
    assert!(dynamic.lines().any(|line| line.contains("(SONAME)") && line.contains(&name)), "{dynamic}");
    assert!(!dynamic.contains("libstdc++"), "{dynamic}");
}

#[test]
fn calls_in_any_order_are_answered_as_a_model_says() {
    let program = compile("tests/capi/fuzz.c", "fuzz_fast", &[]);
    for seed in ["1", "2"] {
        let said = output(Command::new(&program).args(["50000", seed]));
        assert!(said.starts_with("50000 calls, "), "{said}");
    }
    let said = checked("tests/capi/fuzz.c", "fuzz", &["300", "3"]);
    assert!(said.starts_with("300 calls, "), "{said}");
}

#[test]
fn a_program_in_cpp_is_linked_with_the_static_library() {
    let program = program("include");
    let mut compiler = Command::new("c++");
    compiler.args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"]);
    compiler.arg(format!("-I{ROOT}/include")).arg(format!("{ROOT}/tests/capi/include.cpp")).arg(&libraries()[1]);
    output(compiler.args(["-ldl", "-lm", "-o"]).arg(&program));
    assert!(output(&mut Command::new(program)).ends_with("\ndone\n"));
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let header = std::fs::read_to_string(Path::new(ROOT).join("include/flamant.h")).unwrap();
    let code: Vec<&str> = header.lines().filter(|line| !line.starts_with([' ', '/', '#'])).collect();
    let name = |line: &str| line.split('(').next()?.rsplit([' ', '*']).next().map(str::to_owned);
    let mut declared: Vec<String> = code
        .iter()
        .filter(|line| line.contains("(") && !line.starts_with("typedef"))
        .filter_map(|line| name(line))
        .collect();
    declared.sort();
    let symbols = output(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(&libraries()[0]));
    let mut exported: Vec<&str> = symbols.lines().map(|line| line.split(' ').next().unwrap()).collect();
    exported.sort_unstable();
    assert_eq!(declared, exported);
    assert!(declared.len() >= 15);
}

//! The emulator's own test (`kernels/emulator_test.cpp`: kernels that are right, and planted mistakes that must be
//! reported) in three builds: plain, with AddressSanitizer, and with the compiler's hooks at each access to memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::compiler::{Kind, Unit, compile, kernels};

const PLAIN: &[&str] = &["-O2"];
const ADDRESS: &[&str] = &["-O2", "-g", "-fsanitize=address"];
const HOOKS: &[&str] = &["-O2", "-g", "-fsanitize=thread"];

fn builds() -> [PathBuf; 3] {
    let [test, emulator, hooks] =
        ["emulator_test.cpp", "emulator.cpp", "emulator_hooks.cpp"].map(|f| kernels().join(f));
    let object = |name: &str, source: &Path, flags| Unit::new(Kind::Object, name, source, flags, &[]);
    let objects = compile(vec![
        object("emulator-address", &emulator, ADDRESS),
        object("emulator_test-hooks", &test, HOOKS),
        object("emulator", &emulator, PLAIN),
    ]);
    let program =
        |name: &str, source, flags, objects: &[PathBuf]| Unit::new(Kind::Program, name, source, flags, objects);
    let programs = compile(vec![
        program("test-address", &test, ADDRESS, &objects[..1]),
        program("test-plain", &test, PLAIN, &objects[2..]),
        // Hooked code calls what emulator_hooks.cpp defines, so nothing may bring the sanitizer's own library.
        program("test-hooks", &hooks, PLAIN, &objects[1..]),
    ]);
    programs.try_into().expect("three units were given")
}

#[test]
fn planted_mistakes_are_reported_in_all_builds() {
    let run = |program: &PathBuf| -> Output {
        // Fibers leave memory to the process's end.
        Command::new(program).env("ASAN_OPTIONS", "detect_leaks=0").output().unwrap()
    };
    let builds = builds();
    let outputs = std::thread::scope(|scope| {
        let running = builds.each_ref().map(|program| scope.spawn(move || run(program)));
        running.map(|handle| handle.join().unwrap())
    });
    for (build, output) in builds.iter().zip(outputs) {
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{}: {}\n{said}", build.display(), output.status);
        assert!(said.contains("all as expected"), "{}:\n{said}", build.display());
        eprintln!("{}: {} cases", build.display(), said.lines().filter(|line| line.starts_with("ok ")).count());
    }
}

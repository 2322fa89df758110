//! The tests of the kernels, tested: each of a list of seeded mistakes must be found, by a check of the emulator or by
//! a result that differs; and builds of the kernels as they are, checked by AddressSanitizer and through the compiler's
//! own hooks at each access to memory, must give no finding at all. Mistakes in the assembly, which a C++ compiler does
//! not see, are found in the compiled kernels, by the interpreter.
//!
//! Every build runs in a process of its own: this program again, with one test that is told which library to load.
//! Schedules are random, from seeds that failures tell; `FLAMANT_THOROUGH=1` tries more of them.

mod assembly;
mod checks;
mod list;
#[path = "../support"]
mod support {
    pub mod absent;
    pub mod cases;
    pub mod compiler;
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::support::compiler::{self, Kind, Unit, compile, kernel_sources, kernels, ptx};
use assembly::ASSEMBLY;
use flamant::probe::emulated::Settings;
use flamant::probe::{Device, Dtype, Place};
use list::{MUTANTS, Mutant, UNSEEN_RACE, UNSEEN_READ};

/// A mutant is compiled once and run little.
const FAST: &[&str] = &["-O1", "-w"];
const ADDRESS: &[&str] = &["-O1", "-g", "-fsanitize=address"];
const HOOKS: &[&str] = &["-O1", "-g", "-fsanitize=thread"];

/// What a process is told: the library it loads, and the beginnings of the names of its checks.
const LIBRARY: &str = "FLAMANT_CHECKED_LIBRARY";
const CHECKS: &str = "FLAMANT_CHECKED_NAMES";
/// Whether results must have the emulator's bits as well.
const BITS: &str = "FLAMANT_CHECKED_BITS";
/// A process that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
const THOROUGH_PATIENCE: Duration = Duration::from_secs(3600);

/// What a process says of a check that fails.
const FAILED: &str = "found: ";

#[test]
#[ignore = "the others start it, each time with another library"]
fn checks_pass() {
    let library = env::var_os(LIBRARY).map(PathBuf::from);
    let names = env::var(CHECKS).unwrap_or_default();
    let mut checks = checks::all(env::var_os(BITS).is_some());
    checks.retain(|check| names.split(',').any(|name| check.name.starts_with(name)));
    assert!(!checks.is_empty(), "no check begins with one of {names:?}");
    let seeds = if thorough() { 16 } else { 2 };
    for check in &checks {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            for (seed, (schedule, early_copies)) in (1..=seeds).zip(checks::MODES.into_iter().cycle()) {
                let library = library.clone();
                let settings = Settings {
                    schedule,
                    seed,
                    early_copies,
                    checked: true,
                    workers: 1,
                    library,
                    ..Settings::default()
                };
                let place = Place { emulated: settings, ..Place::new(Device::Emulated, Some(dtype)) };
                let begun = Instant::now();
                if let Err(message) = (check.run)(&place) {
                    panic!("{FAILED}{} {dtype} {schedule:?}: {message}", check.name);
                }
                let taken = begun.elapsed().as_secs_f64();
                println!("{} {dtype} {schedule:?}: {taken:.3} s", check.name);
            }
        }
    }
}

fn thorough() -> bool {
    env::var("FLAMANT_THOROUGH").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// Runs the checks with a library, in a process of its own.
///
/// # Errors
/// What was found, in a line if it was a check that failed, else all that the process said.
fn run(library: &Path, checks: &[&str], settings: &[(&str, &str)]) -> Result<String, String> {
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "checks_pass"])
        .env(LIBRARY, library)
        .env(CHECKS, checks.join(","))
        .env("RUST_BACKTRACE", "0")
        .envs(settings.iter().copied())
        .stdout(said.as_file().try_clone().unwrap())
        .stderr(said.as_file().try_clone().unwrap())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let (begun, patience) = (Instant::now(), if thorough() { THOROUGH_PATIENCE } else { PATIENCE });
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > patience {
            process.kill().unwrap();
            process.wait().unwrap();
            return Err(format!("hangs: no end after {} s", patience.as_secs()));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let said = fs::read_to_string(said.path()).unwrap();
    if status.success() {
        return Ok(said);
    }
    let line = said.lines().find_map(|line| line.split_once(FAILED));
    Err(line.map_or(format!("{status}\n{said}"), |(_, found)| found.to_owned()))
}

/// Objects of all kernels, each with the name of its source.
fn objects(build: &str, flags: &[&str]) -> Vec<(String, PathBuf)> {
    let sources = kernel_sources();
    let stem = |source: &Path| source.file_stem().unwrap().to_str().unwrap().to_owned();
    let unit = |source: &PathBuf| Unit::new(Kind::Object, &format!("{}-{build}", stem(source)), source, flags, &[]);
    let made = compile(sources.iter().map(unit).collect());
    sources.iter().map(|source| stem(source)).zip(made).collect()
}

/// Calls `work` for each number below `count`, two or more at a time.
fn side_by_side<R: Send + Sync>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<R>> = (0..count).map(|_| OnceLock::new()).collect();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < count) {
                    results[index].get_or_init(|| work(index));
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().expect("each number has had its turn")).collect()
}

/// The headers and a mutant's sources, in a folder of its own.
fn written(mutant: &Mutant, name: &str) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants").join(name);
    fs::create_dir_all(&folder).unwrap();
    let source = format!("{}.cu", mutant.source);
    for entry in fs::read_dir(kernels()).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let header = path.extension().is_some_and(|end| end == "h" || end == "cuh");
        if file == mutant.file {
            fs::write(folder.join(file), mutant.apply(&fs::read_to_string(&path).unwrap())?).unwrap();
        } else if header || file == source {
            fs::copy(&path, folder.join(file)).unwrap();
        }
    }
    Ok(folder.join(source))
}

#[test]
fn every_mutant_is_killed() {
    let names: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), MUTANTS.len(), "each mutant has a name of its own");
    let mutated: Result<Vec<PathBuf>, String> =
        MUTANTS.iter().enumerate().map(|(number, mutant)| written(mutant, &number.to_string())).collect();
    let mutated = mutated.unwrap_or_else(|message| panic!("{message}"));

    let begun = Instant::now();
    let kept = objects("fast", FAST);
    let emulator = Unit::new(Kind::Object, "emulator-fast", &kernels().join("emulator.cpp"), &["-O2"], &[]);
    let emulator = compile(vec![emulator]).remove(0);
    let beside = |source: &str| {
        let others = kept.iter().filter(|(name, _)| name != source).map(|(_, object)| object.clone());
        others.chain([emulator.clone()]).collect::<Vec<PathBuf>>()
    };
    let unit = |(number, mutant): (usize, &Mutant)| {
        let name = format!("mutant{number}");
        Unit::new(Kind::Library, &name, &mutated[number], FAST, &beside(mutant.source))
    };
    let (last, _) = kept.last().expect("there are kernels");
    let unchanged = kernels().join(format!("{last}.cu"));
    let unchanged = Unit::new(Kind::Library, "no-mutant", &unchanged, FAST, &beside(last));
    let mut libraries = compile(MUTANTS.iter().enumerate().map(unit).chain([unchanged]).collect());
    let unchanged = libraries.pop().expect("a library more than mutants");
    eprintln!("{} builds: {:.1} s", MUTANTS.len() + 1, begun.elapsed().as_secs_f64());

    let survivors = Mutex::new(Vec::new());
    // The kernels as they are come last: they take longest only if nothing is wrong.
    side_by_side(MUTANTS.len() + 1, |number| {
        let begun = Instant::now();
        let Some(mutant) = MUTANTS.get(number) else {
            if let Err(found) = run(&unchanged, &[""], &[]) {
                survivors.lock().unwrap().push(format!("without any mistake: {found}"));
            }
            eprintln!("without any mistake: {:.1} s", begun.elapsed().as_secs_f64());
            return;
        };
        match run(&libraries[number], mutant.checks, &[]) {
            Ok(_) => survivors.lock().unwrap().push(mutant.name.to_owned()),
            Err(found) => eprintln!("{}: {found} ({:.1} s)", mutant.name, begun.elapsed().as_secs_f64()),
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "{} survive:\n{}", survivors.len(), survivors.join("\n"));
}

/// Whether an end tells nothing of the mistake: a crash, a hang, PTX that the interpreter does not know.
fn is_no_finding(found: &str) -> bool {
    let not_run = ["no kernel is named", "that is not known"].iter().any(|part| found.contains(part));
    not_run || found.contains('\n') || found.starts_with("hangs")
}

#[test]
fn every_mutant_of_the_assembly_is_killed() {
    const ARCHITECTURE: &str = "90a";
    let Some(nvcc) = ptx::nvcc() else { return };
    let begun = Instant::now();
    let sources = kernel_sources();
    let mutated: Result<Vec<PathBuf>, String> =
        ASSEMBLY.iter().enumerate().map(|(number, mutant)| written(mutant, &format!("assembly{number}"))).collect();
    let mutated = mutated.unwrap_or_else(|message| panic!("{message}"));
    let stem = |source: &Path| source.file_stem().unwrap().to_str().unwrap().to_owned();
    let named = |(number, source): (usize, &PathBuf)| (format!("assembly{number}"), source.clone(), ARCHITECTURE);
    let kept = sources.iter().map(|source| (stem(source), source.clone(), ARCHITECTURE));
    let mut modules = ptx::modules(&nvcc, &kept.chain(mutated.iter().enumerate().map(named)).collect::<Vec<_>>());
    let mutated = modules.split_off(sources.len());
    let with = |number: usize| {
        let changed = sources.iter().zip(&modules).map(|(source, module)| {
            let is_mutant = stem(source) == ASSEMBLY[number].source;
            if is_mutant { mutated[number].clone() } else { module.clone() }
        });
        (format!("assembly{number}"), changed.collect())
    };
    let unchanged = (format!("compiled-{ARCHITECTURE}"), modules.clone());
    let lists: Vec<(String, Vec<PathBuf>)> = (0..ASSEMBLY.len()).map(with).chain([unchanged]).collect();
    let mut libraries = ptx::libraries(&ptx::interpreter(), &lists);
    let unchanged = libraries.pop().expect("a library more than mutants");
    eprintln!("{} builds: {:.1} s", lists.len(), begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let found = side_by_side(ASSEMBLY.len() + 1, |number| {
        let Some(mutant) = ASSEMBLY.get(number) else {
            return run(&unchanged, &[""], &[(BITS, "1")]).err().map(|found| format!("without any mistake: {found}"));
        };
        match run(&libraries[number], mutant.checks, &[(BITS, "1")]) {
            Ok(_) => Some(format!("{} survives", mutant.name)),
            Err(found) if is_no_finding(&found) => Some(format!("{} is not found but ends so: {found}", mutant.name)),
            Err(found) => {
                eprintln!("{}: {found}", mutant.name);
                None
            }
        }
    });
    eprintln!("{} mutants of the assembly: {:.1} s", ASSEMBLY.len(), begun.elapsed().as_secs_f64());
    let wrong: Vec<String> = found.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Libraries of a sanitized build: of the kernels as they are, and with a mistake that no other build can find. All
/// files of the emulator have flags of their own.
fn sanitized(build: &str, flags: &[&str], mistake: &Mutant, emulator: (&[&str], &[&str])) -> [PathBuf; 2] {
    let (files, emulator_flags) = emulator;
    let wrong = written(mistake, build).unwrap_or_else(|message| panic!("{message}"));
    let mut units = vec![Unit::new(Kind::Object, &format!("wrong-{build}"), &wrong, flags, &[])];
    let (last, others) = files.split_last().expect("the emulator has a file");
    for file in others {
        units.push(Unit::new(Kind::Object, &format!("{file}-{build}"), &kernels().join(file), emulator_flags, &[]));
    }
    let mut beside = compile(units);
    let wrong = beside.remove(0);
    let objects = objects(build, flags);
    let library = |name: &str, changed: &dyn Fn(&str) -> bool| {
        let kernels_objects = objects.iter().map(|(name, object)| if changed(name) { &wrong } else { object });
        let all: Vec<PathBuf> = kernels_objects.chain(&beside).cloned().collect();
        Unit::new(Kind::Library, &format!("{name}-{build}"), &kernels().join(last), emulator_flags, &all)
    };
    let units = vec![library("right", &|_| false), library("mistaken", &|name| name == mistake.source)];
    compile(units).try_into().expect("two units were given")
}

/// The build finds its mistake, and nothing in the kernels as they are.
fn finds_its_mistake_alone([right, mistaken]: &[PathBuf; 2], mistake: &Mutant, sign: &str, settings: &[(&str, &str)]) {
    let found = run(mistaken, mistake.checks, settings).expect_err(mistake.name);
    assert!(found.contains(sign), "{}: found {found}", mistake.name);
    let begun = Instant::now();
    let said = run(right, &[""], settings).unwrap_or_else(|found| panic!("{found}"));
    assert!(!said.contains(sign), "{said}");
    eprintln!("{sign}: {:.1} s", begun.elapsed().as_secs_f64());
}

#[test]
fn address_sanitizer_finds_nothing() {
    // The library of a program that has no such checks itself must be there before any other.
    let sanitizer = Command::new(compiler::program()).arg("-print-file-name=libasan.so").output().unwrap().stdout;
    let sanitizer = String::from_utf8(sanitizer).unwrap().trim().to_owned();
    assert!(Path::new(&sanitizer).is_absolute(), "expected a compiler with libasan.so, such as g++, found none");
    let libraries = sanitized("address", ADDRESS, &UNSEEN_READ, (&["emulator.cpp"], ADDRESS));
    let settings = [("LD_PRELOAD", sanitizer.as_str()), ("ASAN_OPTIONS", "detect_leaks=0,verify_asan_link_order=0")];
    finds_its_mistake_alone(&libraries, &UNSEEN_READ, "AddressSanitizer", &settings);
}

#[test]
fn hooks_at_each_access_find_nothing() {
    // Code with hooks calls what emulator_hooks.cpp defines, so nothing may bring the sanitizer's own library.
    let libraries = sanitized("hooks", HOOKS, &UNSEEN_RACE, (&["emulator.cpp", "emulator_hooks.cpp"], &["-O2"]));
    finds_its_mistake_alone(&libraries, &UNSEEN_RACE, "race", &[]);
}

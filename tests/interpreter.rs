//! The compiled kernels, executed: what nvcc makes of `kernels/` runs in the interpreter of `kernels/interpreter/`, a
//! second reading of the assembly, on the table of cases and in whole models.

mod support {
    pub mod absent;
    pub mod cases;
    pub mod compiler;
    pub mod devices;
    pub mod equalities;
    pub mod reference;
}

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Instant;

use crate::support::cases;
use crate::support::compiler::ptx;
use crate::support::devices::{DTYPES, on_all_cores};
use crate::support::equalities::{self, bits, rows};
use crate::support::reference;
use flamant::probe::emulated::{MatrixUnits, Schedule, Settings};
use flamant::probe::{Device, Dtype, Place};
use flamant::{Generation, Options};

/// The interpreter with the kernels for each of [`ptx::ARCHITECTURES`]; none without nvcc.
fn libraries() -> Option<&'static [PathBuf]> {
    static MADE: LazyLock<Option<Vec<PathBuf>>> = LazyLock::new(|| {
        let nvcc = ptx::nvcc()?;
        let begun = Instant::now();
        let made = ptx::compiled_kernels(&nvcc);
        eprintln!("kernels compiled to PTX: {:.1} s", begun.elapsed().as_secs_f64());
        Some(made)
    });
    MADE.as_deref()
}

fn emulated(dtype: Dtype, settings: Settings) -> Place {
    Place { emulated: Settings { workers: 1, ..settings }, ..Place::new(Device::Emulated, Some(dtype)) }
}

/// The PTX of each architecture on the units of the cards that it is for.
fn modelled_cards(libraries: &[PathBuf]) -> Vec<Place> {
    let units = [MatrixUnits::Ampere, MatrixUnits::Hopper];
    let settings = libraries.iter().zip(units).map(|(library, matrix_units)| Settings {
        library: Some(library.clone()),
        matrix_units,
        ..Settings::default()
    });
    settings.flat_map(|settings| DTYPES.map(|dtype| emulated(dtype, settings.clone()))).collect()
}

fn none_failed(failures: &[String]) {
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// Its own test: each opcode as the PTX ISA has it, on PTX written by hand, and the units' arithmetic as in MMA-Sim.
#[test]
fn opcodes_do_what_the_isa_says() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/matrix_units.txt");
    let output = Command::new(ptx::test_of_interpreter()).arg(fixture).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let bad: Vec<&str> = said.lines().filter(|line| !line.starts_with("ok ")).collect();
    assert!(output.status.success() && bad == ["all as expected"], "{}: {}", output.status, bad.join("\n"));
    eprintln!("{} cases of the interpreter", said.lines().count() - 1);
}

#[test]
fn compiled_kernels_give_the_emulators_bits() {
    let Some(libraries) = libraries() else { return };
    let begun = Instant::now();
    let found = on_all_cores(&cases::small(), |case| {
        let want = case.run(&Place { threads: 1, ..Place::new(Device::Cpu, None) }).unwrap();
        let mut failures = Vec::new();
        let (mut same, mut close) = (0, 0);
        for dtype in DTYPES {
            let emulator = bits(&rows(case, &emulated(dtype, Settings::default())).unwrap());
            for library in libraries {
                let settings = Settings { library: Some(library.clone()), ..Settings::default() };
                let why = match rows(case, &emulated(dtype, settings)) {
                    Err(why) => why,
                    Ok(found) if bits(&found) == emulator => {
                        same += 1;
                        continue;
                    }
                    Ok(found) => match case.compare(&found, &want, dtype) {
                        Ok(()) if case.shows_a_library() => {
                            close += 1;
                            continue;
                        }
                        Ok(()) => "within tolerance, but other bits".to_owned(),
                        Err(why) => why,
                    },
                };
                failures.push(format!("{}, {dtype}, {}: {why}", case.name, library.display()));
            }
        }
        (failures, same, close)
    });
    let failures: Vec<String> = found.iter().flat_map(|(failures, ..)| failures.clone()).collect();
    let (same, close) = found.iter().fold((0, 0), |sum, (_, same, close)| (sum.0 + same, sum.1 + close));
    let taken = begun.elapsed().as_secs_f64();
    eprintln!("{same} runs have the emulator's bits, {close} differ by a library's function: {taken:.1} s");
    none_failed(&failures);
}

/// As on a GPU: results of its own units, none of which the order of warps, of lanes, or the time of copies changes.
#[test]
fn turns_and_copies_never_change_a_bit() {
    let Some(libraries) = libraries() else { return };
    let begun = Instant::now();
    let failures = on_all_cores(&cases::small(), |case| {
        let want = case.run(&Place { threads: 1, ..Place::new(Device::Cpu, None) }).unwrap();
        let mut failures = Vec::new();
        for place in modelled_cards(libraries) {
            let dtype = place.dtype.unwrap();
            let found = rows(case, &place);
            let right = found.clone().and_then(|found| case.compare(&found, &want, dtype));
            let modes = [(Schedule::Warps, false), (Schedule::Lanes, true), (Schedule::Lanes, false)];
            let others = (1..).zip(modes).map(|(seed, (schedule, early_copies))| {
                let settings = Settings { schedule, early_copies, seed, checked: true, ..place.emulated.clone() };
                let other = rows(case, &Place { emulated: settings, ..place.clone() })?;
                let same = found.as_ref().is_ok_and(|found| bits(found) == bits(&other));
                if same { Ok(()) } else { Err(format!("other bits in {schedule:?}, early copies {early_copies}")) }
            });
            let units = place.emulated.matrix_units;
            let wrong = [right].into_iter().chain(others).filter_map(Result::err);
            failures.extend(wrong.map(|why| format!("{}, {dtype}, {units:?}: {why}", case.name)));
        }
        failures
    });
    eprintln!("turns and copies: {:.1} s", begun.elapsed().as_secs_f64());
    none_failed(&failures.concat());
}

#[test]
fn equalities_hold_on_modelled_cards() {
    let Some(libraries) = libraries() else { return };
    for (name, equality) in equalities::ALL {
        let begun = Instant::now();
        let failures = equality(&modelled_cards(libraries));
        eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
        none_failed(&failures);
    }
}

/// Whole models, images and all: the reference's own greedy answers.
#[test]
fn models_answer_as_the_reference_on_modelled_cards() {
    const TOKENS: usize = 12;
    let Some(libraries) = libraries() else { return };
    let begun = Instant::now();
    let mut models = reference::Case::all();
    models.retain(|model| model.name.ends_with("-kernels"));
    assert!(models.len() >= 6, "the models are there");
    let places = modelled_cards(libraries);
    let all: Vec<_> = models.iter().flat_map(|model| places.iter().map(move |place| (model, place))).collect();
    on_all_cores(&all, |(model, place)| {
        let options = Options::default().device(Device::Emulated).dtype(place.dtype).emulated(place.emulated.clone());
        let greedy = Generation::default().max_new_tokens(TOKENS).ignore_eos(true);
        let answer = model.flamingo(&options).generate(&model.prompt(), &greedy, &mut |_| {}).unwrap();
        assert_eq!(answer.ids, model.ids("greedy"), "{}, {options:?}", model.name);
    });
    eprintln!("{} runs of whole models: {:.1} s", all.len(), begun.elapsed().as_secs_f64());
}

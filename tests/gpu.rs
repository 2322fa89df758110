//! What a run on a rented GPU promises without one: the plan of `benches/gpu.sh` fits its two calls, and the map of
//! first numbers measures all its lines and judges them.

#[allow(dead_code, reason = "its main is the bench's")]
#[path = "../benches/first.rs"]
mod first;

use std::path::Path;
use std::process::Command;

use first::{BRIEF, LINES, Line, Measured, Unit, Verdict, Work};
use flamant::probe::tuning::{LinearShape, Machine, linear_form};
use flamant::probe::{Device, Dtype, Place};

/// Lines of call, stage, step and seconds.
fn plan(arguments: &[&str]) -> Vec<(String, String, String, u32)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gpu.sh");
    let output = Command::new("bash").arg(script).arg("--plan").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let fields = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let line = |fields: Vec<String>| match <[String; 4]>::try_from(fields) {
        Ok([call, stage, step, seconds]) => (call, stage, step, seconds.parse().unwrap()),
        Err(fields) => panic!("four fields, found {fields:?}"),
    };
    fields.map(line).collect()
}

/// A name that no test has would run nothing, and pass.
#[test]
fn tests_that_the_scripts_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let tests = ["kernels/ops.rs", "models/devices.rs"].map(|file| text(&format!("tests/{file}"))).concat();
    let mut found = 0;
    for script in ["benches/gpu.sh", "CONTRIBUTING.md", "justfile"] {
        let text = text(script);
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        // Names of tests are sentences.
        for name in
            words.filter(|word| ["every_", "turns_", "linear_forms_", "keys_in_"].iter().any(|w| word.starts_with(w)))
        {
            assert!(tests.contains(&format!("fn {name}(")), "{script}: there is no test {name}");
            found += 1;
        }
    }
    assert!(found >= 8, "{found} names");
}

#[test]
fn two_calls_fit_a_rented_card() {
    /// One call, and both, with what a machine takes to start left aside.
    const CALL_SECONDS_MAX: u32 = 360;
    const ALL_SECONDS_MAX: u32 = 720;
    let plan = plan(&[]);
    let (totals, steps): (Vec<_>, Vec<_>) = plan.iter().partition(|(_, stage, ..)| stage == "total");
    let sum = |call: &str| steps.iter().filter(|step| step.0 == call).map(|step| step.3).sum::<u32>();
    assert_eq!(totals.len(), 3);
    for (call, .., seconds) in totals {
        let (found, most) = match call.as_str() {
            "all" => (sum("a") + sum("b"), ALL_SECONDS_MAX),
            call => (sum(call), CALL_SECONDS_MAX),
        };
        assert_eq!(found, *seconds, "{call}");
        assert!(found <= most, "{call}: {found} s, at most {most}");
    }
    // The map comes before all else, results before speed, and each call can be run apart.
    let order: Vec<(&str, &str)> = steps.iter().map(|step| (step.0.as_str(), step.2.as_str())).collect();
    assert_eq!(
        order,
        [
            ("a", "unpack"),
            ("a", "card"),
            ("a", "first"),
            ("a", "test-ops"),
            ("a", "test-devices"),
            ("b", "unpack"),
            ("b", "sanitize-memcheck"),
            ("b", "sanitize-racecheck"),
            ("b", "bench-ops"),
            ("b", "bench-models"),
        ]
    );
    for call in ["a", "b"] {
        let alone = self::plan(&[call]);
        assert!(alone.iter().take(alone.len() - 2).eq(steps.iter().copied().filter(|step| step.0 == call)), "{call}");
    }
}

#[test]
fn the_map_stands_in_its_order_and_measures_every_line() {
    let names: Vec<&str> = LINES.iter().map(|line| line.name).collect();
    assert_eq!(
        names,
        [
            "linear, 1 row, 4096 to 4096",
            "linear, 1 row, 4096 to 22016",
            "linear, 2048 rows, 4096 to 12288",
            "linear, 512 rows, 4096 to 4096",
            "linear, 16 rows, 4096 to 4096",
            "split attention, 1 sequence of 4096 keys",
            "split attention, 16 sequences of 4096 keys",
            "empty launch, in a captured sequence of 324",
        ]
    );
    let place = Place::new(Device::Emulated, Some(Dtype::Bf16));
    let mut told = Vec::new();
    let found = first::map(&place, "the emulator", &first::tiny(), BRIEF, &mut |line| told.push(line.to_owned()));
    assert!(told[0].contains("reckoned"), "{}", told[0]);
    assert_eq!(told.len(), 1 + LINES.len());
    for ((line, outcome), told) in found.iter().zip(&told[1..]) {
        let measured = outcome.as_ref().unwrap_or_else(|error| panic!("{}: {error}", line.name));
        let [fastest, slowest] = measured.range;
        assert!(0.0 < fastest && fastest <= measured.seconds && measured.seconds <= slowest, "{measured:?}");
        assert!(told.starts_with(line.name), "{told}");
        let started = match line.work {
            Work::Linear { rows: 1, .. } => vec!["linear_rows_bf16"],
            Work::Linear { .. } => vec!["linear_"],
            Work::Attention { .. } => {
                vec!["append_bf16", "flash_attention_split_bf16_64", "flash_attention_combine_bf16"]
            }
            Work::Empty { .. } => vec![],
        };
        assert_eq!(measured.kernels.len(), started.len(), "{measured:?}");
        assert!(measured.kernels.iter().zip(&started).all(|(found, want)| found.starts_with(want)), "{measured:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    first::write(folder.path(), "the emulator", &found).unwrap();
    let text = std::fs::read_to_string(folder.path().join("first.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let lines = json["lines"].as_array().unwrap();
    assert!(lines.iter().zip(names).all(|(line, name)| line["name"] == name && line["value"].is_f64()), "{text}");
    let table = std::fs::read_to_string(folder.path().join("first.md")).unwrap();
    assert_eq!(table.lines().filter(|line| line.starts_with("| ")).count(), 1 + LINES.len(), "{table}");
}

/// What is read must exceed the caches, or they are what is timed.
#[test]
fn what_memory_bounds_is_larger_than_any_cache() {
    const CACHE_BYTES: f64 = 64.0 * (1 << 20) as f64;
    for line in LINES.iter().filter(|line| line.unit == Unit::Terabytes) {
        let (Work::Linear { layers, .. } | Work::Attention { layers, .. }) = line.work else { unreachable!() };
        // In a second, its terabytes a second are its terabytes.
        let bytes = 1e12 * line.value(1.0) * layers as f64;
        assert!(bytes > 4.0 * CACHE_BYTES, "{}: {bytes} bytes", line.name);
    }
}

/// A card that does as `tuning.rs` reckons is as expected: one reckoning for both.
#[test]
fn ranges_of_linear_layers_hold_what_is_reckoned() {
    const H200: (u32, u32) = (132, 227 << 10);
    let machine = Machine::new(H200.0, H200.1);
    for line in &LINES {
        let Work::Linear { rows, columns, width, .. } = line.work else { continue };
        let shape = LinearShape { rows: rows as u32, columns: columns as u32, width: width as u32, paired: false };
        let form = linear_form(&machine, &shape);
        let value = line.value(form.seconds(&machine, &shape));
        assert_eq!(line.verdict(value), Verdict::AsExpected, "{}: {value:.2}", line.name);
        assert!(form.name().1.starts_with(line.form), "{}: {form:?}", line.name);
    }
}

#[test]
fn a_number_out_of_its_range_is_explained() {
    let measured = |line: &Line, value: f64, kernel| {
        let seconds = match line.unit {
            Unit::Microseconds => value / 1e6,
            Unit::Terabytes | Unit::Teraflops => line.value(1.0) / value,
        };
        Measured { seconds, range: [seconds; 2], samples: 51, kernels: vec![kernel] }
    };
    for line in &LINES {
        let [least, most] = line.expected;
        for (value, verdict, word) in [
            (0.9 * least, Verdict::Below, "BELOW"),
            ((least + most) / 2.0, Verdict::AsExpected, "as expected"),
            (1.1 * most, Verdict::Above, "ABOVE"),
        ] {
            assert_eq!(line.verdict(value), verdict);
            let text = line.text(&measured(line, value, "linear_tile_bf16_128x128"));
            assert!(text.contains(word), "{text}");
            assert_eq!(line.meaning(verdict).is_some_and(|meaning| text.ends_with(meaning)), word != "as expected");
        }
    }
    // 512 rows in small tiles.
    let line = &LINES[3];
    let text = line.text(&measured(line, 250.0, "linear_tile_bf16_64x64"));
    assert!(text.contains("another form than 128x128") && text.contains("tuning.rs"), "{text}");
    assert!(!line.text(&measured(line, 350.0, "linear_tile_bf16_128x128")).contains("another form"));
}

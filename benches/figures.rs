//! How a figure is measured and told: by criterion with the device's own clock, and as a line of JSON for whoever
//! gathers results (`benches/peers/run.py`).

use std::collections::BTreeMap;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};
use flamant::probe::{Device, Dtype, Place};
use serde_json::json;

/// What a run must move and compute at least.
#[derive(Debug, Clone, Copy)]
pub struct Least {
    pub bytes: u64,
    pub flops: u64,
}

/// The first usable GPU; none, and a word on it, where there is none.
pub fn gpu() -> Option<Place> {
    let found =
        flamant::devices().into_iter().find(|info| matches!(info.device, Device::Cuda(_)) && info.problem.is_none());
    if let Some(info) = found {
        eprintln!("on {}: {}", info.device, info.name.unwrap_or_default());
        return Some(Place::new(info.device, Some(Dtype::Bf16)));
    }
    let required = std::env::var("FLAMANT_REQUIRE_DEVICES").unwrap_or_default();
    assert!(!required.split(',').any(|device| device == "cuda"), "cuda is required, and no GPU can be used");
    eprintln!("no GPU that can be used: small sizes on the processor, which say nothing of speed");
    None
}

/// What the card does at best, by the file that the variable CEILINGS names: `read` in bytes and `matrix` in operations
/// a second.
fn ceilings() -> BTreeMap<String, f64> {
    let Ok(path) = std::env::var("CEILINGS") else { return BTreeMap::new() };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Measures `name`: `seconds` gives the time of one run, over so many. The median of all samples is printed.
pub fn figure(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    units: (u64, &str),
    least: Least,
    mut seconds: impl FnMut(usize) -> f64,
) {
    let mut samples = Vec::new();
    group.throughput(Throughput::Elements(units.0));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|runs| {
            let each = seconds(runs as usize);
            samples.push(each);
            Duration::from_secs_f64(each * runs as f64)
        });
    });
    samples.sort_by(f64::total_cmp);
    let Some(&median) = samples.get(samples.len() / 2) else { return };
    let (bytes_rate, flops_rate) = (least.bytes as f64 / median, least.flops as f64 / median);
    let ceilings = ceilings();
    let share = |ceiling: &str, rate: f64| {
        ceilings
            .get(ceiling)
            .map_or(String::new(), |most| format!(" ({:.0} % of the {ceiling} rate)", 100.0 * rate / most))
    };
    let mut words = vec![format!("{:.1} us", 1e6 * median), format!("{:.0} {}/s", units.0 as f64 / median, units.1)];
    if least.bytes > 0 {
        words.push(format!("{:.0} GB/s{}", bytes_rate / 1e9, share("read", bytes_rate)));
    }
    if least.flops > 0 {
        words.push(format!("{:.1} TFLOP/s{}", flops_rate / 1e12, share("matrix", flops_rate)));
    }
    println!("{name}: {}", words.join(", "));
    let line = json!({
        "name": name, "seconds": median, "samples": samples.len(), "units": units.0, "unit": units.1,
        "bytes": least.bytes, "flops": least.flops,
    });
    println!("{line}");
}

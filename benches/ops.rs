//! Single operations over the tests' own table of cases: the shapes of the real models on a GPU, the small ones on the
//! processor where there is none. Every case's answer is checked before it is timed, and timed in many copies, each
//! with weights and pages of its own, so that no cache holds what it reads.

mod figures;
#[path = "../tests/support"]
mod support {
    pub mod cases;
}

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use figures::{Least, figure};
use flamant::probe::{Device, Dtype, Place};
use support::cases::{self, Case, Size};

/// Copies of a case move at least so many bytes: twice the largest second-level cache.
const ROTATED_BYTES: u64 = 128 << 20;
const COPIES_MAX: u64 = 32;

fn check(case: &Case, place: &Place) {
    let want = case.run(&Place::new(Device::Cpu, None)).expect("the processor runs every case");
    let found = case.run(place).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    case.compare(&found, &want, Dtype::Bf16).unwrap_or_else(|error| panic!("{}: {error}", case.name));
}

fn operations(criterion: &mut Criterion) {
    let (place, size) = match figures::gpu() {
        Some(place) => (place, Size::Real),
        None => (Place { threads: 1, ..Place::new(Device::Cpu, None) }, Size::Small),
    };
    let mut group = criterion.benchmark_group("operations");
    group.sample_size(50).warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(200));
    for case in cases::all().iter().filter(|case| case.size == size) {
        let least = Least { bytes: case.bytes(), flops: case.flops() };
        // Opened when it is its turn, and only if it is not filtered out.
        let mut opened = None;
        let copies = ROTATED_BYTES.div_ceil(least.bytes.max(1)).min(COPIES_MAX) as usize;
        let copied = case.copies(copies);
        figure(&mut group, &case.name, (1, "runs"), least, |runs| {
            let opened = opened.get_or_insert_with(|| {
                check(case, &place);
                let mut opened = copied.open(&place).expect("it fits in several copies");
                opened.run().expect("it runs in several copies");
                opened
            });
            opened.measure(runs).expect("it ran before") / copies as f64
        });
    }
    group.finish();
}

criterion_group!(benches, operations);
criterion_main!(benches);

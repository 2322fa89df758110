//! What nvcc said of the kernels: every one is there for every architecture, none spills registers or has a stack, and
//! each can be started. Without nvcc nothing can be said; `FLAMANT_REQUIRE_KERNELS=1` makes that a failure.
//! `cargo test --test kernels compiled:: -- --nocapture` shows the table.

use std::collections::BTreeSet;

use crate::kernel_report::{Compiled, compiled, multiprocessor, starts, table};
use crate::support::absent::without_nvcc;
use flamant::probe::tuning::{LINEAR_FORMS, Machine};

/// What build.rs compiles for by default, besides PTX.
const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_90a", "sm_100", "sm_120"];
/// Most shared memory of a block on the smallest of them.
const SHARED_BYTES_MAX: u32 = 99 * 1024;

/// What the compiler said; none in a program that was built without one, which is named.
fn report() -> Option<Vec<Compiled>> {
    let report = compiled();
    if !report.is_empty() {
        return Some(report);
    }
    let not_tested = "this program was built without nvcc, so nothing is known of the kernels on GPUs";
    without_nvcc(not_tested, "this program was built without nvcc");
    None
}

#[test]
fn no_kernel_spills_registers_or_has_a_stack() {
    let Some(report) = report() else { return };
    println!("{}", table());
    let bad = report.iter().filter(|kernel| kernel.spills > 0 || kernel.stack > 0);
    let bad: Vec<String> = bad
        .map(|Compiled { name, architecture, spills, stack, .. }| {
            format!("{name} for {architecture}: {spills} bytes of spills, {stack} of stack")
        })
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn every_kernel_is_there_for_every_architecture_and_can_start() {
    let starts = starts();
    let expected: BTreeSet<&str> = starts.iter().map(|start| start.name.as_str()).collect();
    assert_eq!(expected.len(), starts.len(), "each kernel has a name of its own");
    for start in &starts {
        assert!(
            start.shared_bytes <= SHARED_BYTES_MAX,
            "{}: {} bytes of shared memory",
            start.name,
            start.shared_bytes
        );
    }
    let Some(report) = report() else { return };
    let architectures: BTreeSet<&str> = report.iter().map(|kernel| kernel.architecture.as_str()).collect();
    if std::env::var_os("FLAMANT_CUDA_ARCHITECTURES").is_none() {
        assert_eq!(architectures, BTreeSet::from(ARCHITECTURES));
    }
    for architecture in architectures {
        let here = report.iter().filter(|kernel| kernel.architecture == architecture);
        let names: BTreeSet<&str> = here.clone().map(|kernel| kernel.name.as_str()).collect();
        let missing: Vec<&&str> = expected.difference(&names).collect();
        let unknown: Vec<&&str> = names.difference(&expected).collect();
        assert!(missing.is_empty(), "{architecture} lacks {missing:?}");
        assert!(unknown.is_empty(), "examples/kernel_report.rs does not know {unknown:?}");
        let Some(multiprocessor) = multiprocessor(architecture) else { continue };
        for kernel in here {
            let start = starts.iter().find(|start| start.name == kernel.name).expect("no name is unknown");
            let blocks = multiprocessor.blocks(start, kernel);
            assert!(blocks > 0, "{} does not start on {architecture}", kernel.name);
        }
    }
}

/// The reckoning's blocks of a multiprocessor are those that the registers and shared memory of the kernels allow.
#[test]
fn linear_forms_reside_as_they_are_reckoned() {
    let Some(report) = report() else { return };
    let starts = starts();
    let all = [("sm_80", 163 << 10), ("sm_90a", 227 << 10), ("sm_100", 227 << 10), ("sm_120", 99 << 10)];
    for (architecture, shared_bytes_max) in all {
        let multiprocessor = multiprocessor(architecture).expect("it is known");
        for form in LINEAR_FORMS {
            let (kernel, variant) = form.name();
            for dtype in ["bf16", "f16"] {
                let name = format!("{kernel}_{dtype}_{variant}");
                let compiled = report.iter().find(|kernel| kernel.name == name && kernel.architecture == architecture);
                let (Some(compiled), Some(start)) = (compiled, starts.iter().find(|start| start.name == name)) else {
                    assert!(std::env::var_os("FLAMANT_CUDA_ARCHITECTURES").is_some(), "{name} for {architecture}");
                    continue;
                };
                let found = multiprocessor.blocks(start, compiled);
                assert_eq!(found, form.resident(&Machine::new(1, shared_bytes_max)), "{name} on {architecture}");
            }
        }
    }
}

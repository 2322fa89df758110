//! Which devices a test runs on. None is left out in silence: what is absent is named on the standard error, and
//! `FLAMANT_REQUIRE_DEVICES` (a list, such as `cuda`) makes its absence a failure. `FLAMANT_TEST_DEVICES` (such a list)
//! leaves out all others: on a rented card, what has run everywhere else.

#![allow(dead_code, reason = "each program that includes it uses a part")]

use std::io::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use flamant::{Device, Dtype};

/// Both storage types.
pub const DTYPES: [Dtype; 2] = [Dtype::Bf16, Dtype::F16];

/// The emulator, and the first GPU if it can be used.
pub fn with_kernels() -> Vec<Device> {
    static FOUND: LazyLock<Vec<Device>> = LazyLock::new(|| {
        let named = |list: &str, device: &str| list.split(',').any(|named| named == device);
        let required = std::env::var("FLAMANT_REQUIRE_DEVICES").unwrap_or_default();
        let tested = std::env::var("FLAMANT_TEST_DEVICES").ok();
        let gpu = flamant::devices().into_iter().find(|info| info.device == Device::Cuda(0));
        let problem = gpu.map_or_else(|| Some("there is none".to_owned()), |info| info.problem);
        let mut found = Vec::new();
        for (device, name, problem) in [(Device::Emulated, "emulated", None), (Device::Cuda(0), "cuda", problem)] {
            let left_out = tested.as_deref().is_some_and(|tested| !named(tested, name));
            match problem.or(left_out.then(|| "left out by FLAMANT_TEST_DEVICES".to_owned())) {
                None => found.push(device),
                Some(problem) => {
                    writeln!(std::io::stderr(), "{name} is not tested: {problem}")
                        .expect("the standard error takes a line");
                    assert!(!named(&required, name), "{name} is required: {problem}");
                }
            }
        }
        assert!(!found.is_empty(), "no device is left to test");
        found
    });
    FOUND.clone()
}

/// `task` of each item, on all cores; results in order.
pub fn on_all_cores<T: Sync, R: Send>(items: &[T], task: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(items.len());
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, task(item)));
        }
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

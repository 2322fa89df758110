//! Every call to a driver fails once, each in its turn: what comes of it is one typed error, nothing is left behind,
//! and the same model runs on as if nothing had been.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::driver::{Address, Captured, Driver, Launch, Properties};
use super::emulated::{Emulator, Settings};
use super::{Backend, Batch, Kernels, Opening, Pools, Which};
use crate::backend::{Device, PageCount, Precision, Usual};
use crate::checkpoint::Folder;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::kv::PageCopy;
use crate::model;
use crate::weights::Weights;

/// Bytes of memory that are more than enough.
const PLENTY: u64 = 1 << 34;

/// What has been called, and which call is to fail.
#[derive(Default)]
struct Calls {
    made: AtomicUsize,
    /// Number of the call that fails; none after it has.
    failing: Mutex<Option<usize>>,
    /// Memory that was given out and has not come back.
    held: AtomicUsize,
    captured: AtomicUsize,
}

/// The emulator, one of whose calls fails.
struct Faulty {
    inner: Emulator,
    properties: Properties,
    calls: Arc<Calls>,
}

impl Faulty {
    fn call(&self, what: &str) -> Result<()> {
        let number = self.calls.made.fetch_add(1, Ordering::Relaxed);
        let mut failing = self.calls.failing.lock().unwrap();
        if *failing == Some(number) {
            *failing = None;
            return Err(Error::device("emulated", format!("{what} was made to fail")));
        }
        Ok(())
    }
}

impl Driver for Faulty {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address> {
        self.call("an allocation")?;
        self.calls.held.fetch_add(1, Ordering::Relaxed);
        self.inner.allocate(bytes)
    }

    fn free(&mut self, address: Address) {
        self.calls.held.fetch_sub(1, Ordering::Relaxed);
        self.inner.free(address);
    }

    fn copy_in(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.call("a copy to the device")?;
        self.inner.copy_in(to, bytes)
    }

    fn copy_out(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.call("a copy from the device")?;
        self.inner.copy_out(from, bytes)
    }

    fn clear(&mut self, address: Address, bytes: u64) -> Result<()> {
        self.call("clearing memory")?;
        self.inner.clear(address, bytes)
    }

    fn staging_bytes(&self) -> usize {
        self.inner.staging_bytes()
    }

    fn upload(&mut self, to: Address, fill: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()> {
        self.call("an upload")?;
        self.inner.upload(to, fill)
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.call("a launch")?;
        self.inner.launch(launch)
    }

    fn capture(&mut self, launches: &[Launch]) -> Result<Option<Captured>> {
        self.call("a capture")?;
        self.calls.captured.fetch_add(1, Ordering::Relaxed);
        self.inner.capture(launches)
    }

    fn replay(&mut self, captured: Captured) -> Result<()> {
        self.call("a replay")?;
        self.inner.replay(captured)
    }

    fn forget(&mut self, captured: Captured) {
        self.calls.captured.fetch_sub(1, Ordering::Relaxed);
        self.inner.forget(captured);
    }

    fn start_clock(&mut self) -> Result<()> {
        self.inner.start_clock()
    }

    fn stop_clock(&mut self) -> Result<f64> {
        self.inner.stop_clock()
    }

    fn synchronize(&mut self) -> Result<()> {
        self.call("a wait")?;
        self.inner.synchronize()
    }
}

/// A small model on a device with so much memory, whose call number `failing` fails.
fn open(failing: Option<usize>, memory_free: u64) -> (Arc<Calls>, Result<Kernels>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases/idefics-80-kernels/model");
    let folder = Folder::Disk(&path);
    let checkpoint = Arc::new(folder.checkpoint().unwrap());
    let config = ModelConfig::from_checkpoint(folder, &checkpoint).unwrap();
    let mut weights = Weights::new(checkpoint, &config);
    let plans = Arc::new(model::record(&config, &mut weights).unwrap());
    let pages = [PageCount { least: 8, most: 8 }, PageCount { least: 1, most: 1 }];
    let usual = Usual { images: 1, tokens: 8 };
    let settings = Settings { workers: 1, ..Settings::default() };
    let opening = Opening {
        device: Device::Emulated,
        threads: 1,
        precision: Some(Precision::Bf16),
        usual,
        emulated: settings.clone(),
    };
    let calls = Arc::new(Calls { failing: Mutex::new(failing), ..Calls::default() });
    let inner = Emulator::open(settings).unwrap();
    let properties = Properties { memory_free, ..inner.properties().clone() };
    let driver = Box::new(Faulty { inner, properties, calls: calls.clone() });
    (calls, Kernels::open(driver, &opening, weights, Pools::of(&config, pages), plans))
}

/// A picture, a prompt longer than there is room for at first, and the same step of two sequences three times:
/// launched, captured, replayed. Results of the last.
fn use_it(kernels: &mut Kernels) -> Result<Vec<f32>> {
    let pixels: Vec<f32> = (0..3 * 28 * 28).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    kernels.run(Which::Media, &Batch { inputs: &[&pixels], images: &[0], ..Batch::default() })?;
    let positions: Vec<u32> = (0..20).collect();
    let tables: [&[u32]; 2] = [&[3, 1], &[3, 2]];
    kernels.run(
        Which::Text,
        &Batch {
            ids: &[5; 20],
            positions: &positions,
            sequences: &[0; 20],
            tables: &tables[..1],
            media: &[Some(0); 20],
            outputs: &[19],
            ..Batch::default()
        },
    )?;
    kernels.copy_text_page(PageCopy { from: 1, to: 2 })?;
    let mut last = Vec::new();
    for _ in 0..3 {
        let batch = Batch {
            ids: &[7, 8],
            positions: &[20, 20],
            sequences: &[0, 1],
            tables: &tables,
            media: &[Some(0), None],
            outputs: &[0, 1],
            ..Batch::default()
        };
        kernels.run(Which::Text, &batch)?;
        last.clear();
        kernels.fetch(0..2, &mut last)?;
    }
    Ok(last)
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_the_sum_by_part() {
    let (calls, kernels) = open(None, 1 << 20);
    let line = kernels.err().expect("a megabyte is too little").to_string();
    assert_eq!(calls.made.load(Ordering::Relaxed), 0, "nothing is allocated before: {line}");
    for part in ["emulated: expected ", "GB of free memory (weights ", "activations ", "text pages ", "media pages "] {
        assert!(line.contains(part), "{line}");
    }
    assert!(line.ends_with("found 0.00 GB"), "{line}");
}

#[test]
fn whichever_call_fails_the_rest_goes_on() {
    let (calls, kernels) = open(None, PLENTY);
    let mut kernels = kernels.unwrap();
    let opened = calls.made.load(Ordering::Relaxed);
    let want = use_it(&mut kernels).unwrap();
    let all = calls.made.load(Ordering::Relaxed);
    let held = calls.held.load(Ordering::Relaxed);
    assert!(want.iter().all(|logit| logit.is_finite()) && all > opened + 50);
    let next = AtomicUsize::new(0);
    let check = |failing: usize| {
        let (calls, kernels) = open(Some(failing), PLENTY);
        let is_typed = |error: &Error| {
            let line = error.to_string();
            assert!(matches!(error, Error::Device { .. }) && line.contains("was made to fail"), "{failing}: {line}");
        };
        let Ok(mut kernels) = kernels.inspect_err(is_typed) else {
            assert!(failing < opened, "{failing}: opening makes no such call");
            return;
        };
        is_typed(&use_it(&mut kernels).expect_err("the call that fails was made"));
        assert_eq!(use_it(&mut kernels).unwrap(), want, "{failing}: after an error");
        assert_eq!(calls.held.load(Ordering::Relaxed), held, "{failing}: memory");
        assert!(calls.captured.load(Ordering::Relaxed) <= 1, "{failing}: captured sequences");
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get()) {
            scope.spawn(|| {
                loop {
                    let failing = next.fetch_add(1, Ordering::Relaxed);
                    if failing >= all {
                        break;
                    }
                    check(failing);
                }
            });
        }
    });
}

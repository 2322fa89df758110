//! Every call to a driver fails once, each in its turn: what comes of it is one typed error, or none where there is
//! another way; nothing is left behind, and the same model runs on as if nothing had been.

mod day;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::driver::{Address, Driver, GraphHandle, Launch, Properties};
use super::emulated::{Emulator, Settings, Tally};
use super::{Backend, BackendOptions, Batch, Gpu, KvConfig, PlanKind};
use crate::backend::{Capacity, Device, PageCount};
use crate::checkpoint::Dtype;
use crate::checkpoint::Folder;
use crate::error::{Error, Result};
use crate::family::Model;
use crate::image::{Crop, Preprocessor};
use crate::kv::{ImagePages, KvDtype, MediaSeen, PageCopy};
use crate::model;
use crate::weights::Weights;

/// Bytes of memory that are more than enough.
const PLENTY: u64 = 1 << 34;

/// What the device does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing.
    None,
    /// The call of that number.
    Fails(usize),
    /// The call of that number, which may be refused since there is another way.
    Refuses(usize),
    /// Captures, ever.
    NoCaptures,
}

/// What has been called.
#[derive(Default)]
struct Calls {
    made: AtomicUsize,
    /// Bytes that were copied to the device.
    sent: AtomicUsize,
    /// Those that may be refused.
    refusable: Mutex<Vec<usize>>,
    /// Memory that was given out and has not come back.
    held: AtomicUsize,
    /// Sequences that are kept, and how many captures were tried in all.
    graph: AtomicUsize,
    captures: AtomicUsize,
    replays: AtomicUsize,
}

/// The emulator, one of whose calls fails.
struct Faulty {
    inner: Emulator,
    properties: Properties,
    trouble: Trouble,
    calls: Arc<Calls>,
    /// Whether launches are counted only.
    idle: bool,
}

impl Faulty {
    fn call(&self, what: &str) -> Result<()> {
        let number = self.calls.made.fetch_add(1, Ordering::Relaxed);
        if matches!(self.trouble, Trouble::Fails(failing) | Trouble::Refuses(failing) if failing == number) {
            return Err(Error::device("emulated", format!("{what} was made to fail")));
        }
        Ok(())
    }

    /// Whether a call is refused that may be.
    fn refuses(&self, what: &str) -> Result<bool> {
        self.calls.refusable.lock().unwrap().push(self.calls.made.load(Ordering::Relaxed));
        match (self.call(what), self.trouble) {
            (Err(_), Trouble::Refuses(_)) => Ok(true),
            (outcome, _) => outcome.map(|()| false),
        }
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
        self.calls.sent.fetch_add(bytes.len(), Ordering::Relaxed);
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

    fn admits(&mut self, launch: &Launch) -> Result<bool> {
        Ok(!self.refuses("a question about a launch")? && self.inner.admits(launch)?)
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        if launch.cooperative && self.refuses("a launch")? {
            self.properties.cooperative = false;
            return Err(Error::device("emulated", "a cooperative launch was refused"));
        }
        if !launch.cooperative {
            self.call("a launch")?;
        }
        if self.idle {
            return Ok(());
        }
        self.inner.launch(launch)
    }

    fn capture(&mut self, launches: &[Launch]) -> Result<Option<GraphHandle>> {
        self.calls.captures.fetch_add(1, Ordering::Relaxed);
        if self.refuses("a capture")? || self.trouble == Trouble::NoCaptures {
            return Ok(None);
        }
        self.calls.graph.fetch_add(1, Ordering::Relaxed);
        self.inner.capture(launches)
    }

    fn replay(&mut self, graph: GraphHandle) -> Result<bool> {
        if self.refuses("a replay")? {
            return Ok(false);
        }
        self.calls.replays.fetch_add(1, Ordering::Relaxed);
        if self.idle { Ok(true) } else { self.inner.replay(graph) }
    }

    fn drop_graph(&mut self, graph: GraphHandle) {
        self.calls.graph.fetch_sub(1, Ordering::Relaxed);
        self.inner.drop_graph(graph);
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

/// How the small model is opened.
struct Setting {
    trouble: Trouble,
    /// Whether launches are counted only.
    idle: bool,
    memory_free: u64,
    multiprocessors: u32,
    capacity: Capacity,
    capacity_least: Capacity,
    text_pages: PageCount,
    kv_dtype: KvDtype,
    emulated: Settings,
}

impl Default for Setting {
    fn default() -> Setting {
        const FEW: Capacity = Capacity { images: 1, tokens: 8 };
        Setting {
            trouble: Trouble::None,
            idle: false,
            memory_free: PLENTY,
            multiprocessors: 3,
            capacity: FEW,
            capacity_least: FEW,
            text_pages: PageCount { least: 8, most: 8 },
            kv_dtype: KvDtype::Auto,
            emulated: Settings::default(),
        }
    }
}

fn open(setting: Setting) -> (Arc<Calls>, Result<Gpu>) {
    let Setting { trouble, idle, memory_free, multiprocessors, .. } = setting;
    let Setting { capacity, capacity_least, text_pages, kv_dtype, emulated, .. } = setting;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases/idefics-80-kernels/model");
    let folder = Folder::Disk(&path);
    let checkpoint = Arc::new(folder.checkpoint().unwrap());
    let Model { config, names, .. } = Model::open(folder, &checkpoint).unwrap();
    let mut weights = Weights::new(checkpoint, names);
    let levels = Preprocessor::clip(Crop::Stretch, 28).levels();
    let plans = Arc::new(model::record(&config, &levels, &mut weights).unwrap());
    let pages = [text_pages, PageCount { least: 1, most: 1 }];
    let settings = Settings { workers: 1, ..emulated };
    let options = BackendOptions {
        device: Device::Emulated,
        threads: 1,
        dtype: Some(Dtype::Bf16),
        kv_dtype,
        capacity,
        capacity_least,
        emulated: settings.clone(),
    };
    let calls = Arc::<Calls>::default();
    let inner = Emulator::open(settings).unwrap();
    let properties = Properties { memory_free, multiprocessors, ..inner.properties().clone() };
    let driver = Box::new(Faulty { inner, properties, trouble, calls: calls.clone(), idle });
    (calls, Gpu::open(driver, &options, weights, KvConfig::of(&config, pages), plans))
}

/// The one image there is room for.
const IMAGE: [ImagePages; 1] = [ImagePages { pages: &[0], rows: 5 }];

/// An image, a prompt longer than there is room for at first, and the same step of two sequences three times:
/// launched, captured, replayed. Results of the last.
fn use_it(kernels: &mut Gpu) -> Result<Vec<f32>> {
    let pixels: Vec<u8> = (0..28 * 28 * 3).map(|i| (i % 17) as u8).collect();
    kernels.run(PlanKind::Media, &Batch { pixels: &[&pixels], images: &IMAGE, ..Batch::default() })?;
    let positions: Vec<u32> = (0..20).collect();
    kernels.run(
        PlanKind::Text,
        &Batch {
            ids: &[5; 20],
            positions: &positions,
            sequences: &[0; 20],
            tables: &[&[3, 1]],
            seen_images: &IMAGE,
            media: &[MediaSeen::one(0); 20],
            outputs: &[19],
            ..Batch::default()
        },
    )?;
    kernels.copy_text_page(PageCopy { from: 1, to: 2 })?;
    (0..3).try_fold(Vec::new(), |_, _| decode(kernels))
}

/// A step of two sequences; their logits.
fn decode(kernels: &mut Gpu) -> Result<Vec<f32>> {
    let batch = Batch {
        ids: &[7, 8],
        positions: &[20, 20],
        sequences: &[0, 1],
        tables: &[&[3, 1], &[3, 2]],
        seen_images: &IMAGE,
        media: &[MediaSeen::one(0), MediaSeen::NOTHING],
        outputs: &[0, 1],
        ..Batch::default()
    };
    kernels.run(PlanKind::Text, &batch)?;
    let mut logits = Vec::new();
    kernels.fetch(0..2, &mut logits)?;
    Ok(logits)
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_the_sum_by_part() {
    let (calls, kernels) = open(Setting { memory_free: 1 << 20, ..Setting::default() });
    let line = kernels.err().expect("a megabyte is too little").to_string();
    assert_eq!(calls.made.load(Ordering::Relaxed), 0, "nothing is allocated before: {line}");
    for part in ["emulated: expected ", "GB of free memory (weights ", "activations ", "text pages ", "media pages "] {
        assert!(line.contains(part), "{line}");
    }
    assert!(line.ends_with("found 0.00 GB"), "{line}");
}

/// Steps that nobody asked for are halved until the model fits; a model is refused only where the smallest do not.
#[test]
fn steps_are_smaller_where_memory_is_short() {
    let capacity = Capacity { images: 32, tokens: 2048 };
    let mut memory_free = 1 << 28;
    let mut found = Vec::new();
    loop {
        let (_, kernels) =
            open(Setting { idle: true, memory_free, capacity, capacity_least: Capacity::LEAST, ..Setting::default() });
        let Ok(kernels) = kernels else { break };
        let Capacity { images, tokens } = kernels.capacity();
        found.push((tokens, images));
        memory_free -= memory_free / 8;
    }
    found.dedup();
    assert_eq!(found, [(2048, 32), (1024, 16), (512, 8), (256, 8)]);
    let (_, asked) =
        open(Setting { memory_free: memory_free * 8 / 7, capacity, capacity_least: capacity, ..Setting::default() });
    assert!(asked.is_err(), "steps that were asked for are not made smaller");
}

/// Heads of 64 columns: 66 bytes instead of 128.
#[test]
fn memory_holds_more_pages_in_8_bits() {
    let pages = |kv_dtype| {
        let text_pages = PageCount { least: 8, most: 1 << 20 };
        let setting = Setting { idle: true, memory_free: 1 << 26, text_pages, kv_dtype, ..Setting::default() };
        open(setting).1.unwrap().pages().0 as f64
    };
    let more = pages(KvDtype::Int8) / pages(KvDtype::Auto);
    assert!((more - 128.0 / 66.0).abs() < 0.01, "{more} times the pages");
}

#[test]
fn images_travel_as_bytes() {
    let (calls, kernels) = open(Setting { idle: true, ..Setting::default() });
    let mut kernels = kernels.unwrap();
    let frame = vec![7; 28 * 28 * 3];
    let mut send = |frames: u32, present: usize| {
        let before = calls.sent.load(Ordering::Relaxed);
        let mut pixels = vec![&frame[..]; present];
        pixels.resize(frames as usize, &[]);
        kernels
            .run(PlanKind::Media, &Batch { pixels: &pixels, images: &IMAGE, frames: &[frames], ..Batch::default() })
            .unwrap();
        calls.sent.load(Ordering::Relaxed) - before
    };
    // Beside its pixels a frame has its place in its video, and where its pixels are: four words. Of an absent tile
    // that is all.
    assert_eq!(send(3, 3) - send(1, 1), 2 * (frame.len() + 16));
    assert_eq!(send(3, 1) - send(1, 1), 2 * 16);
}

#[test]
fn whichever_call_fails_the_rest_goes_on() {
    let (calls, kernels) = open(Setting::default());
    let mut kernels = kernels.unwrap();
    let opened = calls.made.load(Ordering::Relaxed);
    let want = use_it(&mut kernels).unwrap();
    let all = calls.made.load(Ordering::Relaxed);
    let held = calls.held.load(Ordering::Relaxed);
    assert!(want.iter().all(|logit| logit.is_finite()) && all > opened + 50);
    let next = AtomicUsize::new(0);
    // The one capture and the two replays of it, and of each fused gated block the question and the launch.
    let refusable = calls.refusable.lock().unwrap().clone();
    assert!(refusable.len() >= 5, "{refusable:?}");
    let check = |failing: usize, trouble: Trouble| {
        let (calls, kernels) = open(Setting { trouble, ..Setting::default() });
        let is_typed = |error: &Error| {
            let line = error.to_string();
            assert!(matches!(error, Error::Device { .. }) && line.contains("was made to fail"), "{failing}: {line}");
        };
        let Ok(mut kernels) = kernels.inspect_err(is_typed) else {
            assert!(failing < opened, "{failing}: opening makes no such call");
            return;
        };
        match trouble {
            Trouble::Refuses(_) => assert_eq!(use_it(&mut kernels).unwrap(), want, "{failing}: refused"),
            _ => is_typed(&use_it(&mut kernels).expect_err("the call that fails was made")),
        }
        assert_eq!(use_it(&mut kernels).unwrap(), want, "{failing}: after an error");
        assert_eq!(calls.held.load(Ordering::Relaxed), held, "{failing}: memory");
        assert!(calls.graph.load(Ordering::Relaxed) <= 1, "{failing}: captured sequences");
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get()) {
            scope.spawn(|| {
                loop {
                    let failing = next.fetch_add(1, Ordering::Relaxed);
                    if failing >= all {
                        break;
                    }
                    check(failing, Trouble::Fails(failing));
                    if refusable.contains(&failing) {
                        check(failing, Trouble::Refuses(failing));
                    }
                }
            });
        }
    });
}

#[test]
fn without_cooperative_launches_others_give_the_same_bits() {
    let run = |without_cooperative| {
        let counted = Tally::default();
        let emulated = Settings { without_cooperative, counted: Some(counted.clone()), ..Settings::default() };
        let logits = use_it(&mut open(Setting { emulated, ..Setting::default() }).1.unwrap()).unwrap();
        let kernels = counted.lock().unwrap().iter().map(|(kernel, _)| *kernel).collect::<Vec<_>>();
        (logits, kernels.iter().filter(|kernel| kernel.starts_with("gated_cross_attention")).count())
    };
    let ((fused, some), (composed, none)) = (run(false), run(true));
    assert!(some > 0 && none == 0, "{some} fused gated blocks with, {none} without");
    assert_eq!(fused, composed);
}

#[test]
fn a_capture_that_fails_is_tried_again_ever_more_rarely() {
    let (calls, kernels) = open(Setting { trouble: Trouble::NoCaptures, ..Setting::default() });
    let mut kernels = kernels.unwrap();
    let want = use_it(&mut kernels).unwrap();
    for _ in 3..33 {
        assert_eq!(decode(&mut kernels).unwrap(), want);
    }
    // Of 33 runs, the 2nd, 4th, 8th, 16th and 32nd.
    assert_eq!(calls.captures.load(Ordering::Relaxed), 5);
}

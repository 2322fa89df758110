//! Devices that run the kernels in `kernels/`: a GPU, or the emulator. Everything but the driver is the same for both:
//! memory, launches, batches, replay.

mod arguments;
mod batch;
pub(super) mod cuda;
pub mod driver;
#[cfg(feature = "emulated")]
pub mod emulated;
mod fuse;
mod launch;
mod memory;
mod split;
mod storage;
pub mod tuning;
mod upload;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Backend, BackendOptions, Batch, Capacity, KvConfig, LISTED_MAX, Request, Sampled};
use crate::error::{Error, Result};
use crate::graph::{Counts, PlanKind, Plans};
use crate::kv::PageCopy;
use crate::sample::SUPPRESSED_MAX;
use crate::trace::event;
use crate::weights::Weights;
use arguments::{NO_TOKEN, SampleRequest, SampleTask, SampleToken};
use batch::Shape;
use driver::{Driver, GraphHandle, Launch};
use fuse::Step;
use launch::Launcher;
use memory::{Memory, Room};
use split::Splitting;
use storage::store_values;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What this program has for GPUs.
pub(super) const COMPILED: cuda::Compiled =
    cuda::Compiled { modules: MODULES, architectures: ARCHITECTURES, release: RELEASE };

/// Shapes whose launches are kept at most; the least recently used gives way. One of a model with 32 layers and as many
/// gated blocks is some 1000 launches of 600 bytes here, and what the driver makes of them.
const GRAPHS_MAX: usize = 64;

/// A model on a device that runs kernels.
pub(crate) struct Gpu {
    driver: Box<dyn Driver>,
    memory: Memory,
    splitting: Splitting,
    plans: Arc<Plans>,
    steps: HashMap<PlanKind, Vec<Step>>,
    /// Those of plans that have fewer where no token sees an image.
    unseeing_steps: HashMap<PlanKind, Vec<Step>>,
    graphs: HashMap<(PlanKind, Shape), CachedGraph>,
    /// What ran last; its output is still there.
    last: Option<(PlanKind, Counts)>,
    /// Counts runs, to tell which kept launches were used last.
    run: u64,
    words: Vec<u32>,
}

/// The launches of a shape that recurs.
struct CachedGraph {
    launches: Vec<Launch>,
    graph: Option<GraphHandle>,
    /// Number of its last run.
    used: u64,
    /// How often it ran.
    runs: u64,
}

impl Gpu {
    pub fn open(
        mut driver: Box<dyn Driver>,
        options: &BackendOptions,
        weights: Weights,
        kv_config: KvConfig,
        plans: Arc<Plans>,
    ) -> Result<Self> {
        let device = options.device.to_string();
        memory::check_widths(&device, &plans, &weights)?;
        let memory = Memory::open(driver.as_mut(), &device, options, &weights, &kv_config, &plans)?;
        if memory.capacity != options.capacity {
            event!(WARN, capacity = ?memory.capacity, "smaller steps: the device has little memory");
        }
        let splitting = Splitting::new(&plans.text, memory.partials_bytes, driver.properties().multiprocessors);
        let steps = plans.all().map(|(kind, plan)| (kind, fuse::steps(&plan.ops))).collect();
        let left = plans.all().map(|(kind, plan)| (kind, plan.ops.len(), fuse::without_images(plan)));
        let fewer = left.filter(|(_, all, left)| left.len() < *all);
        let unseeing_steps = fewer.map(|(kind, _, left)| (kind, fuse::steps(&left))).collect();
        Ok(Gpu {
            driver,
            memory,
            splitting,
            plans,
            steps,
            unseeing_steps,
            graphs: HashMap::new(),
            last: None,
            run: 0,
            words: Vec::new(),
        })
    }

    /// The launches of a plan. Where the device does not admit a cooperative one of them, others do its work.
    fn launches(&mut self, kind: PlanKind, shape: Shape) -> Result<Vec<Launch>> {
        let launches = self.planned(kind, shape, self.driver.properties().cooperative);
        for launch in launches.iter().filter(|launch| launch.cooperative) {
            if !self.driver.admits(launch)? {
                return Ok(self.planned(kind, shape, false));
            }
        }
        Ok(launches)
    }

    fn planned(&self, kind: PlanKind, shape: Shape, cooperative: bool) -> Vec<Launch> {
        let properties = self.driver.properties();
        let launcher = Launcher {
            memory: &self.memory,
            multiprocessors: properties.multiprocessors,
            shared_bytes_max: properties.shared_bytes_max,
            cooperative,
            kind,
            plan: self.plans.get(kind),
            shape,
        };
        let unseeing = self.unseeing_steps.get(&kind).filter(|_| !shape.seeing);
        launcher.launches(unseeing.unwrap_or(&self.steps[&kind]))
    }

    /// Starts a plan. A shape that recurs is captured at its second run and replayed from then on. Where that fails it
    /// is launched as at first, and captured at its 4th, 8th, 16th .. run: soon enough if memory was short for a
    /// moment, rarely enough if the device never captures.
    fn start(&mut self, kind: PlanKind, shape: Shape) -> Result<()> {
        if !shape.capturable {
            return self.launches(kind, shape)?.iter().try_for_each(|launch| self.driver.launch(launch));
        }
        self.run += 1;
        let key = (kind, shape);
        if !self.graphs.contains_key(&key) {
            if self.graphs.len() == GRAPHS_MAX {
                let oldest = self.graphs.iter().min_by_key(|(_, cached)| cached.used).map(|(key, _)| *key);
                if let Some(graph) = oldest.and_then(|oldest| self.graphs.remove(&oldest)?.graph) {
                    self.driver.drop_graph(graph);
                }
            }
            let launches = self.launches(kind, shape)?;
            launches.iter().try_for_each(|launch| self.driver.launch(launch))?;
            self.graphs.insert(key, CachedGraph { launches, graph: None, used: self.run, runs: 1 });
            return Ok(());
        }
        let cached = self.graphs.get_mut(&key).expect("it is there");
        cached.used = self.run;
        cached.runs += 1;
        if cached.graph.is_none() && cached.runs.is_power_of_two() {
            cached.graph = self.driver.capture(&cached.launches)?;
            if cached.graph.is_none() {
                event!(WARN, ?kind, runs = cached.runs, "capture refused: each launch is started by itself");
            }
        }
        if let Some(graph) = cached.graph {
            if self.driver.replay(graph)? {
                return Ok(());
            }
            event!(WARN, ?kind, runs = cached.runs, "captured launches refused");
            self.driver.drop_graph(graph);
            cached.graph = None;
        }
        cached.launches.iter().try_for_each(|launch| self.driver.launch(launch))
    }

    /// Forgets launches whose arguments point to memory that has moved.
    fn forget_all(&mut self) {
        for graph in self.graphs.drain().filter_map(|(_, cached)| cached.graph) {
            self.driver.drop_graph(graph);
        }
    }

    /// Brings a batch to the device; its shape.
    fn feed(&mut self, kind: PlanKind, batch: &Batch) -> Result<Shape> {
        self.last = None;
        let nobody = self.memory.text.nobody();
        let mut shape = batch::write(batch, nobody, &self.splitting, &mut self.words);
        shape.seeing = !self.unseeing_steps.contains_key(&kind) || batch.media.iter().any(|seen| seen.images > 0);
        let room = Room {
            tokens: shape.tokens.max(shape.outputs),
            frames: shape.frames,
            images: shape.images,
            words: self.words.len(),
        };
        if self.memory.make_room(self.driver.as_mut(), room)? {
            self.forget_all();
        }
        let plans = self.plans.clone();
        let plan = plans.get(kind);
        for (input, values) in plan.inputs.iter().zip(batch.inputs) {
            assert_eq!(storage::padded(input.width), input.width, "stored inputs have no padding");
            let stored = store_values(self.memory.dtype, values);
            self.driver.copy_in(self.memory.rows(kind, input).data, &stored)?;
        }
        let mut place = self.memory.activations.pixels;
        for frame in batch.pixels.iter().filter(|frame| !frame.is_empty()) {
            self.driver.copy_in(place, frame)?;
            place = place.plus(frame.len() as u64);
        }
        self.driver.copy_in(self.memory.activations.batch, bytemuck::cast_slice(&self.words))?;
        Ok(shape)
    }
}

/// A request whose list begins at `first`.
fn stored_request(request: &Request, first: usize) -> SampleRequest {
    /// The largest number below 1.
    const BELOW_ONE: f32 = 1.0 - f32::EPSILON / 2.0;
    let stored = SampleRequest { first: first as u32, count: request.listed() as u32 - 1, ..SampleRequest::default() };
    match *request {
        Request::Sample { temperature, top_k, top_p, uniform } => SampleRequest {
            temperature,
            top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
            top_p,
            uniform: (uniform as f32).min(BELOW_ONE),
            ..stored
        },
        Request::Targets(_) => SampleRequest { task: SampleTask::Targets, ..stored },
        Request::TopK { score, .. } => SampleRequest { task: SampleTask::TopK, score, ..stored },
    }
}

impl Gpu {
    /// [`Backend::sample`] from rows `first` on, of requests whose lists have room together.
    fn choose_from(
        &mut self,
        first: usize,
        requests: &[Request],
        suppressed: &[u32],
        sampled: &mut Vec<Sampled>,
    ) -> Result<()> {
        let (mut stored, mut targets) = (Vec::new(), Vec::new());
        for request in requests {
            stored.push(stored_request(request, targets.len()));
            let end = targets.len() + request.listed();
            targets.push(NO_TOKEN);
            if let Request::Targets(wanted) = request {
                targets.extend_from_slice(wanted);
            }
            targets.resize(end, NO_TOKEN);
        }
        let mut bytes = bytemuck::cast_slice(&stored).to_vec();
        bytes.extend_from_slice(bytemuck::cast_slice(suppressed));
        if requests.iter().any(|request| matches!(request, Request::Targets(_))) {
            bytes.extend_from_slice(bytemuck::cast_slice(&targets));
        }
        self.driver.copy_in(self.memory.activations.requests, &bytes)?;
        let width = self.plans.text.output.map_or(0, |output| output.width);
        launch::sample(&self.memory, first, requests, width, suppressed.len())
            .iter()
            .try_for_each(|launch| self.driver.launch(launch))?;
        let mut found = vec![SampleToken::default(); targets.len()];
        self.driver.copy_out(self.memory.activations.found, bytemuck::cast_slice_mut(&mut found))?;
        let mut rest = &found[..];
        for request in requests {
            let (list, behind) = rest.split_at(request.listed());
            let is_there = |found: &&SampleToken| found.token != NO_TOKEN || !matches!(request, Request::TopK { .. });
            let tokens = list[1..].iter().filter(is_there).map(|found| (found.token, found.logit)).collect();
            sampled.push(Sampled { log_sum_exp: list[0].logit, tokens });
            rest = behind;
        }
        Ok(())
    }
}

impl Backend for Gpu {
    fn run(&mut self, kind: PlanKind, batch: &Batch) -> Result<()> {
        let cooperative = self.driver.properties().cooperative;
        let mut outcome = self.feed(kind, batch).and_then(|shape| self.start(kind, shape));
        if outcome.is_err() && cooperative && !self.driver.properties().cooperative {
            // A cooperative launch was refused: the whole batch once more, without any from now on.
            event!(WARN, "cooperative launch refused: gated blocks are several launches from now on");
            self.forget_all();
            outcome = self.feed(kind, batch).and_then(|shape| self.start(kind, shape));
        }
        outcome?;
        self.last = Some((kind, batch.counts()));
        Ok(())
    }

    fn fetch(&mut self, rows: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let (kind, counts) = self.last.expect("a run went before");
        let plan = self.plans.get(kind);
        assert!(plan.output.is_some_and(|output| rows.end <= output.row_count(&counts)));
        memory::fetch(self.driver.as_mut(), &self.memory, kind, plan, rows, out)
    }

    fn can_sample(&self) -> bool {
        true
    }

    fn sample(&mut self, requests: &[Request], suppressed: &[u32]) -> Result<Vec<Sampled>> {
        assert!(self.last.is_some_and(|(kind, counts)| kind == PlanKind::Text && requests.len() <= counts.outputs));
        assert!(suppressed.len() <= SUPPRESSED_MAX && suppressed.is_sorted());
        let mut sampled = Vec::with_capacity(requests.len());
        while let Some(rest) = requests.get(sampled.len()..).filter(|rest| !rest.is_empty()) {
            let mut listed = 0;
            let fits = |request: &&Request| {
                listed += request.listed();
                listed <= LISTED_MAX
            };
            let count = rest.iter().take_while(fits).count();
            assert!(count > 0, "a row lists at most {LISTED_MAX} tokens");
            self.choose_from(sampled.len(), &rest[..count], suppressed, &mut sampled)?;
        }
        Ok(sampled)
    }

    fn measure(&mut self, kind: PlanKind, batch: &Batch, runs: usize) -> Result<f64> {
        let shape = self.feed(kind, batch)?;
        self.driver.start_clock()?;
        for _ in 0..runs {
            self.start(kind, shape)?;
        }
        Ok(self.driver.stop_clock()? / runs as f64)
    }

    fn kernels(&mut self, kind: PlanKind, batch: &Batch) -> Result<Vec<&'static str>> {
        let shape = self.feed(kind, batch)?;
        Ok(self.launches(kind, shape)?.iter().map(|launch| launch.kernel.name()).collect())
    }

    fn measure_empty(&mut self, launches: usize, runs: usize) -> Result<f64> {
        let launches = vec![upload::empty(self.memory.dtype); launches];
        let name = self.driver.properties().name.clone();
        let refused = || Error::device(&name, "expected captured launches, found a device that refuses them");
        let graph = self.driver.capture(&launches)?.ok_or_else(refused)?;
        // The first replay brings the sequence to the device.
        let mut replayed = self.driver.replay(graph)?;
        self.driver.start_clock()?;
        for _ in 0..runs {
            replayed &= self.driver.replay(graph)?;
        }
        let seconds = self.driver.stop_clock()?;
        self.driver.drop_graph(graph);
        if replayed { Ok(seconds / runs as f64) } else { Err(refused()) }
    }

    fn copy_text_page(&mut self, copy: PageCopy) -> Result<()> {
        launch::copy_text_page(&self.memory, copy).iter().try_for_each(|launch| self.driver.launch(launch))
    }

    fn pages(&self) -> (usize, usize) {
        (self.memory.text.pages, self.memory.media.pages)
    }

    fn capacity(&self) -> Capacity {
        self.memory.capacity
    }
}

/// What the compiler says of each kernel and architecture, a line each: registers, bytes of spills, of stack and of
/// static shared memory. Empty in a program that was built without nvcc.
pub fn report() -> &'static str {
    REPORT
}

/// A model on a GPU.
///
/// # Errors
/// No driver, no such device, no kernels for it; a model that does not fit.
pub(super) fn open_cuda(
    index: usize,
    options: &BackendOptions,
    weights: Weights,
    kv_config: KvConfig,
    plans: Arc<Plans>,
) -> Result<Gpu> {
    let driver = Box::new(cuda::open(index, &COMPILED)?);
    Gpu::open(driver, options, weights, kv_config, plans)
}

#[cfg(test)]
mod tests;

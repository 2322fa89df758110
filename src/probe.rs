//! Single operations, small graphs and models of made-up weights on any device, and the scheduler without a model: what
//! tests compare and benches time.
//! Not part of the library's interface; it may change with any version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::backend::{self, Backend, BackendOptions};
use crate::checkpoint::Folder;
use crate::config::ModelConfig;
use crate::engine::Engine;
use crate::error::Result;
use crate::family::Model;
use crate::image::{Crop, Preprocessor};
use crate::model;
use crate::preprocessor;
use crate::weights::Weights;

#[cfg(feature = "emulated")]
pub use crate::backend::emulated;
pub use crate::backend::{
    Batch, Capacity, Device, KvConfig, PageCount, PoolShape, Request, Sampled, Tiling, report, tuning,
};
pub use crate::checkpoint::Dtype;
pub use crate::checkpoint::quantised::{Codes, Owned, OwnedCodes, Quantised};
pub use crate::engine::scheduler::{Bounds, PromptImage, RequestState, Scheduler, SequenceKind, Step, Tokens};
pub use crate::graph::{
    Axis, Cost, Counts, Epilogue, Graph, Index, KvLayer, KvSource, KvSpace, Mask, Op, Plan, PlanKind, Plans, Tensor,
    Weight, Workload,
};
pub use crate::kv::{ImagePages, KvDtype, MEDIA_PAGE_ROWS, MediaSeen, PAGE_TOKENS, PageCopy};
pub use crate::weights::{Kind, Values};

/// Weights of a graph under construction: each gets its numbers when it is asked for.
#[derive(Default)]
pub struct Numbers {
    tensors: BTreeMap<String, Values>,
    asked: Vec<(String, Kind, Weight)>,
}

impl Numbers {
    /// A matrix (rows, columns).
    pub fn matrix(&mut self, rows: usize, columns: usize, values: Vec<f32>) -> Weight {
        self.weight(Kind::Matrix, rows, columns, values)
    }

    /// A matrix (rows, columns), or a vector: one row.
    pub fn weight(&mut self, kind: Kind, rows: usize, columns: usize, values: Vec<f32>) -> Weight {
        assert_eq!(values.len(), rows * columns);
        let weight = self.ask(kind, rows, columns);
        self.tensors.insert(self.asked[weight.id].0.clone(), Values::plain(vec![rows, columns], values));
        weight
    }

    /// A matrix in few bits.
    pub fn quantised(&mut self, matrix: Owned) -> Weight {
        let weight = self.ask(Kind::Matrix, matrix.rows, matrix.columns);
        self.tensors.insert(self.asked[weight.id].0.clone(), Values::quantised(matrix));
        weight
    }

    fn ask(&mut self, kind: Kind, rows: usize, columns: usize) -> Weight {
        let weight = Weight { id: self.asked.len(), rows, columns };
        self.asked.push((format!("w{}", weight.id), kind, weight));
        weight
    }

    /// A matrix (rows, columns) whose numbers the device makes up. All weights of a graph are such, or none is.
    pub fn made_up(&mut self, rows: usize, columns: usize) -> Weight {
        self.ask(Kind::Matrix, rows, columns)
    }

    /// A vector.
    pub fn vector(&mut self, values: Vec<f32>) -> Weight {
        self.weight(Kind::Vector, 1, values.len(), values)
    }

    fn weights(self) -> Result<Weights> {
        let made_up = self.tensors.is_empty() && !self.asked.is_empty();
        let mut weights = if made_up { Weights::random() } else { Weights::from_values(self.tensors) };
        for (name, kind, weight) in self.asked {
            let asked = match kind {
                Kind::Matrix => weights.matrix(&name, weight.rows, weight.columns)?,
                Kind::Vector => weights.vector(&name, weight.columns)?,
            };
            assert_eq!(asked, weight);
        }
        Ok(weights)
    }
}

#[cfg(feature = "emulated")]
impl crate::engine::Options {
    /// What the emulator does besides running kernels.
    #[must_use]
    pub fn emulated(mut self, settings: emulated::Settings) -> Self {
        self.emulated = settings;
        self
    }
}

/// A linear layer of a model's plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinearLayer {
    /// Whether its rows are tokens of text, or else of images.
    pub text: bool,
    /// Columns of x, as they are stored.
    pub columns: usize,
    /// Columns of out.
    pub width: usize,
    /// Whether it is a gated linear unit.
    pub paired: bool,
}

/// The linear layers of a model, each kind once, in order.
///
/// # Errors
/// As for a model.
pub fn linear_layers(config: &ModelConfig) -> Result<Vec<LinearLayer>> {
    let plans = model::record(config, &levels(config), &mut Weights::random())?;
    let layers = plans.all().flat_map(|(_, plan)| &plan.ops).filter_map(|op| match op {
        Op::Linear { x, epilogue, out, .. } => Some(LinearLayer {
            text: matches!(x.axis, Axis::Tokens | Axis::Outputs),
            columns: x.width.next_multiple_of(8),
            width: out.width,
            paired: epilogue.paired,
        }),
        _ => None,
    });
    Ok(BTreeSet::from_iter(layers).into_iter().collect())
}

/// What levels of pixels are to a model of made-up weights.
fn levels(config: &ModelConfig) -> Vec<f32> {
    Preprocessor::clip(Crop::Stretch, config.vision.image_size).levels()
}

/// A device with two plans, their weights and pages.
pub struct Probe {
    backend: Box<dyn Backend>,
    plans: Arc<Plans>,
}

/// Has `work` called in each step of an engine before its device runs, on the thread that steps.
pub fn before_run(engine: &mut Engine, work: impl FnMut() + Send + 'static) {
    engine.before_run(Box::new(work));
}

/// Where and how a probe runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// Storage on devices that run kernels.
    pub dtype: Option<Dtype>,
    /// Storage of keys and values.
    pub kv_dtype: KvDtype,
    /// Worker threads on the processor.
    pub threads: usize,
    /// What the emulator does besides.
    #[cfg(feature = "emulated")]
    pub emulated: emulated::Settings,
}

impl Place {
    /// A device with its defaults.
    pub fn new(device: Device, dtype: Option<Dtype>) -> Place {
        Place {
            device,
            dtype,
            kv_dtype: KvDtype::Auto,
            threads: 0,
            #[cfg(feature = "emulated")]
            emulated: emulated::Settings::default(),
        }
    }
}

impl Probe {
    /// Opens a device for plans with these weights.
    ///
    /// # Errors
    /// As for a model.
    pub fn open(
        place: &Place,
        numbers: Numbers,
        plans: Plans,
        kv_config: KvConfig,
        capacity: Capacity,
    ) -> Result<Probe> {
        Probe::with(place, numbers.weights()?, Arc::new(plans), kv_config, capacity)
    }

    /// Opens a device for a whole model whose weights are made up there.
    ///
    /// # Errors
    /// As for a model.
    pub fn model(place: &Place, config: &ModelConfig, pages: [PageCount; 2], capacity: Capacity) -> Result<Probe> {
        let mut weights = Weights::random();
        let plans = Arc::new(model::record(config, &levels(config), &mut weights)?);
        Probe::with(place, weights, plans, KvConfig::of(config, pages), capacity)
    }

    /// Opens a device for the model of a folder.
    ///
    /// # Errors
    /// As for a model.
    pub fn folder(
        place: &Place,
        folder: &Path,
        pages: [PageCount; 2],
        capacity: Capacity,
    ) -> Result<(Probe, ModelConfig)> {
        let folder = Folder::Disk(folder);
        let checkpoint = Arc::new(folder.checkpoint()?);
        let Model { family, config, names, .. } = Model::open(folder, &checkpoint)?;
        let mut weights = Weights::new(checkpoint, names);
        let preprocessor = preprocessor::open(folder, family.preprocessing, &config.vision)?;
        let plans = Arc::new(model::record(&config, &preprocessor.levels(), &mut weights)?);
        let probe = Probe::with(place, weights, plans, KvConfig::of(&config, pages), capacity)?;
        Ok((probe, config))
    }

    fn with(
        place: &Place,
        weights: Weights,
        plans: Arc<Plans>,
        kv_config: KvConfig,
        capacity: Capacity,
    ) -> Result<Probe> {
        let options = BackendOptions {
            device: place.device,
            threads: place.threads,
            dtype: place.dtype,
            kv_dtype: place.kv_dtype,
            capacity,
            capacity_least: capacity,
            #[cfg(feature = "emulated")]
            emulated: place.emulated.clone(),
        };
        Ok(Probe { backend: backend::open(&options, weights, kv_config, plans.clone())?, plans })
    }

    /// Runs a plan; the rows of its output.
    ///
    /// # Errors
    /// A device that is lost, full, or has found a fault.
    pub fn run(&mut self, kind: PlanKind, batch: &Batch) -> Result<Vec<f32>> {
        self.backend.run(kind, batch)?;
        self.fetch(kind, batch, 0)
    }

    /// The rows of the output of the last run, from row `first` on.
    fn fetch(&mut self, kind: PlanKind, batch: &Batch, first: usize) -> Result<Vec<f32>> {
        let mut found = Vec::new();
        if let Some(output) = self.plans.get(kind).output {
            self.backend.fetch(first..output.row_count(&batch.counts()), &mut found)?;
        }
        Ok(found)
    }

    /// Runs the text plan and chooses from its first rows of logits, one for each request, on a device that does; then
    /// fetches the rows after them. `suppressed` ascends.
    ///
    /// # Errors
    /// As for [`Probe::run`].
    pub fn sample(
        &mut self,
        batch: &Batch,
        requests: &[Request],
        suppressed: &[u32],
    ) -> Result<(Vec<Sampled>, Vec<f32>)> {
        self.backend.run(PlanKind::Text, batch)?;
        let sampled = self.backend.sample(requests, suppressed)?;
        Ok((sampled, self.fetch(PlanKind::Text, batch, requests.len())?))
    }

    /// Seconds of one run, over several without fetching results.
    ///
    /// # Errors
    /// As for [`Probe::run`].
    pub fn measure(&mut self, kind: PlanKind, batch: &Batch, runs: usize) -> Result<f64> {
        self.backend.measure(kind, batch, runs)
    }

    /// The kernels that a run of this batch starts, in order; none on the processor.
    ///
    /// # Errors
    /// As for [`Probe::run`].
    pub fn kernels(&mut self, kind: PlanKind, batch: &Batch) -> Result<Vec<&'static str>> {
        self.backend.kernels(kind, batch)
    }

    /// Seconds of one replay of so many captured launches that do nothing, over several; on a device that runs kernels.
    ///
    /// # Errors
    /// As for [`Probe::run`]; a device that captures no launches.
    pub fn measure_empty(&mut self, launches: usize, runs: usize) -> Result<f64> {
        self.backend.measure_empty(launches, runs)
    }

    /// Copies a text page.
    ///
    /// # Errors
    /// As for [`Probe::run`].
    pub fn copy_text_page(&mut self, copy: PageCopy) -> Result<()> {
        self.backend.copy_text_page(copy)
    }
}

//! Where plans run. A device knows nothing of models: it holds weights and pages, and runs the operations of a plan on
//! a batch.

mod cpu;
mod device;
mod devices;
mod gpu;
mod shared;

pub use cpu::THREADS_MAX;
#[cfg(feature = "eval")]
pub(crate) use cpu::dot_products;
pub use device::Device;
pub use devices::{DeviceInfo, devices};
#[cfg(feature = "capi")]
pub(crate) use gpu::ARCHITECTURES;
#[cfg(feature = "emulated")]
pub use gpu::emulated;
pub use gpu::{report, tuning};

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::checkpoint::Dtype;
use crate::config::ModelConfig;
#[cfg(not(feature = "emulated"))]
use crate::error::Error;
use crate::error::Result;
use crate::graph::{Appended, Counts, PlanKind, Plans, Seen, Tiled, Workload};
use crate::kv::{ImagePages, KvDtype, MediaSeen, PAGE_TOKENS, PageCopy};
use crate::weights::Weights;

/// Shapes of the page pools, fixed when a model is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvConfig {
    /// Pages of [`PAGE_TOKENS`] tokens; a layer for each decoder layer. The fewest are one sequence of full length.
    pub text: PoolShape,
    /// Pages of [`MEDIA_PAGE_ROWS`](crate::kv::MEDIA_PAGE_ROWS) rows of an image; a layer for each gated block.
    pub media: PoolShape,
}

/// Shape of one page pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolShape {
    /// Layers with keys and values of their own.
    pub layers: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width of one.
    pub head_width: usize,
    /// Pages at most, and the least that are of use.
    pub pages: PageCount,
}

impl PoolShape {
    /// Columns of a row of keys, and of values.
    pub fn width(&self) -> usize {
        self.kv_heads * self.head_width
    }
}

impl KvConfig {
    /// What a model needs: `pages` of text and of media.
    pub fn of(config: &ModelConfig, pages: [PageCount; 2]) -> KvConfig {
        let ModelConfig { decoder, gated, .. } = config;
        let [text, media] = pages;
        let (kv_heads, head_width) = (decoder.kv_heads, decoder.head_width());
        let text = PoolShape { layers: decoder.layers, kv_heads, head_width, pages: text };
        let (kv_heads, head_width) = (gated.kv_heads, gated.head_width);
        let media = PoolShape { layers: config.gated_blocks(), kv_heads, head_width, pages: media };
        KvConfig { text, media }
    }
}

/// How many pages a pool is to have, where memory decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageCount {
    /// Fewer are of no use.
    pub least: usize,
    /// More are never needed.
    pub most: usize,
}

/// Units that one run usually has: what a device makes room for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Images of a run, or frames of videos.
    pub images: usize,
    /// Tokens of a run.
    pub tokens: usize,
}

impl Capacity {
    /// The least that any device has where nothing is asked for.
    pub(crate) const LEAST: Capacity = Capacity { images: 8, tokens: 256 };

    /// Half as many of each, but not fewer than `least`; none if these are that already.
    fn halved(self, least: Capacity) -> Option<Capacity> {
        let half = |count: usize, least: usize| if count > least { (count / 2).max(least) } else { count };
        let halved = Capacity { images: half(self.images, least.images), tokens: half(self.tokens, least.tokens) };
        (halved != self).then_some(halved)
    }
}

/// Everything a run needs besides the plan. Rows of the text axis are tokens, in any order of sequences; a sequence's
/// own tokens come in order and together.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    /// Values of the plan's inputs; the plans of a model have none.
    pub inputs: &'a [&'a [f32]],
    /// Of each frame its pixels (side, side, 3), 8 bits; empty: a tile that its image does not have, all zeros.
    pub pixels: &'a [&'a [u8]],
    /// For each image or video, the media pages to fill with its first rows.
    pub images: &'a [ImagePages<'a>],
    /// For each of them, how many frames it has, one after the other in `pixels`; empty: one each.
    pub frames: &'a [u32],
    /// For each of them, how it is cut into tiles, which are its frames; empty where the plan knows no tiles.
    pub tilings: &'a [Tiling],
    /// For each token, its id.
    pub ids: &'a [u32],
    /// For each token, its position in its sequence.
    pub positions: &'a [u32],
    /// For each token, which of `tables` its sequence has.
    pub sequences: &'a [u32],
    /// The text pages of each sequence.
    pub tables: &'a [&'a [u32]],
    /// Images that tokens see, those that one token sees side by side.
    pub seen_images: &'a [ImagePages<'a>],
    /// For each token, which of them it sees.
    pub media: &'a [MediaSeen],
    /// The tokens whose logits are wanted.
    pub outputs: &'a [u32],
}

impl<'a> Batch<'a> {
    /// The images that something is seen of, in order.
    fn seen(&self, seen: &MediaSeen) -> &'a [ImagePages<'a>] {
        &self.seen_images[seen.range()]
    }

    /// How many units it has along each axis.
    pub fn counts(&self) -> Counts {
        let images = self.images.len();
        let frames = if self.frames.is_empty() { images } else { self.frames.iter().sum::<u32>() as usize };
        Counts { frames, images, tokens: self.ids.len(), outputs: self.outputs.len() }
    }

    /// What the costs of its operations depend on.
    pub fn workload(&self) -> Workload {
        let (mut pairs, mut rows_of_page) = (0, BTreeMap::new());
        for (&position, &sequence) in self.positions.iter().zip(self.sequences) {
            let keys = position as usize + 1;
            pairs += keys;
            for (&page, first) in self.tables[sequence as usize].iter().zip((0..keys).step_by(PAGE_TOKENS)) {
                let rows = rows_of_page.entry(page).or_insert(0);
                *rows = PAGE_TOKENS.min(keys - first).max(*rows);
            }
        }
        let images: BTreeSet<usize> = self.media.iter().flat_map(MediaSeen::range).collect();
        let rows = |images: &[ImagePages]| images.iter().map(|image| image.rows as usize).sum::<usize>();
        let keys = images.into_iter().map(|image| self.seen_images[image].rows as usize).sum();
        let pages = self.images.iter().map(|image| image.pages.len()).sum();
        Workload {
            counts: self.counts(),
            frames_longest: self.frame_counts().max().unwrap_or(0) as usize,
            text: Seen { keys: rows_of_page.into_values().sum(), pairs },
            media: Seen { keys, pairs: self.media.iter().map(|seen| rows(self.seen(seen))).sum() },
            appended: Appended { rows: rows(self.images), pages },
            tiled: Tiled::of(self.tilings.iter().map(|tiling| tiling.tiles as usize)),
        }
    }

    /// How many frames each image or video has.
    fn frame_counts(&self) -> impl Iterator<Item = u32> {
        (0..self.images.len()).map(|image| self.frames.get(image).copied().unwrap_or(1))
    }

    /// The first frame of each image or video, and the end of the last.
    fn frame_starts(&self) -> Vec<u32> {
        let mut end = 0;
        let ends = self.frame_counts().map(|count| {
            end += count;
            end
        });
        [0].into_iter().chain(ends).collect()
    }

    /// The place of each frame.
    fn frame_places(&self) -> impl Iterator<Item = FramePlace> {
        let of_image = |(image, count)| (0..count).map(move |number| FramePlace { number, count, image });
        (0..).zip(self.frame_counts()).flat_map(of_image)
    }
}

/// How an image is cut into tiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
pub struct Tiling {
    /// Which shape its tiles have together: a row of the tables of tile embeddings.
    pub ratio: u32,
    /// How many tiles there are; those that plans have more are absent.
    pub tiles: u32,
}

/// Where a frame stands in its video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
struct FramePlace {
    /// Which frame, from 0.
    number: u32,
    /// Of how many.
    count: u32,
    /// Which of the images and videos of the batch that is.
    image: u32,
}

impl FramePlace {
    /// Its place in a table of embeddings of so many rows: a row, and the share of the next one. The table is stretched
    /// over a video that has more frames (paper, appendix B.1).
    fn stretched(self, rows: usize) -> (usize, f32) {
        if self.count as usize <= rows {
            return (self.number as usize, 0.0);
        }
        let place = self.number as f32 * (rows - 1) as f32 / (self.count - 1) as f32;
        (place as usize, place.fract())
    }
}

/// What is wanted of one row of logits.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// One token.
    Sample {
        /// 0: the most likely token. Else logits are divided by it.
        temperature: f32,
        /// Only the k most likely tokens; 0: all.
        top_k: usize,
        /// Only the most likely tokens that together reach this probability; 1: all.
        top_p: f32,
        /// The draw, in [0, 1).
        uniform: f64,
    },
    /// These tokens.
    Targets(Vec<u32>),
    /// The most likely tokens, lower ones first among equals; those that are suppressed are minus infinitely likely.
    TopK {
        /// How many.
        count: usize,
        /// How likely what is before them is: their order is that of its sums with log-probabilities, in f32.
        score: f32,
    },
}

impl Request {
    /// What a device lists for a row: its log-sum-exp and so many tokens.
    pub(crate) fn listed(&self) -> usize {
        1 + match self {
            Request::Sample { .. } => 1,
            Request::Targets(targets) => targets.len(),
            Request::TopK { count, .. } => *count,
        }
    }

    /// Bytes that are fetched for it.
    pub(crate) fn bytes(&self) -> u64 {
        8 * self.listed() as u64
    }
}

/// The most that a device lists for a row.
pub(crate) const LISTED_MAX: usize = 1 << 14;

/// What was found in one row of logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// ln Σ e^logit over the whole row.
    pub log_sum_exp: f32,
    /// The tokens, each with its logit as it came; of the most likely ones fewer where the row has no more.
    pub tokens: Vec<(u32, f32)>,
}

/// A device.
pub(crate) trait Backend: Send {
    /// Runs one of the plans on `batch`. The rows of the plan's output, if it has one, stay on the device until the
    /// next run.
    ///
    /// # Errors
    /// A device that is lost or full. The batch itself is the executor's to check.
    fn run(&mut self, kind: PlanKind, batch: &Batch) -> Result<()>;

    /// Appends `rows` of the output of the last run to `out`.
    ///
    /// # Errors
    /// As for [`Backend::run`].
    fn fetch(&mut self, rows: Range<usize>, out: &mut Vec<f32>) -> Result<()>;

    /// Whether it has [`Backend::sample`].
    fn can_sample(&self) -> bool {
        false
    }

    /// Finds what each request wants, of at most [`LISTED_MAX`] listed tokens, in as many first rows of logits of the
    /// last run, which was of the text plan; none of `suppressed` (ascending) is chosen. What is found in a row depends
    /// on nothing but the row and its request.
    ///
    /// # Errors
    /// As for [`Backend::run`].
    fn sample(&mut self, requests: &[Request], suppressed: &[u32]) -> Result<Vec<Sampled>> {
        unreachable!("{requests:?}, {suppressed:?}: a device that leaves choosing to the host")
    }

    /// Runs a batch again and again as it was last run, without fetching results; seconds for one run, as the device
    /// counts them where it can. For measurements.
    fn measure(&mut self, kind: PlanKind, batch: &Batch, runs: usize) -> Result<f64> {
        let begun = Instant::now();
        for _ in 0..runs {
            self.run(kind, batch)?;
        }
        Ok(begun.elapsed().as_secs_f64() / runs as f64)
    }

    /// The kernels that a run of this batch starts, in order; none on a device without kernels. For measurements.
    fn kernels(&mut self, kind: PlanKind, batch: &Batch) -> Result<Vec<&'static str>> {
        let _ = (kind, batch);
        Ok(Vec::new())
    }

    /// Seconds of one replay of so many captured launches that do nothing. For measurements.
    ///
    /// # Errors
    /// As for [`Backend::run`]; a device that captures no launches.
    fn measure_empty(&mut self, launches: usize, runs: usize) -> Result<f64> {
        unreachable!("{launches} launches, {runs} runs: a device without kernels")
    }

    /// Copies whole text pages, all layers.
    fn copy_text_page(&mut self, copy: PageCopy) -> Result<()>;

    /// Text pages and media pages there are.
    fn pages(&self) -> (usize, usize);

    /// What it has made room for.
    fn capacity(&self) -> Capacity;
}

/// How a device is opened.
#[derive(Debug, Clone)]
pub(crate) struct BackendOptions {
    /// Which one; not [`Device::Auto`].
    pub device: Device,
    /// Worker threads on the processor; 0: one for each core.
    pub threads: usize,
    /// Storage on devices that run kernels, none: as the checkpoint suggests; on the processor, how weights in bf16 are
    /// multiplied.
    pub dtype: Option<Dtype>,
    /// Storage of keys and values.
    pub kv_dtype: KvDtype,
    /// See [`Capacity`].
    pub capacity: Capacity,
    /// Where that does not fit, the device may make room for less; this is the least.
    pub capacity_least: Capacity,
    /// What the emulator does besides; as many workers as threads if it is not said how many.
    #[cfg(feature = "emulated")]
    pub emulated: emulated::Settings,
}

/// Opens a device, with all its pages, the plans it will run and the model's weights.
///
/// # Errors
/// A device that is not there; a model that does not fit, with the sum by part; weights that cannot be read.
pub(crate) fn open(
    options: &BackendOptions,
    weights: Weights,
    kv_config: KvConfig,
    plans: Arc<Plans>,
) -> Result<Box<dyn Backend>> {
    device::check_dtype(options.device, options.dtype)?;
    Ok(match options.device {
        Device::Auto => unreachable!("resolved before anything is opened"),
        Device::Cpu => Box::new(cpu::Cpu::open(options, weights, kv_config, plans)?),
        Device::Cuda(index) => Box::new(gpu::open_cuda(index, options, weights, kv_config, plans)?),
        #[cfg(feature = "emulated")]
        Device::Emulated => {
            let mut settings = options.emulated.clone();
            if settings.workers == 0 {
                settings.workers = options.threads as u32;
            }
            let driver = Box::new(emulated::Emulator::open(settings)?);
            Box::new(gpu::Gpu::open(driver, options, weights, kv_config, plans)?)
        }
        #[cfg(not(feature = "emulated"))]
        Device::Emulated => {
            let message = "expected a program built with --features emulated, found one without";
            return Err(Error::device("emulated", message));
        }
    })
}

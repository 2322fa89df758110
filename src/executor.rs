//! Runs a model's plans on a device: pictures into media pages, tokens into logits. Asserts that what it is given fits
//! the model; it decides nothing.

use std::sync::Arc;

use crate::backend::{self, Backend, Batch, Chosen, Opening, PageCount, Pools, Request, Usual};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::graph::{Counts, Extent, Plans, Seen, Which};
use crate::kv::PageCopy;
use crate::model;
use crate::weights::Weights;

/// A model on a device.
pub(crate) struct Executor {
    backend: Box<dyn Backend>,
    plans: Arc<Plans>,
    frame_values: usize,
    vocabulary: usize,
    latents: usize,
}

impl Executor {
    /// Records the plans and opens the device; `pages` are those of text and of media that its users want.
    ///
    /// # Errors
    /// Weights that are missing or misshapen; a device that is not there or cannot hold the model.
    pub fn open(config: &ModelConfig, mut weights: Weights, opening: &Opening, pages: [PageCount; 2]) -> Result<Self> {
        let plans = Arc::new(model::record(config, &mut weights)?);
        let pools = Pools::of(config, pages);
        let backend = backend::open(opening, weights, pools, plans.clone())?;
        let frame_values = 3 * config.vision.image_size.pow(2);
        let (vocabulary, latents) = (config.decoder.vocabulary, config.media_tokens());
        Ok(Executor { backend, plans, frame_values, vocabulary, latents })
    }

    /// Text pages and media pages that the device has.
    pub fn pages(&self) -> (usize, usize) {
        self.backend.pages()
    }

    /// What the device has made room for.
    pub fn usual(&self) -> Usual {
        self.backend.usual()
    }

    /// Encodes pictures and videos, of so many `frames` each (normalised pixels, (3, side, side) a frame), into media
    /// pages.
    pub fn encode(&mut self, pixels: &[f32], frames: &[u32], pages: &[u32]) -> Result<()> {
        assert_eq!(pixels.len(), frames.iter().sum::<u32>() as usize * self.frame_values);
        assert_eq!(frames.len(), pages.len());
        self.backend.run(Which::Media, &Batch { inputs: &[pixels], images: pages, frames, ..Batch::default() })
    }

    /// Whether there is a plan for [`Executor::features`].
    pub fn has_features(&self) -> bool {
        self.plans.features.is_some()
    }

    /// What the vision tower compares pictures by: features (frames, width) of normalised pixels (frames, 3, side,
    /// side), to `out`.
    pub fn features(&mut self, pixels: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let frames = pixels.len() / self.frame_values;
        // They fill no page.
        let batch = Batch { inputs: &[pixels], images: &vec![0; frames], ..Batch::default() };
        self.backend.run(Which::Features, &batch)?;
        self.backend.fetch(0..frames, out)
    }

    /// Whether the device chooses tokens itself.
    pub fn chooses(&self) -> bool {
        self.backend.chooses()
    }

    /// Runs tokens. On a device that chooses, what it chose for `requests` from the logits of as many first tokens of
    /// `batch.outputs`, none of `forbidden`, which ascends; and the logits of the others.
    pub fn step(&mut self, batch: &Batch, requests: &[Request], forbidden: &[u32]) -> Result<(Vec<Chosen>, Logits)> {
        self.check(batch);
        assert!(requests.len() <= batch.outputs.len() && (requests.is_empty() || self.chooses()));
        self.backend.run(Which::Text, batch)?;
        let mut chosen = Vec::new();
        if !requests.is_empty() {
            chosen = self.backend.choose(requests, forbidden)?;
        }
        let mut logits = Logits { values: Vec::new(), width: self.vocabulary };
        if requests.len() < batch.outputs.len() {
            self.backend.fetch(requests.len()..batch.outputs.len(), &mut logits.values)?;
        }
        let sums = chosen.iter().map(|chosen| chosen.log_sum_exp);
        if sums.chain(logits.values.iter().copied()).any(f32::is_nan) {
            let message = "model: expected logits that are numbers, found NaN: its weights are not usable";
            return Err(Error::argument(message));
        }
        let computed = self.plans.text.output.map_or(0, |output| output.width);
        logits.widen(computed);
        Ok((chosen, logits))
    }

    fn check(&self, batch: &Batch) {
        let tokens = batch.ids.len();
        assert!([batch.positions.len(), batch.sequences.len(), batch.media.len()].iter().all(|&len| len == tokens));
        assert!(batch.ids.iter().all(|&id| (id as usize) < self.vocabulary));
    }

    /// Floating-point operations of encoding `pictures`, and of reading `tokens` tokens of one sequence, each of which
    /// sees a picture, with the logits of the last.
    pub fn flops(&self, pictures: usize, tokens: usize) -> [u64; 2] {
        let encoded = Extent { frames: pictures, images: pictures, ..Extent::default() };
        let read = Counts {
            extent: Extent { tokens, outputs: 1, ..Extent::default() },
            text: Seen { keys: tokens, pairs: tokens * (tokens + 1) / 2 },
            media: Seen { keys: self.latents, pairs: self.latents * tokens },
            ..Counts::default()
        };
        [self.plans.media.flops(&Counts { extent: encoded, ..Counts::default() }), self.plans.text.flops(&read)]
    }

    /// Copies a text page before it is written.
    pub fn copy_text_page(&mut self, copy: PageCopy) -> Result<()> {
        self.backend.copy_text_page(copy)
    }
}

/// Rows of logits of the whole vocabulary. Entries that the checkpoint has no output row for are minus infinity.
pub(crate) struct Logits {
    values: Vec<f32>,
    width: usize,
}

impl Logits {
    /// Fills up rows that have only `computed` entries yet.
    fn widen(&mut self, computed: usize) {
        if computed < self.width {
            let mut values = Vec::with_capacity(self.values.len() / computed * self.width);
            for row in self.values.chunks_exact(computed) {
                values.extend_from_slice(row);
                values.resize(values.len() + self.width - computed, f32::NEG_INFINITY);
            }
            self.values = values;
        }
    }

    /// One row.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.values[index * self.width..][..self.width]
    }
}

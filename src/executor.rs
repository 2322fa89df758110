//! Runs a model's plans on a device: pictures into media pages, tokens into logits. Asserts that what it is given fits
//! the model; it decides nothing.

use std::sync::Arc;

use crate::backend::{self, Backend, Batch, Chosen, Opening, PageCount, Pools, Request};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::graph::{Extent, Plans, Which};
use crate::kv::PageCopy;
use crate::model;
use crate::weights::Weights;

/// A model on a device.
pub(crate) struct Executor {
    backend: Box<dyn Backend>,
    plans: Arc<Plans>,
    picture_values: usize,
    vocabulary: usize,
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
        let picture_values = 3 * config.vision.image_size.pow(2);
        Ok(Executor { backend, plans, picture_values, vocabulary: config.decoder.vocabulary })
    }

    /// Text pages and media pages that the device has.
    pub fn pages(&self) -> (usize, usize) {
        self.backend.pages()
    }

    /// Encodes pictures (normalised pixels, (3, side, side) each) into media pages.
    pub fn encode(&mut self, pixels: &[f32], pages: &[u32]) -> Result<()> {
        assert_eq!(pixels.len(), pages.len() * self.picture_values);
        self.backend.run(Which::Media, &Batch { inputs: &[pixels], images: pages, ..Batch::default() })?;
        Ok(())
    }

    /// Runs tokens; the logits of `batch.outputs`, one row of the whole vocabulary each. Entries that the checkpoint
    /// has no output row for are minus infinity.
    pub fn step(&mut self, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        self.check(batch);
        let logits = self.backend.run(Which::Text, batch)?;
        let width = self.plans.text.output.map_or(0, |output| output.width);
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(not_numbers());
        }
        let whole = |row: &[f32]| {
            let mut row = row.to_vec();
            row.resize(self.vocabulary, f32::NEG_INFINITY);
            row
        };
        Ok(logits.chunks_exact(width).map(whole).collect())
    }

    /// Whether the device chooses tokens itself.
    pub fn chooses(&self) -> bool {
        self.backend.chooses()
    }

    /// Runs tokens and chooses from the logits of `batch.outputs` on the device, none of `forbidden`.
    pub fn choose(&mut self, batch: &Batch, requests: &[Request], forbidden: &[u32]) -> Result<Vec<Chosen>> {
        self.check(batch);
        let chosen = self.backend.choose(batch, requests, forbidden)?;
        if chosen.iter().any(|chosen| chosen.log_sum_exp.is_nan()) {
            return Err(not_numbers());
        }
        Ok(chosen)
    }

    fn check(&self, batch: &Batch) {
        let tokens = batch.ids.len();
        assert!([batch.positions.len(), batch.sequences.len(), batch.media.len()].iter().all(|&len| len == tokens));
        assert!(batch.ids.iter().all(|&id| (id as usize) < self.vocabulary));
    }

    /// Floating-point operations of encoding `pictures`, and of reading `tokens` tokens of one sequence with the logits
    /// of the last.
    pub fn flops(&self, pictures: usize, tokens: usize) -> [u64; 2] {
        let media = Extent { images: pictures, ..Extent::default() };
        let text = Extent { tokens, outputs: 1, ..Extent::default() };
        [self.plans.media.flops(&media, 0), self.plans.text.flops(&text, tokens / 2)]
    }

    /// Copies a text page before it is written.
    pub fn copy_text_page(&mut self, copy: PageCopy) -> Result<()> {
        self.backend.copy_text_page(copy)
    }
}

fn not_numbers() -> Error {
    Error::argument("model: expected logits that are numbers, found NaN: its weights are not usable")
}

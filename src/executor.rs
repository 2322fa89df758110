//! Runs a model's plans on a device: pictures into media pages, tokens into logits. Asserts that what it is given fits
//! the model; it decides nothing.

use crate::backend::{self, Backend, Batch, Device, Pools};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::graph::{Extent, Plan};
use crate::kv::PageCopy;
use crate::model::Model;
use crate::weights::Weights;

/// A model on a device.
pub(crate) struct Executor {
    backend: Box<dyn Backend>,
    media: Plan,
    text: Plan,
    picture_values: usize,
    vocabulary: usize,
}

impl Executor {
    /// Records the plans and opens the device.
    ///
    /// # Errors
    /// Weights that are missing or misshapen; a device that cannot hold them.
    pub fn open(config: &ModelConfig, mut weights: Weights, device: Device, threads: usize) -> Result<Self> {
        let Model { media, text } = Model::record(config, &mut weights)?;
        let pools = Pools {
            text_layers: config.decoder.layers,
            text_width: config.decoder.width,
            media_blocks: config.gated_blocks(),
            media_width: config.gated.heads * config.gated.head_width,
            media_tokens: config.media_tokens(),
        };
        let backend = backend::open(device, threads, weights, pools)?;
        let picture_values = 3 * config.vision.image_size.pow(2);
        Ok(Executor { backend, media, text, picture_values, vocabulary: config.decoder.vocabulary })
    }

    /// Encodes pictures (normalised pixels, (3, side, side) each) into media pages.
    pub fn encode(&mut self, pixels: &[f32], pages: &[u32]) -> Result<()> {
        assert_eq!(pixels.len(), pages.len() * self.picture_values);
        self.backend.run(&self.media, &Batch { pixels, images: pages, ..Batch::default() })?;
        Ok(())
    }

    /// Runs tokens; the logits of `batch.outputs`, one row of the whole vocabulary each. Entries that the checkpoint
    /// has no output row for are minus infinity.
    pub fn step(&mut self, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        let tokens = batch.ids.len();
        assert!([batch.positions.len(), batch.sequences.len(), batch.media.len()].iter().all(|&len| len == tokens));
        assert!(batch.ids.iter().all(|&id| (id as usize) < self.vocabulary));
        let logits = self.backend.run(&self.text, batch)?;
        let width = self.text.output.map_or(0, |output| output.width);
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::argument(
                "model: expected logits that are numbers, found NaN: its weights are not usable",
            ));
        }
        let whole = |row: &[f32]| {
            let mut row = row.to_vec();
            row.resize(self.vocabulary, f32::NEG_INFINITY);
            row
        };
        Ok(logits.chunks_exact(width).map(whole).collect())
    }

    /// Floating-point operations of encoding `pictures`, and of reading `tokens` tokens of one sequence with the logits
    /// of the last.
    pub fn flops(&self, pictures: usize, tokens: usize) -> [u64; 2] {
        let media = Extent { images: pictures, ..Extent::default() };
        let text = Extent { tokens, outputs: 1, ..Extent::default() };
        [self.media.flops(&media, 0), self.text.flops(&text, tokens / 2)]
    }

    /// Copies a text page before it is written.
    pub fn copy_text_page(&mut self, copy: PageCopy) -> Result<()> {
        self.backend.copy_text_page(copy)
    }
}

//! Runs a model's plans on a device: images into media pages, tokens into logits. Asserts that what it is given fits
//! the model; it decides nothing.

mod rows;

use std::sync::Arc;

use crate::backend::{self, Backend, BackendOptions, Batch, Capacity, KvConfig, PageCount, Request, Sampled, Tiling};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::graph::{Counts, PlanKind, Plans, Seen, Tiled, Workload};
use crate::kv::{ImagePages, PageCopy};
use crate::model;
use crate::weights::Weights;
pub(crate) use rows::{RowAnswer, RowQuery, RowRequest, RowResult};

/// A model on a device.
pub(crate) struct Executor {
    backend: Box<dyn Backend>,
    plans: Arc<Plans>,
    frame_bytes: usize,
    vocabulary: usize,
    /// Rows of keys and values of an image.
    media_rows: usize,
    /// See [`Executor::bytes_fetched`].
    bytes_fetched: u64,
}

impl Executor {
    /// Records the plans and opens the device; `pages` are those of text, and of media, that its users want. `levels`
    /// is for [`model::record`].
    ///
    /// # Errors
    /// Weights that are missing or misshapen; a device that is not there or cannot hold the model.
    pub fn open(
        config: &ModelConfig,
        levels: &[f32],
        mut weights: Weights,
        options: &BackendOptions,
        pages: [PageCount; 2],
    ) -> Result<Self> {
        let plans = Arc::new(model::record(config, levels, &mut weights)?);
        let kv_config = KvConfig::of(config, pages);
        let backend = backend::open(options, weights, kv_config, plans.clone())?;
        let frame_bytes = 3 * config.vision.image_size.pow(2);
        let vocabulary = config.decoder.vocabulary;
        let media_rows = config.media_tokens_max();
        Ok(Executor { backend, plans, frame_bytes, vocabulary, media_rows, bytes_fetched: 0 })
    }

    /// Text pages and media pages that the device has.
    pub fn pages(&self) -> (usize, usize) {
        self.backend.pages()
    }

    /// What the device has made room for.
    pub fn capacity(&self) -> Capacity {
        self.backend.capacity()
    }

    /// Bytes of logits, and of what the device found in them, that steps have fetched.
    pub fn bytes_fetched(&self) -> u64 {
        self.bytes_fetched
    }

    /// Encodes images and videos, of so many `frames` each, to the pages of `images`; of each frame its `pixels`
    /// (side, side, 3), none of a tile that the image does not have.
    pub fn encode(
        &mut self,
        pixels: &[&[u8]],
        frames: &[u32],
        tilings: &[Tiling],
        images: &[ImagePages],
    ) -> Result<()> {
        assert_eq!((pixels.len(), frames.len()), (frames.iter().sum::<u32>() as usize, images.len()));
        let tiled = self.plans.tiles.is_some();
        assert!(pixels.iter().all(|frame| frame.len() == self.frame_bytes || tiled && frame.is_empty()));
        let tilings = if tiled { tilings } else { &[] };
        self.backend.run(PlanKind::Media, &Batch { pixels, images, frames, tilings, ..Batch::default() })
    }

    /// Whether there is a plan for [`Executor::features`].
    pub fn has_features(&self) -> bool {
        self.plans.features.is_some()
    }

    /// What the vision tower compares images by: features (frames, width) of `pixels` (side, side, 3) of each frame,
    /// to `out`.
    pub fn features(&mut self, pixels: &[&[u8]], out: &mut Vec<f32>) -> Result<()> {
        assert!(pixels.iter().all(|frame| frame.len() == self.frame_bytes));
        // They fill no page.
        let batch = Batch { pixels, images: &vec![ImagePages::default(); pixels.len()], ..Batch::default() };
        self.backend.run(PlanKind::Features, &batch)?;
        self.backend.fetch(0..pixels.len(), out)
    }

    /// Runs tokens; what comes of the logits of each of `batch.outputs`, which has a query each, in order. None of
    /// `suppressed`, which ascends, is chosen.
    pub fn step(&mut self, batch: &Batch, queries: &[RowQuery], suppressed: &[u32]) -> Result<Vec<RowAnswer>> {
        self.check(batch);
        assert_eq!(queries.len(), batch.outputs.len());
        let can_sample = self.backend.can_sample();
        let on_device: Vec<Option<Request>> =
            queries.iter().map(|query| query.request.on_device().filter(|_| can_sample)).collect();
        // Rows from which the device chooses come first, those of which it also lists tokens before the others.
        let mut order: Vec<usize> = (0..queries.len()).collect();
        order.sort_by_key(|&row| (on_device[row].is_none(), queries[row].top == 0));
        let outputs: Vec<u32> = order.iter().map(|&row| batch.outputs[row]).collect();
        self.backend.run(PlanKind::Text, &Batch { outputs: &outputs, ..*batch })?;
        let mut answers = vec![RowAnswer { result: RowResult::NotFinite, top: Vec::new() }; queries.len()];
        let on_device: Vec<Request> = order.iter().filter_map(|&row| on_device[row].clone()).collect();
        for (&row, sampled) in order.iter().zip(self.sample(&on_device, suppressed)?) {
            answers[row].result = queries[row].request.found(&sampled, suppressed);
        }
        let listed: Vec<Request> = order[..on_device.len()]
            .iter()
            .map(|&row| &queries[row])
            .take_while(|query| query.top > 0)
            .map(RowQuery::top_on_device)
            .collect();
        for (&row, sampled) in order.iter().zip(self.sample(&listed, &[])?) {
            answers[row].top = queries[row].top_found(&sampled);
        }
        let fetched = on_device.len()..queries.len();
        if !fetched.is_empty() {
            let mut logits = Vec::new();
            self.backend.fetch(fetched.clone(), &mut logits)?;
            self.bytes_fetched += size_of_val(&logits[..]) as u64;
            let width = logits.len() / fetched.len();
            for (&row, logits) in order[fetched].iter().zip(logits.chunks_exact_mut(width)) {
                answers[row] = queries[row].find(logits, self.vocabulary, suppressed);
            }
        }
        Ok(answers)
    }

    /// What the device finds in the first rows of the last run.
    fn sample(&mut self, requests: &[Request], suppressed: &[u32]) -> Result<Vec<Sampled>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.bytes_fetched += requests.iter().map(Request::bytes).sum::<u64>();
        self.backend.sample(requests, suppressed)
    }

    fn check(&self, batch: &Batch) {
        let tokens = batch.ids.len();
        assert!([batch.positions.len(), batch.sequences.len(), batch.media.len()].iter().all(|&len| len == tokens));
        assert!(batch.ids.iter().all(|&id| (id as usize) < self.vocabulary));
    }

    /// Floating-point operations of encoding `images`, and of reading `tokens` tokens of one sequence, each of which
    /// sees an image, with the logits of the last.
    pub fn flops(&self, images: usize, tokens: usize) -> [u64; 2] {
        let encoded = Counts { frames: images * self.plans.frames_each(), images, ..Counts::default() };
        let read = Workload {
            counts: Counts { tokens, outputs: 1, ..Counts::default() },
            text: Seen { keys: tokens, pairs: tokens * (tokens + 1) / 2 },
            media: Seen { keys: self.media_rows, pairs: self.media_rows * tokens },
            ..Workload::default()
        };
        let tiled = Tiled::of(std::iter::repeat_n(self.plans.frames_each(), images));
        let encoded = Workload { counts: encoded, tiled, ..Workload::default() };
        [self.plans.media.flops(&encoded), self.plans.text.flops(&read)]
    }

    /// Copies a text page before it is written.
    pub fn copy_text_page(&mut self, copy: PageCopy) -> Result<()> {
        self.backend.copy_text_page(copy)
    }
}

//! Whole models at the configurations that people run, with weights made up on a GPU; tiny ones of the same make in the
//! emulator where there is none. Before anything is timed, the last token of a prompt must give the same bits in the
//! prompt and by itself.

mod figures;
mod real;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use figures::{Least, figure};
use flamant::probe::{
    Batch, Capacity, Device, Dtype, ImagePages, MEDIA_PAGE_ROWS, MediaSeen, PAGE_TOKENS, PageCount, Place, PlanKind,
    Probe,
};

/// How much of everything.
#[derive(Clone, Copy)]
struct Scale {
    tokens: usize,
    images: usize,
    /// Sequences that are decoded together.
    sequences: usize,
    /// Images that are encoded together.
    encoded: usize,
    shots: usize,
    shot_tokens: usize,
}

const FULL: Scale = Scale { tokens: 512, images: 4, sequences: 16, encoded: 8, shots: 8, shot_tokens: 32 };
const TINY: Scale = Scale { tokens: 40, images: 2, sequences: 2, encoded: 2, shots: 1, shot_tokens: 16 };

/// A model with prompts in its pages: sequence s has text pages of its own, and images.
struct Run<'a> {
    probe: Probe,
    config: &'a flamant::config::ModelConfig,
    scale: Scale,
    tables: Vec<Vec<u32>>,
    /// The pages of all images.
    media: Vec<u32>,
}

impl Run<'_> {
    fn open<'a>(place: &Place, config: &'a flamant::config::ModelConfig, scale: Scale) -> Run<'a> {
        let pages = (scale.tokens + 1).div_ceil(PAGE_TOKENS);
        let exactly = |count| PageCount { least: count, most: count };
        let images = scale.sequences * scale.images.max(scale.shots + 1);
        let media: Vec<u32> = (0..(images * config.media_tokens().div_ceil(MEDIA_PAGE_ROWS)) as u32).collect();
        let kv_config = [exactly(scale.sequences * pages), exactly(media.len())];
        let capacity = Capacity { images: scale.encoded.max(scale.shots + 1), tokens: scale.tokens };
        let probe = Probe::model(place, config, kv_config, capacity).expect("the model fits");
        let table = |sequence| (sequence * pages..(sequence + 1) * pages).map(|page| page as u32).collect();
        let tables = (0..scale.sequences).map(table).collect();
        Run { probe, config, scale, tables, media }
    }

    /// Calls `with` with a batch of these images.
    fn images<R>(&mut self, range: std::ops::Range<usize>, with: impl FnOnce(&mut Probe, &Batch) -> R) -> R {
        let side = self.config.vision.image_size;
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let pixels: Vec<u8> = (0..range.len() * 3 * side * side).map(|_| next()).collect();
        let pixels: Vec<&[u8]> = pixels.chunks_exact(3 * side * side).collect();
        let images = &image_pages(&self.media, self.config)[range];
        with(&mut self.probe, &Batch { pixels: &pixels, images, ..Batch::default() })
    }

    /// Calls `with` with a batch of these positions of these sequences, of which the last one gives logits. Images
    /// stand before the text at even distances of a prompt of `tokens`.
    fn text<R>(
        &mut self,
        sequences: std::ops::Range<usize>,
        positions: std::ops::Range<usize>,
        [images, tokens]: [usize; 2],
        with: impl FnOnce(&mut Probe, &Batch) -> R,
    ) -> R {
        let count = sequences.len() * positions.len();
        let each =
            |index: usize| (sequences.start + index / positions.len(), positions.start + index % positions.len());
        let list = |of: &dyn Fn(usize, usize) -> usize| -> Vec<u32> {
            (0..count).map(each).map(|(sequence, position)| of(sequence, position) as u32).collect()
        };
        let vocabulary = self.config.decoder.vocabulary;
        let ids = list(&|sequence, position| (sequence * 7919 + position * 104_729) % vocabulary);
        let seen = list(&|sequence, position| sequence * images + (position * images / tokens).min(images - 1));
        let seen: Vec<MediaSeen> = seen.into_iter().map(MediaSeen::one).collect();
        let seen_images = image_pages(&self.media, self.config);
        let outputs: Vec<u32> = (1..=sequences.len()).map(|end| (end * positions.len() - 1) as u32).collect();
        let tables: Vec<&[u32]> = self.tables.iter().map(Vec::as_slice).collect();
        let batch = Batch {
            ids: &ids,
            positions: &list(&|_, position| position),
            sequences: &list(&|sequence, _| sequence),
            tables: &tables,
            seen_images: &seen_images,
            media: &seen,
            outputs: &outputs,
            ..Batch::default()
        };
        with(&mut self.probe, &batch)
    }

    /// Fills the pages of all sequences; the last token of the first one gives the same logits in any batch.
    fn fill(&mut self) {
        let Scale { tokens, images, sequences, encoded, .. } = self.scale;
        let prompt = [images, tokens];
        for first in (0..sequences * images).step_by(encoded) {
            let pages = first..(first + encoded).min(sequences * images);
            self.images(pages, |probe, batch| probe.run(PlanKind::Media, batch)).expect("images are encoded");
        }
        let mut run = |sequences, positions| {
            self.text(sequences, positions, prompt, |probe, batch| probe.run(PlanKind::Text, batch)).expect("it runs")
        };
        for sequence in 1..sequences {
            run(sequence..sequence + 1, 0..tokens);
        }
        let whole = run(0..1, 0..tokens);
        let alone = run(0..1, tokens - 1..tokens);
        let together = run(0..sequences, tokens - 1..tokens);
        assert!(whole.iter().all(|logit| logit.is_finite()) && whole.iter().any(|logit| *logit != whole[0]));
        assert!(whole == alone && whole == together[..whole.len()], "a row depends on its batch");
    }

    fn measure_text(&mut self, sequences: usize, from: usize, to: usize, prompt: [usize; 2], runs: usize) -> f64 {
        let measured =
            self.text(0..sequences, from..to, prompt, |probe, batch| probe.measure(PlanKind::Text, batch, runs));
        measured.expect("it ran before")
    }

    fn measure_images(&mut self, count: usize, runs: usize) -> f64 {
        self.images(0..count, |probe, batch| probe.measure(PlanKind::Media, batch, runs)).expect("it ran before")
    }
}

/// All images, in pages one after the other.
fn image_pages<'a>(media: &'a [u32], config: &flamant::config::ModelConfig) -> Vec<ImagePages<'a>> {
    let rows = config.media_tokens();
    media.chunks(rows.div_ceil(MEDIA_PAGE_ROWS)).map(|pages| ImagePages { pages, rows: rows as u32 }).collect()
}

fn models(criterion: &mut Criterion) {
    let (place, scale, models) = match figures::gpu() {
        Some(place) => (place, FULL, real::models()),
        None => (Place::new(Device::Emulated, Some(Dtype::Bf16)), TINY, real::tiny_models()),
    };
    let Scale { tokens, images, sequences, encoded, shots, shot_tokens } = scale;
    let prompt = [images, tokens];
    let mut group = criterion.benchmark_group("models");
    group.sample_size(50).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for real::Model { name, config } in &models {
        let mut run = Run::open(&place, config, scale);
        run.fill();
        for count in [1, sequences] {
            let least = Least { bytes: real::step_bytes(config, count, tokens + 1), flops: 0 };
            let title = format!("{name}/decode{count}at{tokens}");
            figure(&mut group, &title, (count as u64, "tokens"), least, |runs| {
                run.measure_text(count, tokens, tokens + 1, prompt, runs)
            });
        }
        let least = Least { bytes: 0, flops: real::prompt_flops(config, tokens) };
        figure(&mut group, &format!("{name}/prefill{tokens}"), (tokens as u64, "tokens"), least, |runs| {
            run.measure_text(1, 0, tokens, prompt, runs)
        });
        let least = Least { bytes: 0, flops: encoded as u64 * real::image_flops(config) };
        figure(&mut group, &format!("{name}/encode{encoded}"), (encoded as u64, "images"), least, |runs| {
            run.measure_images(encoded, runs)
        });
        let (shown, length) = (shots + 1, (shots + 1) * shot_tokens);
        let flops = shown as u64 * real::image_flops(config) + real::prompt_flops(config, length);
        figure(&mut group, &format!("{name}/first{shots}shots"), (1, "tokens"), Least { bytes: 0, flops }, |runs| {
            run.measure_images(shown, runs) + run.measure_text(1, 0, length, [shown, length], runs)
        });
    }
    group.finish();
}

criterion_group!(benches, models);
criterion_main!(benches);

//! A model of 400 million random weights on the processor: a prompt of 4 images and 128 tokens, and single tokens
//! after it; also one token of each of several sequences in one run. The same folder is what
//! `benches/peers/transformers_cpu.py` times. Reports FLOPs and bytes over time too.

mod synthetic;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flamant::probe::{
    Batch, Capacity, Device, ImagePages, MediaSeen, PAGE_TOKENS, PageCopy, PageCount, Place, PlanKind, Probe,
};
use flamant::{Flamingo, Generation, Options, Prompt};
use rayon::prelude::*;

const IMAGES: usize = 4;
const TOKENS: usize = 128;
/// Tokens that a token's time is the mean of.
const STEPS: usize = 16;

fn timed(flamingo: &mut Flamingo, prompt: &Prompt, max_new_tokens: usize) -> flamant::Timings {
    let options = Generation::default().max_new_tokens(max_new_tokens).ignore_eos(true);
    flamingo.generate(prompt, &options, &mut |_| {}).expect("the synthetic model runs").timings
}

/// Sequences that are decoded together, each at this position.
const SEQUENCES: usize = 16;
const POSITION: usize = 320;

/// One more token of each of 1 and of [`SEQUENCES`] sequences, which have pages of their own or share all but the last.
fn together(criterion: &mut Criterion, dtype: synthetic::Dtype) {
    let pages = POSITION / PAGE_TOKENS + 1;
    let exactly = |count| PageCount { least: count, most: count };
    let place = Place::new(Device::Cpu, None);
    let capacity = Capacity { images: 1, tokens: POSITION };
    let count = [exactly(SEQUENCES * pages), exactly(1)];
    let (mut probe, config) =
        Probe::folder(&place, &synthetic::folder(dtype), count, capacity).expect("the synthetic model opens");
    let own = |sequence: usize| (0..pages as u32).map(move |page| (sequence * pages) as u32 + page);
    let apart: Vec<Vec<u32>> = (0..SEQUENCES).map(|sequence| own(sequence).collect()).collect();
    let shared: Vec<Vec<u32>> =
        (0..SEQUENCES).map(|sequence| own(0).take(pages - 1).chain(own(sequence).skip(pages - 1)).collect()).collect();
    let image = [ImagePages { pages: &[0], rows: config.media_tokens() as u32 }];
    let pixels = vec![100; 3 * config.vision.image_size.pow(2)];
    probe.run(PlanKind::Media, &Batch { pixels: &[&pixels], images: &image, ..Batch::default() }).expect("an image");
    let batch = |positions: &[u32], sequences: &[u32], tables: &[Vec<u32>], with: &mut dyn FnMut(&Batch)| {
        let tokens = positions.len();
        let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
        let ids: Vec<u32> = (0..tokens).map(|token| (token * 7919 % config.decoder.vocabulary) as u32).collect();
        let outputs: Vec<u32> = (0..tokens as u32).filter(|&token| token as usize + SEQUENCES >= tokens).collect();
        let media = vec![MediaSeen::one(0); tokens];
        let ids = &ids[..];
        with(&Batch {
            ids,
            positions,
            sequences,
            tables: &tables,
            seen_images: &image,
            media: &media,
            outputs: &outputs,
            ..Batch::default()
        });
    };
    let (prompt, alone): (Vec<u32>, _) = ((0..POSITION as u32).collect(), [0; POSITION]);
    batch(&prompt, &alone, &apart, &mut |batch| drop(probe.run(PlanKind::Text, batch).expect("a prompt")));
    for (from, table) in
        apart.iter().skip(1).flat_map(|table| own(0).zip(table)).filter(|(from, _)| *from + 1 < pages as u32)
    {
        probe.copy_text_page(PageCopy { from, to: *table }).expect("a page");
    }
    let mut group = criterion.benchmark_group(format!("400M {dtype:?} at {POSITION}"));
    group.sample_size(10);
    for (name, count, tables) in
        [("1 sequence", 1, &apart), ("16 apart", SEQUENCES, &apart), ("16 sharing", SEQUENCES, &shared)]
    {
        group.throughput(Throughput::Elements(count as u64));
        let sequences: Vec<u32> = (0..count as u32).collect();
        batch(&vec![POSITION as u32; count], &sequences, tables, &mut |batch| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|runs| {
                    let each = probe.measure(PlanKind::Text, batch, runs as usize).expect("it runs");
                    Duration::from_secs_f64(each * runs as f64)
                });
            });
        });
    }
    group.finish();
}

fn cpu(criterion: &mut Criterion) {
    for dtype in [synthetic::Dtype::F32, synthetic::Dtype::Bf16] {
        let folder = synthetic::folder(dtype);
        let prompt = synthetic::prompt(IMAGES, TOKENS);
        let mut flamingo = Flamingo::open(&folder, &Options::default()).expect("the synthetic model opens");
        let mut group = criterion.benchmark_group(format!("400M {dtype:?}"));
        group.sample_size(10);
        let flops: u64 = flamingo.prompt_flops(IMAGES, TOKENS).iter().sum();
        group.throughput(Throughput::Elements(flops));
        group.bench_function(format!("prompt, {IMAGES} images and {TOKENS} tokens"), |bencher| {
            bencher.iter(|| black_box(timed(&mut flamingo, &prompt, 1)));
        });
        group.throughput(Throughput::Bytes(synthetic::decoder_bytes(dtype)));
        group.bench_function("token", |bencher| {
            bencher.iter_custom(|count| {
                let runs = (0..count).map(|_| timed(&mut flamingo, &prompt, STEPS + 1).decode / STEPS as f64);
                Duration::from_secs_f64(runs.sum())
            });
        });
        group.finish();
        together(criterion, dtype);
    }
    // The limit of a token's time: how fast this machine reads weights at all.
    let numbers = vec![1.0f32; 1 << 28];
    let mut group = criterion.benchmark_group("limit");
    group.sample_size(10).throughput(Throughput::Bytes(4 << 28));
    group.bench_function("reading memory", |bencher| {
        bencher.iter(|| {
            let sums =
                numbers.par_chunks(1 << 20).map(|chunk| chunk.iter().map(|x| x.to_bits()).fold(0, u32::wrapping_add));
            black_box(sums.reduce(|| 0, u32::wrapping_add))
        });
    });
    group.finish();
}

criterion_group!(benches, cpu);
criterion_main!(benches);

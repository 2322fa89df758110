//! A model of 400 million random weights on the processor: a prompt of 4 pictures and 128 tokens, and single tokens
//! after it. The same folder is what `benches/peers/transformers_cpu.py` times. Reports FLOPs and bytes over time too.

mod synthetic;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flamant::{Flamingo, Generation, Options, Prompt};
use rayon::prelude::*;

const PICTURES: usize = 4;
const TOKENS: usize = 128;
/// Tokens that a token's time is the mean of.
const STEPS: usize = 16;

fn timed(flamingo: &mut Flamingo, prompt: &Prompt, tokens_max: usize) -> flamant::Timings {
    let options = Generation { tokens_max, ignore_end: true, ..Generation::default() };
    flamingo.generate(prompt, &options, &mut |_| {}).expect("the synthetic model runs").timings
}

fn cpu(criterion: &mut Criterion) {
    for dtype in [synthetic::Dtype::F32, synthetic::Dtype::Bf16] {
        let folder = synthetic::folder(dtype);
        let prompt = synthetic::prompt(PICTURES, TOKENS);
        let mut flamingo = Flamingo::open(&folder, &Options::default()).expect("the synthetic model opens");
        let mut group = criterion.benchmark_group(format!("400M {dtype:?}"));
        group.sample_size(10);
        let flops: u64 = flamingo.prompt_flops(PICTURES, TOKENS).iter().sum();
        group.throughput(Throughput::Elements(flops));
        group.bench_function(format!("prompt, {PICTURES} pictures and {TOKENS} tokens"), |bencher| {
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

//! A model of 400 million random weights on the processor: a prompt of 4 pictures and 128 tokens, and single tokens
//! after it. The same folder is what `benches/peers/transformers_cpu.py` times. Reports FLOPs and bytes over time too.

mod synthetic;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use flamant::{Flamingo, Generation, Options, Prompt};

/// Tokens of the longer of two runs whose difference is the time of a token.
const TOKENS: usize = 17;

fn timed(flamingo: &mut Flamingo, prompt: &Prompt, tokens_max: usize) -> flamant::Timings {
    let options = Generation { tokens_max, ignore_end: true, ..Generation::default() };
    flamingo.generate(prompt, &options, &mut |_| {}).expect("the synthetic model runs").timings
}

fn cpu(criterion: &mut Criterion) {
    for dtype in [synthetic::Dtype::F32, synthetic::Dtype::Bf16] {
        let folder = synthetic::folder(dtype);
        let prompt = synthetic::prompt(4, 128);
        let mut flamingo = Flamingo::open(&folder, &Options::default()).expect("the synthetic model opens");
        let mut group = criterion.benchmark_group(format!("400M {dtype:?}"));
        group.sample_size(10).measurement_time(Duration::from_secs(15));
        group.bench_function("prompt, 4 pictures and 128 tokens", |bencher| {
            bencher.iter(|| black_box(timed(&mut flamingo, &prompt, 1)));
        });
        group.bench_function("token", |bencher| {
            bencher.iter_custom(|count| {
                let begun = Instant::now();
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    let timings = timed(&mut flamingo, &prompt, TOKENS);
                    spent += Duration::from_secs_f64(timings.decode / (TOKENS - 1) as f64);
                }
                black_box(begun);
                spent
            });
        });
        group.finish();
    }
}

criterion_group!(benches, cpu);
criterion_main!(benches);

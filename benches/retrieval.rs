//! The search for similar images: 32 of 100,000 rows of 768 numbers, for a query alone and for 64 together. Beside
//! the time of a call it prints that of a query, and how fast the support set was read, each byte counted once a call.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use flamant::eval::retrieval::{Features, nearest};

const SUPPORT: usize = 100_000;
const DIMENSION: usize = 768;
const SHOTS: usize = 32;

fn noise(count: usize, seed: u32) -> Features {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values = (0..count * DIMENSION).map(|_| next()).collect();
    Features::normalised(values, DIMENSION).expect("noise has a direction")
}

fn retrieval(criterion: &mut Criterion) {
    let support = noise(SUPPORT, 1);
    for count in [1, 64] {
        let queries = noise(count, 2);
        let (mut calls, mut spent) = (0, Duration::ZERO);
        criterion.bench_function(&format!("{SHOTS} of {SUPPORT} x {DIMENSION}, {count} queries"), |bencher| {
            bencher.iter_custom(|iterations| {
                let begun = Instant::now();
                for _ in 0..iterations {
                    std::hint::black_box(nearest(&queries, &support, SHOTS, |_, _| true));
                }
                calls += iterations;
                spent += begun.elapsed();
                begun.elapsed()
            });
        });
        let call = spent.as_secs_f64() / calls as f64;
        let bytes = size_of_val(support.values()) as f64;
        println!("{:.2} ms a query, {:.1} GB/s", call * 1e3 / count as f64, bytes / call / 1e9);
    }
}

criterion_group!(benches, retrieval);
criterion_main!(benches);

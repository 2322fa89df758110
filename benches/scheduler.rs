//! The scheduler alone, without a model: a step of 256 sequences that write behind one prefix, and the step in which 64
//! of them come in. Everything a step costs on the host besides running it: who runs, which pages, which rows.

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use flamant::probe::{Bounds, MediaSeen, PromptImage, RequestState, Scheduler, SequenceKind, Step, Tokens};

/// Tokens that all have in common, and a sequence's own.
const PREFIX: u32 = 320;
const TAIL: u32 = 20;
const ROOM: usize = 600;

fn requests(count: u32) -> Scheduler<()> {
    let bounds = Bounds { requests: 256, tokens: 8192, frames: 4, prefix_caching: true };
    let mut scheduler = Scheduler::new(bounds, 256 * 40, 64);
    let image = PromptImage { content: blake3::hash(b"an image"), frames: 1, rows: 64 };
    for number in 0..count {
        let ids: Vec<u32> = (0..PREFIX).chain((0..TAIL).map(|token| 1000 + number * TAIL + token)).collect();
        let sees = vec![MediaSeen::one(0); ids.len()];
        let wanted = ids.len() - 1;
        let tokens = Tokens::new(ids, sees, vec![image]);
        scheduler.add(RequestState::new(number.into(), tokens, SequenceKind::Decode, wanted, ROOM, ()));
    }
    scheduler
}

/// Puts a step together and goes on from its rows; how many there were.
fn write(scheduler: &mut Scheduler<()>, step: &mut Step) -> usize {
    scheduler.schedule(step);
    for rows in step.rows.iter().filter(|rows| rows.wanted > 0) {
        let RequestState { prompt, sequences, .. } = &mut scheduler.running[rows.request];
        sequences[0].push(prompt, 7);
        scheduler.hash_decoded(rows.request);
    }
    step.rows.len()
}

fn scheduler(criterion: &mut Criterion) {
    let mut step = Step::default();
    criterion.bench_function("256 sequences write a token", |bencher| {
        // So many steps at a time that no sequence outgrows its room.
        const STEPS: u64 = 200;
        bencher.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for first in (0..count).step_by(STEPS as usize) {
                let mut scheduler = requests(256);
                while write(&mut scheduler, &mut step) < 256 {}
                let begun = Instant::now();
                for _ in first..count.min(first + STEPS) {
                    assert_eq!(write(&mut scheduler, &mut step), 256);
                }
                spent += begun.elapsed();
            }
            spent
        });
    });
    criterion.bench_function("64 sequences come in behind a prefix", |bencher| {
        bencher.iter_batched_ref(|| requests(64), |scheduler| write(scheduler, &mut step), BatchSize::SmallInput);
    });
}

criterion_group!(benches, scheduler);
criterion_main!(benches);

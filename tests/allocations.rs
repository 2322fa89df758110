//! The scheduler asks for no memory in steady state: 256 sequences that write, step after step.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use flamant::probe::{Bounds, MediaSeen, PromptImage, RequestState, Scheduler, SequenceKind, Step, Tokens};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is handed on to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_step_of_writing_allocates_nothing() {
    const SEQUENCES: usize = 256;
    let bounds = Bounds { requests: SEQUENCES, tokens: 512, frames: 4, prefix_caching: true };
    let mut scheduler: Scheduler<()> = Scheduler::new(bounds, SEQUENCES * 40, 64);
    let image = PromptImage { content: blake3::hash(b"an image"), frames: 1, rows: 64 };
    for number in 0..SEQUENCES as u64 {
        // A prefix that all share, and a tail of one's own.
        let ids: Vec<u32> = (0..48).chain([number as u32 + 100; 9]).collect();
        let sees = vec![MediaSeen::one(0); ids.len()];
        let tokens = Tokens::new(ids, sees, vec![image]);
        scheduler.add(RequestState::new(number, tokens, SequenceKind::Decode, 56, 600, ()));
    }
    let mut step = Step::default();
    let mut write = || {
        scheduler.schedule(&mut step);
        for rows in &step.rows {
            let RequestState { prompt, sequences, .. } = &mut scheduler.running[rows.request];
            if rows.wanted > 0 {
                sequences[0].push(prompt, 7);
                scheduler.hash_decoded(rows.request);
            }
        }
        step.rows.len()
    };
    while write() < SEQUENCES {}
    // Once all have begun a page, the lists are as long as they get.
    for _ in 0..16 {
        write();
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..200 {
        assert_eq!(write(), SEQUENCES);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}

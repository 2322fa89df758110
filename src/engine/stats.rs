//! What an engine counts.

use std::time::Instant;

use crate::kv::PagePool;

/// Counts since an engine was opened, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that wait now.
    pub requests_waiting: usize,
    /// Requests that run now.
    pub requests_running: usize,
    /// Requests that were answered.
    pub requests_finished: u64,
    /// Requests that were cancelled.
    pub requests_cancelled: u64,
    /// Requests that failed, with the device or by themselves.
    pub requests_failed: u64,
    /// Steps that ran tokens.
    pub steps: u64,
    /// Tokens that ran.
    pub tokens_computed: u64,
    /// Tokens of answered requests that were found in pages instead.
    pub tokens_cached: u64,
    /// Tokens of answers; of choices, tokens that had to be read.
    pub tokens_written: u64,
    /// Images that were encoded.
    pub images_encoded: u64,
    /// Images of answered requests that did not have to be.
    pub images_cached: u64,
    /// How often a request gave up its pages to an earlier one, to be resumed later.
    pub preemptions: u64,
    /// Pages of 16 tokens.
    pub text_pages: PagesNow,
    /// Pages of 64 rows of an image.
    pub media_pages: PagesNow,
    /// Images whose pages requests hold.
    pub images_held: usize,
    /// Images whose pages are kept for when they are seen again, until their room is needed.
    pub images_kept: usize,
    /// Seconds of putting steps together.
    pub schedule_seconds: f64,
    /// Seconds of encoding images.
    pub media_seconds: f64,
    /// Seconds of running tokens.
    pub text_seconds: f64,
    /// Seconds of choosing tokens and writing text.
    pub commit_seconds: f64,
    /// Bytes of logits, and of what the device found in them, that were fetched from it.
    pub bytes_fetched: u64,
    /// When the step under way began, seen from another thread; none between steps.
    pub step_begun: Option<Instant>,
    /// When the last step that ran tokens ended.
    pub last_step: Option<Instant>,
}

/// The pages of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PagesNow {
    /// All.
    pub total: usize,
    /// Those that requests hold.
    pub held: usize,
    /// Those that are kept for their content, until their room is needed.
    pub cached: usize,
}

impl PagesNow {
    pub(super) fn of(pool: &PagePool) -> PagesNow {
        PagesNow { total: pool.total(), held: pool.held().pages, cached: pool.cached().pages }
    }
}

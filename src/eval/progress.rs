//! What an evaluation tells while it runs.

use std::sync::Arc;

/// How far an evaluation is, or what it has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Features of images, for examples that are alike; several times where there are several sets.
    Features {
        /// Images or videos that are encoded.
        done: usize,
        /// All of this set.
        total: usize,
    },
    /// Answers, those of an earlier start among them.
    Answers {
        /// Answers there are.
        done: usize,
        /// All.
        total: usize,
    },
    /// Something that is not as it might be, in a line; it is no error.
    Note(&'a str),
}

/// Who is told, on any thread.
pub(super) type Observer = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

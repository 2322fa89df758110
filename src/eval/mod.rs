//! Few-shot evaluation as the published numbers were made.

pub mod metrics;

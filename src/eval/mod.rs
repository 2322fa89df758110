//! Few-shot evaluation as the published numbers were made: sets, prompts, shown examples, metrics, and the page that
//! tells of it. [`Evaluation`] runs one on an engine; what stands beside it runs no model.

pub mod benchmark;
pub mod data;
pub mod judge;
pub mod metrics;
pub mod page;
pub mod published;
pub mod results;
pub mod retrieval;
pub mod shots;
pub mod symbols;
pub mod template;

mod evaluation;
mod findings;
mod media;
mod open;
mod plan;
mod progress;
mod records;
mod run;
mod settings;
mod similar;

pub use evaluation::{Evaluation, Report};
pub use progress::Progress;
pub use settings::{PERMUTATIONS_MAX, SHOTS_MAX, Settings, Subject};

//! Few-shot evaluation as the published numbers were made: sets, prompts, shown examples, metrics, and the page that
//! tells of it. Nothing here runs a model.

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

mod replace;

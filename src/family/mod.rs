//! A room for each family of models: what its files mean. Everything below knows models by numbers and choices alone.

mod clip;
mod idefics;
mod language;
mod open_flamingo;
mod tables;

use crate::checkpoint::Checkpoint;
use crate::config::{Family, ModelConfig};
use crate::weights::Names;

/// What a model's checkpoint calls its weights.
pub fn names(config: &ModelConfig, checkpoint: &Checkpoint) -> Box<dyn Names> {
    match config.family {
        Family::Idefics => idefics::names(),
        Family::OpenFlamingo => open_flamingo::names(config, checkpoint),
    }
}

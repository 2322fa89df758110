//! Where plans run. A device knows nothing of models: it holds weights and pages, and runs the operations of a plan on
//! a batch.

mod cpu;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::kv::PageCopy;
use crate::weights::Weights;

/// Which device to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// The processor: plain Rust, the reference for every other device.
    #[default]
    Cpu,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Device::Cpu),
            _ => Err(Error::argument(format!("device: expected cpu, found {text}"))),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => formatter.write_str("cpu"),
        }
    }
}

/// Shapes of the page pools, fixed when a model is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    /// Decoder layers with keys and values in text pages.
    pub text_layers: usize,
    /// Width of a token's keys, and of its values.
    pub text_width: usize,
    /// Gated blocks with keys and values in media pages.
    pub media_blocks: usize,
    /// Width of a latent's keys, and of its values.
    pub media_width: usize,
    /// Latents of a picture.
    pub media_tokens: usize,
}

/// Everything a run needs besides the plan. Rows of the text axis are tokens, in any order of sequences; a sequence's
/// own tokens come in order.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    /// Normalised pixels (images, 3, side, side).
    pub pixels: &'a [f32],
    /// For each picture, the media page to fill.
    pub images: &'a [u32],
    /// For each token, its id.
    pub ids: &'a [u32],
    /// For each token, its position in its sequence.
    pub positions: &'a [u32],
    /// For each token, which of `tables` its sequence has.
    pub sequences: &'a [u32],
    /// The text pages of each sequence.
    pub tables: &'a [&'a [u32]],
    /// For each token, the media page of the picture that precedes it.
    pub media: &'a [Option<u32>],
    /// The tokens whose logits are wanted.
    pub outputs: &'a [u32],
}

/// A device.
pub(crate) trait Backend: Send {
    /// Runs `plan` on `batch`; the rows of the plan's output, if it has one.
    ///
    /// # Errors
    /// A device that is lost or full. The batch itself is the executor's to check.
    fn run(&mut self, plan: &Plan, batch: &Batch) -> Result<Vec<f32>>;

    /// Copies whole text pages, all layers.
    fn copy_text_page(&mut self, copy: PageCopy) -> Result<()>;
}

/// Opens a device, with all its pages and the model's weights.
///
/// # Errors
/// Pages that do not fit; weights that cannot be read.
pub(crate) fn open(device: Device, threads: usize, weights: Weights, pools: Pools) -> Result<Box<dyn Backend>> {
    match device {
        Device::Cpu => Ok(Box::new(cpu::Cpu::open(threads, weights, pools)?)),
    }
}

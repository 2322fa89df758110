//! `flamant devices`: what this machine can run on.

use std::io::Write as _;

use clap::Args;
use flamant::DeviceInfo;
use serde_json::json;

use super::{Outcome, print_json};

/// Show the devices of this machine, with their memory and usual limits, and why a kind is not usable
#[derive(Args)]
#[command(after_help = "\
Example:\n  flamant devices --json")]
pub struct Devices {
    /// Print one line of JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Devices {
    pub fn run(self) -> Outcome {
        let devices = flamant::devices();
        if self.json {
            return print_json(&devices.iter().map(report).collect());
        }
        let mut out = std::io::stdout().lock();
        for device in devices {
            writeln!(out, "{device}")?;
        }
        Ok(())
    }
}

fn report(device: &DeviceInfo) -> serde_json::Value {
    json!({
        "device": device.device.to_string(),
        "name": device.name,
        "units": device.units,
        "compute_capability": device.compute_capability.map(|(major, minor)| format!("{major}.{minor}")),
        "memory_total": device.memory_total,
        "memory_free": device.memory_free,
        "kernels": device.kernels,
        "max_batched_tokens": device.max_batched_tokens,
        "max_batched_images": device.max_batched_images,
        "usable": device.problem.is_none(),
        "problem": device.problem,
    })
}

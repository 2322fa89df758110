//! `flamant devices`: what this machine can run on.

use std::io::Write as _;

use crate::json;
use clap::Args;

use super::{Outcome, Run, output, print_json};

/// Show the devices of this machine, with their memory and usual limits, and why a kind is not usable
#[derive(Args)]
#[command(after_help = "\
Example:\n  flamant devices --json")]
pub struct Devices {
    /// Print one line of JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Run for Devices {
    fn run(self) -> Outcome {
        let devices = crate::devices();
        if self.json {
            return print_json(&devices.iter().map(json::device).collect());
        }
        let mut out = output()?;
        for device in devices {
            writeln!(out, "{device}")?;
        }
        Ok(())
    }
}

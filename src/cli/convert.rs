//! `flamant convert`: three sources of an OpenFlamingo to one folder.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use flamant::convert::{ConvertOptions, convert};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Outcome, Run, say};

/// Join an OpenFlamingo checkpoint, its language model and its vision model in one folder
#[derive(Args)]
#[command(
    next_help_heading = "Files",
    after_help = "\
Example:
  flamant convert --checkpoint checkpoint.pt --language-model mpt-7b --vision-model clip.pt -o of-9b"
)]
pub struct Convert {
    /// The published checkpoint.pt
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Folder of the language model: config.json, weights, tokenizer.json
    #[arg(long, value_name = "DIR")]
    language_model: PathBuf,
    /// CLIP weights: open_clip, transformers or OpenAI names; .safetensors, .pt or .bin
    #[arg(long, value_name = "FILE")]
    vision_model: PathBuf,
    /// A gated block stands before every N-th layer; read from the checkpoint by default
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    cross_attn_every: Option<usize>,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

impl Run for Convert {
    fn run(self) -> Outcome {
        let output = self.output.clone();
        let options = ConvertOptions {
            checkpoint: self.checkpoint,
            language_model: self.language_model,
            vision_model: self.vision_model,
            cross_attn_every: self.cross_attn_every,
            output: self.output,
        };
        let bar = ProgressBar::new(0);
        bar.set_style(
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}").expect("the template is well formed"),
        );
        convert(&options, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        say(format_args!("{} is ready", output.display()));
        Ok(())
    }
}

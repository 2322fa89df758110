//! `flamant quantize`: a model with its large matrices in few bits.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::{Outcome, Run, progress, say};
use crate::checkpoint::read_bounded;
use crate::error::Error;
use crate::hub;
use crate::quantize::{QuantizeOptions, TEXT, WeightFormat, compare, quantize};

/// Matrices whose errors are told.
const TOLD: usize = 5;
/// Bytes of a text to compare by.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Write a model anew with its large matrices in 8 or 4 bits, as compressed-tensors (vLLM) reads them too
#[derive(Args)]
#[command(
    next_help_heading = "Rounding",
    after_help = "\
Examples:\n  flamant quantize idefics-9b --weights int8 -o idefics-9b-int8
  flamant quantize idefics-9b --weights int4 --group 64 --keep layers.0. -o idefics-9b-int4"
)]
pub struct Quantize {
    /// Model folder, or the name of a downloaded one: OWNER/NAME[@REVISION]
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// What matrices of the decoder, the gated blocks and the resampler become
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["int8", "int4", "fp8"]))]
    weights: String,
    /// Columns that share a scale of 4 bits; 64 or 32 where they do not divide a row
    #[arg(long, value_name = "N", default_value = "128", value_parser = PossibleValuesParser::new(["32", "64", "128"])
        .map(|text| text.parse::<usize>().unwrap_or_default()))]
    group: usize,
    /// Leave tensors as they are whose names have this in them; may be given more than once
    #[arg(long, value_name = "PART")]
    keep: Vec<String>,
    /// Round the vision tower, too
    #[arg(long)]
    vision: bool,
    /// Round the head, too, where it is not the table of embeddings
    #[arg(long)]
    head: bool,
    /// No zero points beside 4 bits, for programs that read none: several times the error
    #[arg(long)]
    symmetric: bool,
    /// Text with which the two models are compared in the end; one of the program's own if none is given
    #[arg(help_heading = "Files", long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Folder to make
    #[arg(help_heading = "Files", short, long, value_name = "DIR")]
    output: PathBuf,
}

impl Run for Quantize {
    fn run(self) -> Outcome {
        // The length comes with the first bytes.
        let bar = progress(1, "{bar:40} {bytes}/{total_bytes} {eta}");
        let mut advance = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let model = hub::resolve(&self.model)?;
        let text = match &self.text {
            Some(file) => String::from_utf8(read_bounded(file, TEXT_BYTES_MAX)?)
                .map_err(|reason| Error::malformed(file, "text", "UTF-8", reason))?,
            None => TEXT.to_owned(),
        };
        let weights = match self.weights.as_str() {
            "int8" => WeightFormat::Int8,
            "int4" => WeightFormat::Int4,
            _ => WeightFormat::Fp8,
        };
        let options = QuantizeOptions::new(&*model, weights, &self.output)
            .group(self.group)
            .keep(self.keep)
            .vision(self.vision)
            .head(self.head)
            .symmetric(self.symmetric);
        let report = quantize(&options, &mut advance)?;
        bar.finish_and_clear();
        for name in &report.undivided {
            say(format_args!("{name} stays as it is: no group divides its columns"));
        }
        let (before, after, count) = (report.bytes_before, report.bytes_after, report.errors.len());
        say(format_args!("{count} matrices rounded; {after} bytes of weights, {before} before"));
        let mut errors: Vec<_> = report.errors.iter().collect();
        errors.sort_by(|a, b| b.1.total_cmp(a.1));
        for (name, error) in errors.into_iter().take(TOLD) {
            say(format_args!("largest error {error:.2e} in {name}"));
        }
        let found = compare(&model, &self.output, &text)?;
        say(format_args!(
            "{} tokens: divergence {:.2e}, the same likeliest token for {:.2} % of them",
            found.tokens,
            found.divergence,
            100.0 * found.agreement
        ));
        say(format_args!("{} is ready", self.output.display()));
        Ok(())
    }
}

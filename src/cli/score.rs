//! `flamant score`: log-probabilities of a prompt's own tokens.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::files::Output;
use crate::{Error, Limits, json};
use clap::Args;

use super::input::{ModelArguments, PromptArguments};
use super::{Outcome, Run, output, print_json};

/// Log-probability of each token of a prompt, given those before it
#[derive(Args)]
#[command(
    next_help_heading = "Output",
    after_help = "\
Example:
  flamant score MODEL -i cat.png -t 'A cat on a mat.' --json"
)]
pub struct Score {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// Write all logits (tokens, vocabulary) as float32
    #[arg(long, value_name = "FILE.safetensors")]
    logits: Option<PathBuf>,
    /// With --json, tell the N likeliest tokens in the place of each, at most 20
    #[arg(long, value_name = "N", default_value_t = 0, requires = "json", conflicts_with = "logits")]
    top_logprobs: usize,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Run for Score {
    fn check(&self) -> Result<(), Error> {
        self.model.check(Limits::default())?;
        self.prompt.check()
    }

    fn run(self) -> Outcome {
        let mut out = output()?;
        let asked = self.prompt.read()?;
        let mut flamingo = self.model.open()?;
        let (prompt, _) = asked.prompt(flamingo.tokenizer())?;
        let mut file = match &self.logits {
            Some(path) => {
                let tokens = prompt.render(flamingo.tokenizer())?.ids.len();
                Some(LogitsFile::create(path, tokens, flamingo.config().decoder.vocabulary)?)
            }
            None => None,
        };
        let score = match &mut file {
            Some(file) => flamingo.score_with_logits(&prompt, |_, logits| file.add(logits))?,
            None => flamingo.score_top(&prompt, self.top_logprobs)?,
        };
        if let (Some(file), Some(path)) = (file, &self.logits) {
            file.finish(path)?;
        }
        if self.json {
            return print_json(&json::score(&score, flamingo.tokenizer()));
        }
        for (&id, logprob) in score.ids.iter().zip(&score.logprobs) {
            let token = flamingo.tokenizer().token(id);
            match logprob {
                Some(logprob) => writeln!(out, "{logprob:10.4}  {token}")?,
                None => writeln!(out, "{:>10}  {token}", "")?,
            }
        }
        Ok(())
    }
}

/// A safetensors file of one tensor, written row by row.
struct LogitsFile {
    output: Output,
    result: std::io::Result<()>,
}

impl LogitsFile {
    fn create(path: &Path, rows: usize, columns: usize) -> Result<Self, Error> {
        let mut file = LogitsFile { output: Output::create(path)?, result: Ok(()) };
        let tensor =
            serde_json::json!({"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, rows * columns * 4]});
        let mut header = serde_json::json!({"logits": tensor}).to_string();
        // The format wants data aligned to 8 bytes; spaces pad the header.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        file.write(&(header.len() as u64).to_le_bytes());
        file.write(header.as_bytes());
        Ok(file)
    }

    /// Adds a row.
    fn add(&mut self, logits: &[f32]) {
        logits.iter().for_each(|logit| self.write(&logit.to_le_bytes()));
    }

    /// A failure is kept for [`LogitsFile::finish`].
    fn write(&mut self, bytes: &[u8]) {
        if self.result.is_ok() {
            self.result = self.output.write_all(bytes);
        }
    }

    fn finish(self, path: &Path) -> Result<(), Error> {
        self.result.map_err(|error| Error::file(path, error))?;
        self.output.finish()
    }
}

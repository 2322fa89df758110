//! `flamant classify`: ranks given answers by their likelihood.

use std::io::Write as _;

use crate::{Error, Limits, json};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::input::{ModelArguments, PromptArguments};
use super::{Outcome, Run, output, print_json};

/// Rank given answers by their log-likelihood after a prompt
#[derive(Args)]
#[command(
    next_help_heading = "Choices",
    after_help = "\
Example:
  flamant classify MODEL -i a.png -t 'Is it a cat? Answer:' --choice yes --choice no"
)]
pub struct Classify {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// An answer to rank; repeat
    #[arg(long, value_name = "TEXT", required = true, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    choice: Vec<String>,
    /// Rank by the mean over an answer's tokens instead of the sum
    #[arg(long)]
    mean: bool,
    /// Print one line of JSON instead of a table
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Run for Classify {
    fn check(&self) -> Result<(), Error> {
        self.model.check(Limits::default())?;
        self.prompt.check()
    }

    fn run(self) -> Outcome {
        let mut out = output()?;
        let asked = self.prompt.read()?;
        let mut flamingo = self.model.open()?;
        let (prompt, _) = asked.prompt(flamingo.tokenizer())?;
        let classification = flamingo.classify(&prompt, &self.choice)?;
        if self.json {
            return print_json(&json::classification(&classification, self.mean));
        }
        writeln!(out, "{:>6}  {:>10}  {:>10}  choice", "share", "sum", "mean")?;
        for (choice, share) in json::ranked(&classification.choices, self.mean) {
            let percent = 100.0 * share;
            writeln!(out, "{percent:5.1}%  {:10.4}  {:10.4}  {}", choice.sum, choice.mean, choice.text)?;
        }
        Ok(())
    }
}

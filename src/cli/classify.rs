//! `flamant classify`: ranks given answers by their likelihood.

use std::io::Write as _;

use clap::Args;
use flamant::{Choice, Classification};
use serde_json::json;

use super::input::{ModelArguments, PromptArguments};
use super::{Outcome, print_json};

/// Rank given answers by their log-likelihood after a prompt
#[derive(Args)]
pub struct Classify {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// An answer to rank; repeat
    #[arg(long, value_name = "TEXT", required = true, allow_hyphen_values = true)]
    choice: Vec<String>,
    /// Rank by the mean over an answer's tokens instead of the sum
    #[arg(long)]
    mean: bool,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Classify {
    pub fn run(self) -> Outcome {
        let prompt = self.prompt.read()?;
        let mut flamingo = self.model.open()?;
        let Classification { mut choices, timings, .. } = flamingo.classify(&prompt, &self.choice)?;
        let rank = |choice: &Choice| if self.mean { choice.mean } else { choice.sum };
        choices.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
        // What share of the likelihood of all choices each has.
        let best = rank(&choices[0]);
        let total: f64 = choices.iter().map(|choice| (rank(choice) - best).exp()).sum();
        let share = |choice: &Choice| (rank(choice) - best).exp() / total;
        if self.json {
            let ranked: Vec<_> = choices
                .iter()
                .map(|choice| {
                    json!({
                        "choice": choice.text, "token_ids": choice.ids,
                        "sum": choice.sum, "mean": choice.mean, "probability": share(choice),
                    })
                })
                .collect();
            return print_json(&json!({
                "choice": choices[0].text,
                "choices": ranked,
                "timings": {
                    "media_seconds": timings.media,
                    "prompt_seconds": timings.prompt,
                    "decode_seconds": timings.decode,
                },
            }));
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:>6}  {:>10}  {:>10}  choice", "share", "sum", "mean")?;
        for choice in &choices {
            let percent = 100.0 * share(choice);
            writeln!(out, "{percent:5.1}%  {:10.4}  {:10.4}  {}", choice.sum, choice.mean, choice.text)?;
        }
        Ok(())
    }
}

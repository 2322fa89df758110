//! `flamant generate`: writes after a prompt.

use std::io::Write as _;

use crate::{Error, Generation, Limits, json};
use clap::Args;

use super::input::{ModelArguments, PromptArguments};
use super::sampling::GenerationArguments;
use super::{Outcome, Run, output, print_json};

/// Write after a prompt of texts and images
#[derive(Args)]
#[command(after_help = "\
Examples:
  flamant generate MODEL -t 'A photo of' -i cat.png -t '. Caption:' --max-new-tokens 20
  flamant generate MODEL --chat -i cat.png -t 'What is in this image?'
  flamant generate MODEL -p prompt.json --temperature 0.7 --seed 1 --json")]
pub struct Generate {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    generation: GenerationArguments,
    /// With --json, tell the N likeliest tokens in the place of each token written, at most 20
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Output", requires = "json")]
    top_logprobs: usize,
    /// Print one line of JSON at the end instead of words as they come
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Run for Generate {
    fn check(&self) -> Result<(), Error> {
        self.generation().check()?;
        self.model.check(Limits::default())?;
        self.prompt.check()
    }

    fn run(self) -> Outcome {
        let mut out = output()?;
        let mut options = self.generation();
        let asked = self.prompt.read()?;
        let mut flamingo = self.model.open()?;
        let (prompt, stop) = asked.prompt(flamingo.tokenizer())?;
        options.stop.extend(stop);
        if self.json {
            let answer = flamingo.generate(&prompt, &options, &mut |_| {})?;
            return print_json(&json::answer(&answer));
        }
        let mut written = Ok(());
        flamingo.generate(&prompt, &options, &mut |text| {
            if written.is_ok() {
                written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
        })?;
        written?;
        writeln!(out)?;
        Ok(())
    }
}

impl Generate {
    /// As the library takes it.
    fn generation(&self) -> Generation {
        self.generation.generation().top_logprobs(self.top_logprobs)
    }
}

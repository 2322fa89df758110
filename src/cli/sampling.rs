//! Arguments of commands that write: how long, and how each token is chosen.

use crate::{Generation, Sampling};
use clap::Args;

/// How a text is written.
#[derive(Args)]
#[command(next_help_heading = "Generation")]
pub struct GenerationArguments {
    /// Most tokens to write
    #[arg(long, default_value_t = 64)]
    max_new_tokens: usize,
    /// Beams of a beam search; 1 for none
    #[arg(long, default_value_t = 1)]
    num_beams: usize,
    /// A finished text's log-probability is divided by its length to this power
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    length_penalty: f32,
    /// Draw tokens at this temperature; 0 takes the most likely one
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Draw from the k most likely tokens; 0 for all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draw from the most likely tokens that reach this probability together
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Draw from tokens at least this share as likely as the likeliest
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Divide the logits of tokens that occurred before
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// Let no run of N tokens occur twice in prompt and answer; 0 for no such rule
    #[arg(long, value_name = "N", default_value_t = 0)]
    no_repeat_ngram_size: usize,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Text that ends the answer; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on past the model's stop token
    #[arg(long)]
    ignore_eos: bool,
}

impl GenerationArguments {
    /// As the library takes it.
    pub fn generation(&self) -> Generation {
        Generation::default()
            .max_new_tokens(self.max_new_tokens)
            .sampling(
                Sampling::default()
                    .temperature(self.temperature)
                    .top_k(self.top_k)
                    .top_p(self.top_p)
                    .min_p(self.min_p)
                    .repetition_penalty(self.repetition_penalty)
                    .seed(self.seed),
            )
            .num_beams(self.num_beams)
            .length_penalty(self.length_penalty)
            .no_repeat_ngram_size(self.no_repeat_ngram_size)
            .stop(self.stop.clone())
            .ignore_eos(self.ignore_eos)
    }
}

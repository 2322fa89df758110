//! `flamant batch`: answers a file of requests, and goes on where it was stopped.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::batch::{self, Input, Output, Summary};
use crate::{Error, Stats};
use clap::Args;
use indicatif::ProgressBar;

use super::input::{LimitArguments, ModelArguments, PixelArguments};
use super::{Failure, Outcome, Run, output, progress, say, streams};

/// Answer a file of requests, one a line; started again, it goes on where it was stopped
#[derive(Args)]
#[command(
    next_help_heading = "Files",
    after_help = "\
Example:
  flamant batch MODEL -i requests.jsonl -o answers.jsonl

A line of the input:
  {\"prompt\": [{\"text\": \"...\"}, {\"image\": \"a.png\"}, ...]}, and as one likes \"id\", \"task\" (\"generate\",
  \"classify\" with \"choices\" and \"mean\", \"score\") and the settings of generate: \"max_new_tokens\",
  \"num_beams\", \"length_penalty\", \"temperature\", \"top_k\", \"top_p\", \"min_p\", \"repetition_penalty\",
  \"no_repeat_ngram_size\", \"seed\", \"stop\", \"ignore_eos\". Images are data URIs, or paths relative to the
  input (from a pipe: to the working directory).
A line of the output, behind one that says which model it belongs to, in the order in which they are done:
  \"line\", \"id\", and what --json of the task prints, or \"error\" with its \"kind\". Requests that had an
  error are asked again at the next start; the exit code is 3 if some have one."
)]
pub struct Batch {
    #[command(flatten)]
    model: ModelArguments,
    /// Requests, one JSON object a line; - reads standard input
    #[arg(short, long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// Answers, one JSON object a line, appended as they are done; - writes standard output
    #[arg(short, long, value_name = "FILE.jsonl")]
    output: PathBuf,
    #[command(flatten)]
    pixels: PixelArguments,
    #[command(flatten)]
    limits: LimitArguments,
}

impl Run for Batch {
    fn check(&self) -> Result<(), Error> {
        self.model.check(self.limits.limits())
    }

    fn run(self) -> Outcome {
        let stream = |path: &Path| path.as_os_str() == "-";
        let input = match stream(&self.input) {
            true => Input::Reader(Box::new(BufReader::new(streams::input()?)), "standard input".to_owned()),
            false => Input::Path(self.input),
        };
        let is_shown = stream(&self.output);
        let output = match is_shown {
            true => Output::Writer(Box::new(output()?), "standard output".to_owned()),
            false => Output::Path(self.output),
        };
        let batch = batch::Batch::new(input, output)?.prompt_limits(self.pixels.limits());
        let (before, total) = (batch.answered_before(), batch.total());
        let mut engine = self.model.engine(&self.limits)?;
        let begun = Instant::now();
        let bar = match total {
            // It would stand between the answers.
            _ if is_shown => ProgressBar::hidden(),
            Some(total) => progress(total, "{bar:40} {pos}/{len} requests, {eta} left"),
            None => progress(u64::MAX, "{spinner} {pos} requests, {per_sec}"),
        };
        bar.set_position(before);
        let outcome = batch.run(&mut engine, |answered| bar.set_position(answered));
        bar.finish_and_clear();
        let summary = outcome?;
        if total == Some(before) {
            say(format_args!("all {before} requests were answered before"));
            return Ok(());
        }
        print(&summary, before, begun.elapsed().as_secs_f64(), &engine.stats());
        match summary.errors {
            0 => Ok(()),
            errors => Err(Failure::Requests { some: before + summary.answered > errors }),
        }
    }
}

/// What was done, for people.
fn print(summary: &Summary, before: u64, seconds: f64, stats: &Stats) {
    let percent = |part: u64, rest: u64| 100.0 * part as f64 / (part + rest).max(1) as f64;
    let resumed = if before > 0 { format!(", {before} before") } else { String::new() };
    say(format_args!(
        "{} requests answered in {seconds:.1} s{resumed}, {} of them with an error; {:.1} tokens/s written; {:.0} % of \
         prompt tokens and {:.0} % of images were there already",
        summary.answered,
        summary.errors,
        stats.tokens_written as f64 / seconds,
        percent(stats.tokens_cached, stats.tokens_computed),
        percent(stats.images_cached, stats.images_encoded),
    ));
    if summary.noted > 0 {
        let which = "images of which the model does not see all, as \"notes\" in their lines say";
        say(format_args!("{} requests have {which}", summary.noted));
    }
}

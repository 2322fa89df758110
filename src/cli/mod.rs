//! The commands, one file each.

mod batch;
mod bench;
mod classify;
mod convert;
#[cfg(target_os = "linux")]
mod cut;
mod demo;
mod devices;
mod eval;
mod generate;
mod input;
mod inspect;
mod score;

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flamant::Error;
use indicatif::{ProgressBar, ProgressStyle};

/// Runs few-shot visual language models of the Flamingo family (OpenFlamingo, IDEFICS).
#[derive(Parser)]
#[command(version, about, after_help = "Exit codes: 0 done, 1 a file, prompt or device is at fault, 2 usage.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Generate(generate::Generate),
    Score(score::Score),
    Classify(classify::Classify),
    Batch(batch::Batch),
    Bench(bench::Bench),
    Eval(Box<eval::Eval>),
    Inspect(inspect::Inspect),
    Devices(devices::Devices),
    Convert(convert::Convert),
}

/// What a command can fail with.
enum Failure {
    /// The library's one line.
    Error(Error),
    /// Standard output could not be written; a reader that closed it early is no error.
    Output(std::io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Output(error)
    }
}

type Outcome = Result<(), Failure>;

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    cut::name_cut_files();
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Demo(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Score(command) => command.run(),
        Command::Classify(command) => command.run(),
        Command::Batch(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Convert(command) => command.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => complain(&format!("standard output: {error}")),
        Err(Failure::Error(error)) => complain(&error.to_string()),
    }
}

fn complain(line: &str) -> ExitCode {
    // Nobody is left to tell if this fails too.
    let _ = writeln!(std::io::stderr(), "flamant: {line}");
    ExitCode::from(1)
}

/// A bar of progress, if standard error is a terminal.
fn progress(length: u64, template: &str) -> ProgressBar {
    if length == 0 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    ProgressBar::new(length).with_style(ProgressStyle::with_template(template).expect("the template is well formed"))
}

/// A text of a model as standard output gets it: on a terminal without control characters but those of lines, which may
/// move its cursor, change its title or more; else as it is.
fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character.escape_default().to_string())
}

/// `text` with what `escape` makes of control characters, if standard output is a terminal.
fn escaped(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    let is_harmful = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if !text.contains(is_harmful) || !std::io::stdout().is_terminal() {
        return Cow::Borrowed(text);
    }
    let plain = |character| if is_harmful(character) { escape(character) } else { String::from(character) };
    Cow::Owned(text.chars().map(plain).collect())
}

/// Prints one line of JSON.
fn print_json(value: &serde_json::Value) -> Outcome {
    let mut out = std::io::stdout().lock();
    // JSON leaves some control characters as they are.
    writeln!(out, "{}", escaped(&value.to_string(), |character| format!("\\u{:04x}", u32::from(character))))?;
    out.flush()?;
    Ok(())
}

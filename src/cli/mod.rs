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

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use flamant::Error;
use indicatif::{ProgressBar, ProgressStyle};

/// Runs few-shot visual language models of the Flamingo family (OpenFlamingo, IDEFICS).
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 done, 1 a file, prompt or device is at fault, 2 usage, 3 some requests of a batch have errors."
)]
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
    /// Requests have errors, which stand with the answers, if there are some.
    Requests { some: bool },
    /// An argument of a command has a value that it cannot have.
    Usage(clap::Error),
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

/// A command with its arguments.
trait Run {
    /// Whether every argument has a value that it can have, as far as the parser cannot tell; else it is a matter of
    /// usage.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn run(self) -> Outcome;
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    cut::name_cut_files();
    let arguments = Arguments::try_parse().unwrap_or_else(|error| with_usage(error).exit());
    let outcome = match arguments.command {
        Command::Demo(command) => run("demo", command),
        Command::Generate(command) => run("generate", command),
        Command::Score(command) => run("score", command),
        Command::Classify(command) => run("classify", command),
        Command::Batch(command) => run("batch", command),
        Command::Bench(command) => run("bench", command),
        Command::Eval(command) => run("eval", *command),
        Command::Inspect(command) => run("inspect", command),
        Command::Devices(command) => run("devices", command),
        Command::Convert(command) => run("convert", command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => complain(&format!("standard output: {error}")),
        Err(Failure::Usage(error)) => error.exit(),
        Err(Failure::Requests { some: true }) => ExitCode::from(3),
        Err(Failure::Requests { some: false }) => ExitCode::from(1),
        Err(Failure::Error(error)) => complain(&error.to_string()),
    }
}

/// Runs a command if its arguments can be.
fn run(name: &'static str, command: impl Run) -> Outcome {
    let misused = |error: Error| misused(name, ErrorKind::ValueValidation, &error.to_string());
    command.check().map_err(|error| Failure::Usage(misused(error)))?;
    command.run()
}

/// Longest part of what the parser says that is shown: it quotes what it was given.
const MESSAGE_CHARACTERS_MAX: usize = 1000;

/// What the parser says, with the usage of the command that was meant, which it leaves out where a value is wrong.
fn with_usage(error: clap::Error) -> clap::Error {
    let text = error.render().to_string();
    let named = std::env::args_os().nth(1).unwrap_or_default();
    match text.strip_prefix("error: ").filter(|text| !text.contains("\nUsage: ")) {
        Some(text) => {
            let message = text.split("\n\nFor more information").next().unwrap_or(text).trim_end();
            misused(
                &named.to_string_lossy(),
                error.kind(),
                &message.chars().take(MESSAGE_CHARACTERS_MAX).collect::<String>(),
            )
        }
        None => error,
    }
}

/// A fault in the arguments of a command, as the parser tells it.
fn misused(name: &str, kind: ErrorKind, message: &str) -> clap::Error {
    let mut arguments = Arguments::command();
    arguments.build();
    match arguments.find_subcommand_mut(name) {
        Some(command) => command.error(kind, message),
        None => arguments.error(kind, message),
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

//! The `flamant` command line: parses, calls the library, prints. Results go to standard output, all else to standard
//! error. The commands have a file each.

mod batch;
mod bench;
#[cfg(unix)]
mod chat;
mod classify;
mod convert;
#[cfg(target_os = "linux")]
mod cut;
mod demo;
mod devices;
mod eval;
mod generate;
#[cfg(feature = "serve")]
mod health;
mod input;
mod inspect;
mod quantize;
mod sampling;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod streams;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};

use crate::Error;
use clap::error::ErrorKind;
use clap::{Arg, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use streams::{escaped, output, say};

/// Runs few-shot visual language models of the Flamingo family (OpenFlamingo, IDEFICS).
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "\
Exit codes: 0 done, 1 a file, prompt or device is at fault or a result cannot be written, 2 usage, 3 some requests of a
batch have errors."
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
    #[cfg(unix)]
    Chat(Box<chat::Chat>),
    Batch(batch::Batch),
    Bench(bench::Bench),
    Eval(Box<eval::Eval>),
    Inspect(inspect::Inspect),
    Devices(devices::Devices),
    #[cfg(feature = "serve")]
    Serve(Box<serve::Serve>),
    #[cfg(feature = "serve")]
    Health(health::Health),
    Convert(convert::Convert),
    Quantize(quantize::Quantize),
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

/// Parses arguments, the program's name first, and runs the command. The exit code: 0 done, 1 something from outside is
/// wrong (one line says what), 2 usage, 3 some requests of a batch have errors.
///
/// It is for a process of its own: it sets signals and the hook of panics.
pub fn main(arguments: &[OsString]) -> u8 {
    #[cfg(target_os = "linux")]
    cut::name_cut_files();
    Error::hide_caught_panics();
    let arguments = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return ended(tell(&with_usage(error, arguments.get(1)))),
    };
    // A conversion that the system ends, by this signal as by any other, begins anew; others keep what they have.
    #[cfg(target_os = "linux")]
    if !matches!(arguments.command, Command::Convert(_) | Command::Quantize(_)) {
        cut::outlive_limits_of_files();
    }
    let outcome = match arguments.command {
        Command::Demo(command) => run("demo", command),
        Command::Generate(command) => run("generate", command),
        Command::Score(command) => run("score", command),
        Command::Classify(command) => run("classify", command),
        #[cfg(unix)]
        Command::Chat(command) => run("chat", *command),
        Command::Batch(command) => run("batch", command),
        Command::Bench(command) => run("bench", command),
        Command::Eval(command) => run("eval", *command),
        Command::Inspect(command) => run("inspect", command),
        Command::Devices(command) => run("devices", command),
        #[cfg(feature = "serve")]
        Command::Serve(command) => run("serve", *command),
        #[cfg(feature = "serve")]
        Command::Health(command) => run("health", command),
        Command::Convert(command) => run("convert", command),
        Command::Quantize(command) => run("quantize", command),
    };
    ended(match outcome {
        Err(Failure::Usage(error)) => tell(&error),
        other => other.map(|()| 0),
    })
}

/// The arguments; a variable of the environment that is empty counts as one that is not set.
fn parse(arguments: &[OsString]) -> Result<Arguments, clap::Error> {
    let unset = |argument: Arg| match argument.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => argument.env(None::<&str>),
        _ => argument,
    };
    let mut command = Arguments::command();
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |command| command.mut_args(unset));
    }
    let mut matches = command.clone().try_get_matches_from(arguments)?;
    Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The exit code of what came of a command, told in one line where it is a fault.
fn ended(outcome: Result<u8, Failure>) -> u8 {
    match outcome {
        Ok(code) => return code,
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return 0,
        Err(Failure::Output(error)) => say(format_args!("standard output: {error}")),
        Err(Failure::Requests { some: true }) => return 3,
        Err(Failure::Requests { some: false }) => {}
        Err(Failure::Error(error)) => say(error),
        Err(Failure::Usage(error)) => say(error.render()),
    }
    1
}

/// What the parser has to say: help on standard output, all else on standard error.
fn tell(error: &clap::Error) -> Result<u8, Failure> {
    if !error.use_stderr() {
        output()?.flush()?;
        error.print()?;
        return Ok(0);
    }
    let text = error.render().to_string();
    // It quotes what it was given; with colours where it may.
    let _ = match escaped(&text) {
        Cow::Borrowed(_) => error.print(),
        Cow::Owned(text) => std::io::stderr().write_all(text.as_bytes()),
    };
    Ok(error.exit_code() as u8)
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
fn with_usage(error: clap::Error, named: Option<&OsString>) -> clap::Error {
    let text = error.render().to_string();
    match text.strip_prefix("error: ").filter(|text| !text.contains("\nUsage: ")) {
        Some(text) => {
            let message = text.split("\n\nFor more information").next().unwrap_or(text).trim_end();
            misused(
                &named.map_or(Cow::default(), |name| name.to_string_lossy()),
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

/// A bar of progress, if standard error is a terminal.
fn progress(length: u64, template: &str) -> ProgressBar {
    if length == 0 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    ProgressBar::new(length).with_style(ProgressStyle::with_template(template).expect("the template is well formed"))
}

/// Prints one line of JSON.
fn print_json(value: &serde_json::Value) -> Outcome {
    let mut out = output()?;
    writeln!(out, "{value}")?;
    out.flush()?;
    Ok(())
}

//! Lines of a person at a terminal, edited and remembered, or of standard input.

use std::env;
use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Stdin};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustyline::DefaultEditor;
use rustyline::config::{Behavior, Config};
use rustyline::error::ReadlineError;
use signal_hook::consts::SIGINT;

use crate::Error;

use super::super::{say, streams};

/// Lines that are remembered, and bytes of their file.
const HISTORY_LINES_MAX: usize = 1000;
const HISTORY_BYTES_MAX: u64 = 1 << 20;

/// Where lines come from.
pub struct Lines {
    from: From,
    bytes_max: u64,
    stopped: Arc<AtomicBool>,
}

enum From {
    Terminal(Box<DefaultEditor>, Option<PathBuf>),
    Stream(Stdin),
}

impl Lines {
    /// Lines of at most so many bytes. On a terminal, Ctrl-C ends nothing from now on but sets [`Lines::stopped`].
    pub fn open(bytes_max: u64) -> Result<Lines, Error> {
        let stream = streams::input()?;
        let stopped = Arc::<AtomicBool>::default();
        if !stream.is_terminal() {
            return Ok(Lines { from: From::Stream(stream), bytes_max, stopped });
        }
        signal_hook::flag::register(SIGINT, stopped.clone()).map_err(|error| Error::file("the terminal", error))?;
        let settings = Config::builder().behavior(Behavior::PreferTerm).max_history_size(HISTORY_LINES_MAX);
        let settings = settings.map_err(unusable)?.build();
        let mut editor = DefaultEditor::with_config(settings).map_err(unusable)?;
        let history = history().filter(|path| remember(&mut editor, path));
        say("/help says what there is beside turns; Ctrl-D ends");
        Ok(Lines { from: From::Terminal(Box::new(editor), history), bytes_max, stopped })
    }

    /// Whether a person types them.
    pub fn is_terminal(&self) -> bool {
        matches!(self.from, From::Terminal(..))
    }

    /// Set by Ctrl-C while no line is read.
    pub fn stopped(&self) -> Arc<AtomicBool> {
        self.stopped.clone()
    }

    /// The next line, without its end.
    pub fn next(&mut self) -> Result<Option<String>, Error> {
        let most = self.bytes_max;
        let limit = |found| Error::limit("bytes of a turn", most, found);
        match &mut self.from {
            From::Terminal(editor, _) => loop {
                match editor.readline("> ") {
                    Ok(line) if line.len() as u64 > self.bytes_max => say(limit(line.len() as u64)),
                    Ok(line) => {
                        // What is the same as before, or blank, is passed over.
                        let _ = editor.add_history_entry(&line);
                        return Ok(Some(line));
                    }
                    Err(ReadlineError::Interrupted) => say("Ctrl-D ends"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(unusable(error)),
                }
            },
            From::Stream(stream) => {
                let mut line = Vec::new();
                let failed = |error| Error::file("standard input", error);
                // One more, and the line feed.
                let mut bounded = stream.lock().take(self.bytes_max.saturating_add(2));
                if bounded.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                    return Ok(None);
                }
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                if line.len() as u64 > self.bytes_max {
                    return Err(limit(line.len() as u64));
                }
                let text = std::str::from_utf8(line);
                text.map(|text| Some(text.to_owned())).map_err(|error| Error::file("standard input", error.to_string()))
            }
        }
    }

    /// Keeps what was typed for the next time.
    pub fn keep(&mut self) {
        let From::Terminal(editor, Some(path)) = &mut self.from else { return };
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).map_err(ReadlineError::Io);
        if let Err(error) = made.and_then(|()| editor.save_history(path)) {
            say(Error::file(path, error.to_string()));
        }
    }
}

fn unusable(error: ReadlineError) -> Error {
    Error::file("the terminal", error.to_string())
}

/// The file of lines that were typed before, where the system keeps such.
fn history() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").filter(|folder| Path::new(folder).is_absolute()).map(PathBuf::from);
    let state = state.or_else(|| Some(env::home_dir()?.join(".local/state")))?;
    Some(state.join("flamant/chat-history"))
}

/// Reads lines that were typed before; whether the file is there to be written again, or is not there yet.
fn remember(editor: &mut DefaultEditor, path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.len() <= HISTORY_BYTES_MAX => match editor.load_history(path) {
            Ok(()) => true,
            Err(error) => {
                say(Error::file(path, error.to_string()));
                false
            }
        },
        Ok(_) => {
            say(Error::file(path, format!("expected a file of at most {HISTORY_BYTES_MAX} bytes")));
            false
        }
        Err(_) => true,
    }
}

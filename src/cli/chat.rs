//! `flamant chat`: a conversation on the terminal, or with the lines of standard input.

mod lines;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    Chat as Turns, ChatTemplate, Engine, Error, EventKind, Generation, Limits, Prompt, PromptLimits, Request, Role,
};
use clap::Args;

use super::input::{DeviceArguments, ModelOrDemo, PixelArguments};
use super::sampling::GenerationArguments;
use super::streams::Output;
use super::{Failure, Outcome, Run, output, say};
use lines::Lines;

const HELP: &str = "\
/image PATH   show an image with the next turn; again for more (an empty line sends images alone)
/system TEXT  tell the model something before the conversation; nothing to take it back
/undo         take the last turn and its answer back
/reset        begin anew
/quit         end, as Ctrl-D does
//TEXT        say a text that begins with a slash
Ctrl-C stops an answer and keeps what came of it.
";

/// Converse: a turn a line, with images
#[derive(Args)]
#[command(after_help = "\
On a terminal, /help says what there is beside turns. Otherwise each line of standard input is a turn, and each answer
is followed by a line feed.

Examples:
  flamant chat MODEL
  flamant chat MODEL --max-new-tokens 200 < turns.txt")]
pub struct Chat {
    #[command(flatten)]
    model: ModelOrDemo,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    pixels: PixelArguments,
    /// How turns become a prompt: the name of a template, or a JSON file of its texts; the model's own, if not given
    #[arg(help_heading = "Conversation", long, value_name = "FILE|NAME")]
    chat_template: Option<String>,
    /// What the system tells the model before the conversation
    #[arg(help_heading = "Conversation", long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    #[command(flatten)]
    generation: GenerationArguments,
}

impl Run for Chat {
    fn check(&self) -> Result<(), Error> {
        self.generation.generation().check()?;
        self.device.check(Limits::default())
    }

    fn run(self) -> Outcome {
        let mut out = output()?;
        let template = self.chat_template.as_deref().map(ChatTemplate::open).transpose()?;
        let engine = self.model.open(&self.device)?.into_engine();
        let template = template.unwrap_or_else(|| engine.tokenizer().chat().clone());
        let mut options = self.generation.generation();
        options.stop.extend(template.stop.iter().cloned());
        let limits = self.pixels.limits();
        let mut lines = Lines::open(limits.text_bytes_max as u64)?;
        let conversation = Conversation::new(limits, template, self.system);
        let mut partner = Partner { engine, options, conversation, stopped: lines.stopped() };
        while let Some(line) = lines.next()? {
            match partner.hear(&line, &mut out) {
                Ok(true) => {}
                Ok(false) => break,
                // A person says it otherwise; a script has gone wrong.
                Err(Failure::Error(error)) if lines.is_terminal() => say(error),
                Err(failure) => return Err(failure),
            }
        }
        lines.keep();
        Ok(())
    }
}

/// What was said.
struct Conversation {
    limits: PromptLimits,
    template: ChatTemplate,
    system: Option<String>,
    turns: Vec<(Role, Prompt)>,
    /// Images of the next turn.
    pending: Prompt,
}

impl Conversation {
    fn new(limits: PromptLimits, template: ChatTemplate, system: Option<String>) -> Conversation {
        let pending = Prompt::with_limits(limits.clone());
        Conversation { limits, template, system, turns: Vec::new(), pending }
    }

    /// Adds an image to the next turn.
    fn show(&mut self, path: &str) -> Result<(), Error> {
        let told = self.pending.notes().len();
        self.pending.image_file(path)?;
        self.pending.notes()[told..].iter().for_each(say);
        Ok(())
    }

    /// The user's turn: a text behind images that were shown.
    fn ask(&mut self, text: &str) -> Result<(), Error> {
        let mut parts = self.pending.clone();
        if !text.is_empty() {
            parts.text(text)?;
        }
        self.turns.push((Role::User, parts));
        self.pending = Prompt::with_limits(self.limits.clone());
        Ok(())
    }

    /// The model's turn.
    fn answered(&mut self, text: &str) -> Result<(), Error> {
        let mut parts = Prompt::with_limits(self.limits.clone());
        if !text.is_empty() {
            parts.text(text)?;
        }
        self.turns.push((Role::Assistant, parts));
        Ok(())
    }

    /// Takes back the last turn of the user, and what followed.
    fn undo(&mut self) -> bool {
        let last = self.turns.iter().rposition(|(role, _)| *role == Role::User);
        last.inspect(|&last| self.turns.truncate(last)).is_some()
    }

    fn prompt(&self) -> Result<Prompt, Error> {
        let mut turns = Turns::with_limits(self.limits.clone());
        if let Some(system) = &self.system {
            let mut parts = Prompt::with_limits(self.limits.clone());
            parts.text(system)?;
            turns.turn(Role::System, parts)?;
        }
        for (role, parts) in &self.turns {
            turns.turn(*role, parts.clone())?;
        }
        turns.prompt(&self.template)
    }
}

/// Whoever answers.
struct Partner {
    engine: Engine,
    options: Generation,
    conversation: Conversation,
    /// Set by Ctrl-C.
    stopped: Arc<AtomicBool>,
}

impl Partner {
    /// Takes a line; whether to go on.
    fn hear(&mut self, line: &str, out: &mut Output) -> Result<bool, Failure> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
            let text = line.strip_prefix('/').unwrap_or(line);
            if text.is_empty() && self.conversation.pending.parts().is_empty() {
                return Ok(true);
            }
            self.conversation.ask(text)?;
            let answered = self.answer(out);
            if answered.is_err() {
                self.conversation.undo();
            }
            return answered.map(|()| true);
        };
        let (command, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (command, rest.is_empty()) {
            ("image", false) => self.conversation.show(rest)?,
            ("system", told_nothing) => self.conversation.system = (!told_nothing).then(|| rest.to_owned()),
            ("undo", true) if !self.conversation.undo() => {
                return Err(Error::argument("/undo: expected a turn to take back, found none").into());
            }
            ("undo", true) => {}
            ("reset", true) => {
                self.conversation.turns.clear();
                self.conversation.pending = Prompt::with_limits(self.conversation.limits.clone());
            }
            // Nobody is left to tell if this fails.
            ("help", true) => drop(io::stderr().write_all(HELP.as_bytes())),
            ("quit", true) => return Ok(false),
            _ => {
                let expected = "/image PATH, /system TEXT, /undo, /reset, /help or /quit";
                return Err(Error::argument(format!("expected {expected}, found {line:?}")).into());
            }
        }
        Ok(true)
    }

    /// Writes the answer to the last turn as it comes, and keeps it as a turn.
    fn answer(&mut self, out: &mut Output) -> Outcome {
        let request = Request::generate(self.conversation.prompt()?, self.options.clone());
        let id = self.engine.submit(request)?;
        self.stopped.store(false, Ordering::Relaxed);
        let mut said = String::new();
        let mut is_over = false;
        while !is_over {
            if self.stopped.swap(false, Ordering::Relaxed) {
                self.engine.cancel(id);
            }
            for event in self.engine.step() {
                is_over |= event.kind.is_last();
                let piece = match event.kind {
                    EventKind::Token { text, .. } => text,
                    // All of it comes at the end of a beam search.
                    EventKind::Written(mut answer) => answer.text.split_off(said.len()),
                    EventKind::Failed(error) => return Err(error.into()),
                    _ => continue,
                };
                out.write_all(piece.as_bytes())?;
                out.flush()?;
                said += &piece;
            }
        }
        writeln!(out)?;
        out.flush()?;
        Ok(self.conversation.answered(&said)?)
    }
}

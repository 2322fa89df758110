//! The simple face of an engine: one request at a time, each answered before the next is asked.

use std::path::Path;

use crate::backend::Device;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::engine::{Answer, Classification, Engine, EventKind, Generation, Options, Score, Task};
use crate::error::Result;
use crate::image::{Image, Preprocessor};
use crate::prompt::Prompt;
use crate::tokenizer::Tokenizer;

/// An open model.
pub struct Flamingo {
    engine: Engine,
}

impl Flamingo {
    /// Opens a model folder; see [`Engine::open`].
    ///
    /// # Errors
    /// As for [`Engine::open`].
    pub fn open(folder: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Ok(Flamingo { engine: Engine::open(folder, options)? })
    }

    /// Opens the model that is part of the program; see [`Engine::demo`].
    ///
    /// # Errors
    /// As for [`Engine::open`].
    pub fn demo(options: &Options) -> Result<Self> {
        Ok(Flamingo { engine: Engine::demo(options)? })
    }

    /// The engine, for requests that run side by side.
    pub fn into_engine(self) -> Engine {
        self.engine
    }

    /// Where it runs; for [`Device::Auto`], what was found.
    pub fn device(&self) -> Device {
        self.engine.device()
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        self.engine.config()
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.engine.tokenizer()
    }

    /// Its files.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.engine.preparer().checkpoint()
    }

    /// What its images go through.
    pub fn preprocessor(&self) -> &Preprocessor {
        self.engine.preparer().preprocessor()
    }

    /// Floating-point operations of the matrix products of a prompt: encoding its images, and reading its tokens.
    pub fn prompt_flops(&self, images: usize, tokens: usize) -> [u64; 2] {
        self.engine.flops(images, tokens)
    }

    /// What the vision tower compares images and videos by; see [`Engine::features`].
    ///
    /// # Errors
    /// As for [`Engine::features`].
    pub fn features(&mut self, media: &[&[Image]]) -> Result<Vec<Vec<f32>>> {
        self.engine.features(media)
    }

    /// Writes after a prompt. `on_text` gets the text piece by piece as it is settled, all of it in the end; that of a
    /// beam search at once.
    ///
    /// # Errors
    /// A prompt that cannot be rendered or does not fit; settings out of range; a device that fails; logits that
    /// are not finite.
    pub fn generate(&mut self, prompt: &Prompt, options: &Generation, on_text: &mut dyn FnMut(&str)) -> Result<Answer> {
        let last = self.run(prompt, Task::Generate(options.clone()), &mut |kind| match kind {
            EventKind::Token { text, .. } if !text.is_empty() => on_text(&text),
            _ => {}
        })?;
        let EventKind::Written(answer) = last else { unreachable!("a text is written") };
        if options.num_beams > 1 {
            on_text(&answer.text);
        }
        Ok(answer)
    }

    /// Log-probabilities of the prompt's own tokens.
    ///
    /// # Errors
    /// As for [`Flamingo::generate`].
    pub fn score(&mut self, prompt: &Prompt) -> Result<Score> {
        self.run_score(prompt, Task::score(false), &mut |_| {})
    }

    /// As [`Flamingo::score`]; tells the `count` likeliest tokens in the place of each, at most 20.
    ///
    /// # Errors
    /// As for [`Flamingo::generate`].
    pub fn score_top(&mut self, prompt: &Prompt, count: usize) -> Result<Score> {
        self.run_score(prompt, Task::score_top(count), &mut |_| {})
    }

    /// As [`Flamingo::score`]; `on_logits(position, logits)` gets every row of logits.
    ///
    /// # Errors
    /// As for [`Flamingo::generate`].
    pub fn score_with_logits(&mut self, prompt: &Prompt, mut on_logits: impl FnMut(usize, &[f32])) -> Result<Score> {
        self.run_score(prompt, Task::score(true), &mut |kind| {
            if let EventKind::Logits { position, logits } = kind {
                on_logits(position, &logits);
            }
        })
    }

    /// Log-likelihood of each choice as the continuation of the prompt, which is read once; in the order given.
    ///
    /// # Errors
    /// No choices, one without tokens, or one with an image marker; as for [`Flamingo::generate`].
    pub fn classify(&mut self, prompt: &Prompt, choices: &[String]) -> Result<Classification> {
        let last = self.run(prompt, Task::Classify { choices: choices.to_vec() }, &mut |_| {})?;
        let EventKind::Classified(classification) = last else { unreachable!("choices are classified") };
        Ok(classification)
    }

    fn run_score(&mut self, prompt: &Prompt, task: Task, on_event: &mut dyn FnMut(EventKind)) -> Result<Score> {
        let last = self.run(prompt, task, on_event)?;
        let EventKind::Scored(score) = last else { unreachable!("a prompt is scored") };
        Ok(score)
    }

    /// Runs one request to its end; its last event, after `on_event` got the others.
    fn run(&mut self, prompt: &Prompt, task: Task, on_event: &mut dyn FnMut(EventKind)) -> Result<EventKind> {
        let prepared = self.engine.preparer().prepare_task(prompt, task)?;
        self.engine.submit_prepared(prepared)?;
        loop {
            for event in self.engine.step() {
                match event.kind {
                    EventKind::Failed(error) => return Err(error),
                    kind if kind.is_last() => return Ok(kind),
                    kind => on_event(kind),
                }
            }
            assert!(!self.engine.is_idle(), "every request has a last event");
        }
    }
}

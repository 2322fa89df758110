//! An engine on its own thread.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use flamant::{AsyncEngine, ChatTemplate, PreparedRequest, Prompt, PromptLimits, Request, Role, Task, json};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::{self, Doing};
use crate::media::{self, Given};
use crate::notify::Notifier;
use crate::outcome::{self, Asked};
use crate::process::Owned;
use crate::request::Events;
use crate::settings::{self, EngineSettings};
use crate::wait;

/// How long a thread that waits for room sleeps, and after how many times it looks for signals.
const ROOM: Duration = Duration::from_millis(1);
const SIGNALS: u32 = 100;

/// An engine.
#[pyclass(frozen, module = "flamant._flamant")]
pub struct Engine {
    running: Owned<Running>,
    /// What the model is, as JSON.
    #[pyo3(get)]
    info: String,
}

struct Running {
    /// None once it was closed.
    engine: Mutex<Option<AsyncEngine>>,
    /// Held from seeing that there is room to taking it.
    admission: Mutex<()>,
    notifier: OnceLock<Notifier>,
    /// What conversations are written by.
    template: ChatTemplate,
    vocabulary: usize,
}

/// What is asked about: parts of a prompt, or turns of a conversation.
enum Subject {
    Prompt(Vec<Given>),
    Chat(Vec<(Role, Vec<Given>)>),
}

impl Subject {
    fn of(prompt: &Bound<'_, PyAny>, is_chat: bool) -> PyResult<Subject> {
        Ok(match is_chat {
            true => Subject::Chat(media::turns(prompt)?),
            false => Subject::Prompt(media::parts(prompt, "prompt")?),
        })
    }

    /// The prompt, and the texts that end an answer to it.
    fn read(self, template: &ChatTemplate) -> flamant::Result<(Prompt, Vec<String>)> {
        match self {
            Subject::Prompt(parts) => Ok((media::prompt(parts, "prompt")?, Vec::new())),
            Subject::Chat(turns) => Ok((media::chat(turns)?.prompt(template)?, template.stop.clone())),
        }
    }
}

impl Engine {
    /// The engine, if it was not closed.
    pub fn engine(&self) -> PyResult<AsyncEngine> {
        let running = self.running.get()?;
        let engine = running.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.clone().ok_or_else(|| PyRuntimeError::new_err("the engine is closed"))
    }

    /// What tells Python of its requests.
    pub fn notifier(&self) -> PyResult<Notifier> {
        let notifier = &self.running.get()?.notifier;
        if notifier.get().is_none() {
            // Another thread's may have come first.
            let _ = notifier.set(Notifier::start()?);
        }
        Ok(notifier.get().expect("it is set").clone())
    }

    /// Waits for room, if that is wanted, and submits. Nobody else of this object takes the room meanwhile.
    fn admit(
        &self,
        py: Python<'_>,
        engine: &AsyncEngine,
        prepared: PreparedRequest,
        waits: bool,
    ) -> PyResult<flamant::Result<flamant::Events>> {
        let admission = &self.running.get()?.admission;
        let mut prepared = Some(prepared);
        loop {
            let events = py.detach(|| {
                for _ in 0..SIGNALS {
                    let _held = admission.lock().unwrap_or_else(PoisonError::into_inner);
                    if !waits || prepared.as_ref().is_some_and(|prepared| engine.has_room(prepared)) {
                        return prepared.take().map(|prepared| engine.submit_prepared(prepared));
                    }
                    drop(_held);
                    std::thread::sleep(ROOM);
                }
                None
            });
            match events {
                Some(events) => return Ok(events),
                None => py.check_signals()?,
            }
        }
    }
}

#[pymethods]
impl Engine {
    /// Opens a model.
    #[new]
    fn new(settings: &Bound<'_, PyDict>) -> PyResult<Engine> {
        let py = settings.py();
        let EngineSettings { model, chat_template, options } = settings::engine(settings)?;
        let opened = py.detach(|| {
            let engine = match &model {
                Some(folder) => flamant::Engine::open(folder, &options)?,
                None => flamant::Engine::demo(&options)?,
            };
            let (info, vocabulary) = (json::engine(&engine).to_string(), engine.config().decoder.vocabulary);
            let template = match &chat_template {
                Some(name) => ChatTemplate::open(name)?,
                None => engine.tokenizer().chat().clone(),
            };
            let (engine, admission) = (Mutex::new(Some(AsyncEngine::new(engine)?)), Mutex::new(()));
            Ok((info, Running { engine, admission, notifier: OnceLock::new(), template, vocabulary }))
        });
        let (info, running) = opened.map_err(|error| errors::from(&error, Doing::Opening))?;
        Ok(Engine { running: Owned::new(running), info })
    }

    /// Submits a request: to write with `sampling`, else to weigh `choices`, else to score the prompt itself.
    #[pyo3(signature = (prompt, sampling, choices, *, ranked, mean, logits, top_logprobs, chat, waits, keeps_tokens))]
    #[expect(clippy::too_many_arguments, reason = "Python's keyword arguments")]
    fn submit(
        &self,
        prompt: &Bound<'_, PyAny>,
        sampling: Option<&Bound<'_, PyAny>>,
        choices: Option<Vec<String>>,
        ranked: bool,
        mean: bool,
        logits: bool,
        top_logprobs: usize,
        chat: bool,
        waits: bool,
        keeps_tokens: bool,
    ) -> PyResult<Events> {
        let py = prompt.py();
        let engine = self.engine()?;
        let mut task = settings::task(sampling, choices, logits, top_logprobs)?;
        let subject = Subject::of(prompt, chat)?;
        let asked = match &task {
            Task::Generate(generation) => Asked::Generate { seed: generation.sampling.seed },
            Task::Classify { .. } if ranked => Asked::Classify { mean },
            Task::Classify { .. } => Asked::Loglikelihood,
            _ => Asked::Score { preparer: engine.preparer().clone(), vocabulary: self.running.get()?.vocabulary },
        };
        let template = &self.running.get()?.template;
        let prepared = py.detach(|| {
            let (prompt, stop) = subject.read(template)?;
            if let Task::Generate(generation) = &mut task {
                generation.stop.extend(stop);
            }
            engine.preparer().prepare(Request::new(prompt, task))
        });
        let prepared = prepared.map_err(|error| errors::from(&error, Doing::Reading))?;
        let events = self.admit(py, &engine, prepared, waits)?.map_err(|error| errors::from(&error, Doing::Running))?;
        Ok(Events::new(events, asked, self.notifier()?, keeps_tokens))
    }

    /// Answers lines of `flamant batch`.
    fn lines(&self, py: Python<'_>, lines: Vec<String>) -> PyResult<Vec<String>> {
        let engine = self.engine()?;
        // On a thread of its own, so that this one looks for signals.
        let (sender, receiver) = async_channel::bounded(1);
        std::thread::Builder::new().name("flamant-lines".to_owned()).spawn(move || {
            let answers = flamant::batch::answer_lines(&engine, lines, &PromptLimits::default());
            // Whoever was interrupted does not want them any more.
            let _ = sender.try_send(answers);
        })?;
        let mut answers = Box::pin(receiver.recv());
        let answers = wait::wait(py, |context| answers.as_mut().poll(context))?;
        let answers =
            answers.map_err(|_| errors::raise("FlamantError", "a fault of the library: answering lines", None))?;
        answers.map_err(|error| errors::from(&error, Doing::Running))
    }

    /// Features of images and videos: as float32, one row after the other, and how many rows there are.
    fn features(&self, images: &Bound<'_, PyAny>) -> PyResult<(Py<PyBytes>, usize)> {
        let py = images.py();
        let engine = self.engine()?;
        let parts = media::parts(images, "images")?;
        let pending = py.detach(|| {
            let prompt = media::prompt(parts, "images")?;
            let media: Vec<_> = prompt.media().collect();
            if media.len() < prompt.parts().len() {
                return Err(flamant::Error::argument("images: expected images and videos, found a text"));
            }
            engine.features(&media)
        });
        let mut pending = pending.map_err(|error| errors::from(&error, Doing::Reading))?;
        let found = wait::wait(py, |context| std::pin::Pin::new(&mut pending).poll(context))?;
        let found = found.map_err(|error| errors::from(&error, Doing::Running))?;
        Ok((outcome::floats(py, &found.concat())?.unbind(), found.len()))
    }

    /// A prompt as the model reads it.
    fn render(&self, prompt: &Bound<'_, PyAny>, chat: bool) -> PyResult<Py<PyAny>> {
        let py = prompt.py();
        let engine = self.engine()?;
        let subject = Subject::of(prompt, chat)?;
        let (tokenizer, template) = (engine.preparer().tokenizer(), &self.running.get()?.template);
        let rendered = py.detach(|| subject.read(template)?.0.render(tokenizer));
        let rendered = rendered.map_err(|error| errors::from(&error, Doing::Reading))?;
        let tokens: Vec<String> = rendered.ids.iter().map(|&id| tokenizer.token(id)).collect();
        let sees = rendered.media.iter().take(rendered.ids.len()).map(|seen| seen.range().collect::<Vec<_>>());
        outcome::make(py, "Rendered", (rendered.text, rendered.ids, tokens, sees.collect::<Vec<_>>()))
    }

    /// What the engine counts.
    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let stats = self.engine()?.stats().map_err(|error| errors::from(&error, Doing::Running))?;
        outcome::stats(py, &stats)
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        Ok(self.running.get()?.engine.lock().unwrap_or_else(PoisonError::into_inner).is_none())
    }

    /// Takes no more requests; those that run go on to their end.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let running = self.running.get()?;
        py.detach(|| drop(running.engine.lock().unwrap_or_else(PoisonError::into_inner).take()));
        Ok(())
    }
}

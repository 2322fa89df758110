//! What came of a request as objects of `flamant._types`.

use flamant::{
    Answer, Choice, Classification, EventKind, Finish, PagesNow, Preparer, Score, Stats, Timings, Usage, json,
};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::{self, Doing};

/// What an outcome is told with, beside what it is.
pub enum Asked {
    /// To write, with this seed.
    Generate { seed: u64 },
    /// To weigh choices, ranked by the mean over their tokens or by the sum.
    Classify { mean: bool },
    /// To weigh choices, in the order given.
    Loglikelihood,
    /// To weigh the prompt's own tokens.
    Score { preparer: Preparer, vocabulary: usize },
}

/// A token that was written.
pub struct Token {
    pub id: u32,
    pub logprob: f64,
    pub text: String,
    pub top: Vec<(u32, f64)>,
}

impl Token {
    pub fn to_python(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        make(py, "Token", (&self.text, self.id, self.logprob, &self.top))
    }
}

/// A class of `flamant._types`.
pub fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("flamant._types").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

/// An object of such a class.
pub fn make<'py>(py: Python<'py>, name: &str, fields: impl PyCallArgs<'py>) -> PyResult<Py<PyAny>> {
    Ok(class(py, name)?.call1(fields)?.unbind())
}

/// The last event of a request; an error is raised.
pub fn to_python(py: Python<'_>, end: EventKind, logits: &[f32], asked: &Asked) -> PyResult<Py<PyAny>> {
    match (end, asked) {
        (EventKind::Written(answer), Asked::Generate { seed }) => completion(py, answer, *seed),
        (EventKind::Classified(found), Asked::Classify { mean }) => classification(py, &found, *mean),
        (EventKind::Classified(found), _) => loglikelihood(py, &found),
        (EventKind::Scored(found), Asked::Score { preparer, vocabulary }) => {
            score(py, found, logits, preparer, *vocabulary)
        }
        (EventKind::Failed(error), _) => Err(errors::from(&error, Doing::Running)),
        (EventKind::Cancelled, _) => Err(errors::raise("Cancelled", "the request was cancelled", None)),
        (other, _) => unreachable!("{other:?} is no end of what was asked"),
    }
}

fn completion(py: Python<'_>, answer: Answer, seed: u64) -> PyResult<Py<PyAny>> {
    let finish = if answer.finish == Finish::Stop { "stop" } else { "length" };
    let (usage, timings) = (usage(py, &answer.usage)?, timings(py, &answer.timings)?);
    make(py, "Completion", (answer.text, answer.ids, answer.logprobs, answer.top, finish, seed, usage, timings))
}

fn classification(py: Python<'_>, found: &Classification, mean: bool) -> PyResult<Py<PyAny>> {
    let ranked = json::ranked(&found.choices, mean);
    let choice = |(choice, share): &(&Choice, f64)| {
        make(py, "Choice", (&choice.text, &choice.ids, choice.sum, choice.mean, choice.greedy, *share))
    };
    let choices: Vec<Py<PyAny>> = ranked.iter().map(choice).collect::<PyResult<_>>()?;
    let (usage, timings) = (usage(py, &found.usage)?, timings(py, &found.timings)?);
    make(py, "Classification", (&ranked[0].0.text, choices, usage, timings))
}

/// The log-likelihood of each choice, and whether it is what greedy search writes, in the order given.
fn loglikelihood(py: Python<'_>, found: &Classification) -> PyResult<Py<PyAny>> {
    let found: Vec<(f64, bool)> = found.choices.iter().map(|choice| (choice.sum, choice.greedy)).collect();
    Ok(found.into_pyobject(py)?.unbind())
}

fn score(py: Python<'_>, score: Score, logits: &[f32], preparer: &Preparer, vocabulary: usize) -> PyResult<Py<PyAny>> {
    let tokens: Vec<String> = score.ids.iter().map(|&id| preparer.tokenizer().token(id)).collect();
    let (usage, timings) = (usage(py, &score.usage)?, timings(py, &score.timings)?);
    let logits = (!logits.is_empty()).then(|| floats(py, logits)).transpose()?;
    make(py, "Score", (score.ids, tokens, score.logprobs, score.top, usage, timings, logits, vocabulary))
}

/// Numbers as bytes, in the order of this machine.
pub fn floats<'py>(py: Python<'py>, numbers: &[f32]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, size_of_val(numbers), |bytes| {
        for (to, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
            *to = number.to_ne_bytes();
        }
        Ok(())
    })
}

fn usage(py: Python<'_>, usage: &Usage) -> PyResult<Py<PyAny>> {
    let Usage { prompt_tokens, cached_tokens, completion_tokens, images, images_encoded, .. } = *usage;
    make(py, "Usage", (prompt_tokens, cached_tokens, completion_tokens, images, images_encoded))
}

fn timings(py: Python<'_>, timings: &Timings) -> PyResult<Py<PyAny>> {
    make(py, "Timings", (timings.queue, timings.media, timings.prompt, timings.decode))
}

/// What an engine counts.
pub fn stats(py: Python<'_>, stats: &Stats) -> PyResult<Py<PyAny>> {
    let pages = |pages: PagesNow| make(py, "Pages", (pages.total, pages.held, pages.cached));
    let fields = PyDict::new(py);
    let counts = [
        ("requests_waiting", stats.requests_waiting as u64),
        ("requests_running", stats.requests_running as u64),
        ("requests_finished", stats.requests_finished),
        ("requests_cancelled", stats.requests_cancelled),
        ("requests_failed", stats.requests_failed),
        ("steps", stats.steps),
        ("tokens_computed", stats.tokens_computed),
        ("tokens_cached", stats.tokens_cached),
        ("tokens_written", stats.tokens_written),
        ("images_encoded", stats.images_encoded),
        ("images_cached", stats.images_cached),
        ("preemptions", stats.preemptions),
    ];
    for (name, count) in counts {
        fields.set_item(name, count)?;
    }
    let seconds = [
        ("schedule_seconds", stats.schedule_seconds),
        ("media_seconds", stats.media_seconds),
        ("text_seconds", stats.text_seconds),
        ("commit_seconds", stats.commit_seconds),
    ];
    for (name, seconds) in seconds {
        fields.set_item(name, seconds)?;
    }
    fields.set_item("text_pages", pages(stats.text_pages)?)?;
    fields.set_item("media_pages", pages(stats.media_pages)?)?;
    Ok(class(py, "Stats")?.call((), Some(&fields))?.unbind())
}

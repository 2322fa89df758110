//! Requests to the engine that belong to one request of a client: what happens to them, and what came of them.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_core::Stream as _;
use serde_json::{Value, json};
use tokio::time::timeout_at;

use super::body::{at, of_prompt};
use crate::async_engine::Events;
use crate::engine::{EventKind, Request, Task, Timings, Usage};
use crate::prompt::Prompt;
use crate::serve::call::{Call, Given, Ticket};
use crate::serve::problem::Problem;

/// Requests that run side by side. Dropped, they are cancelled.
pub struct Running {
    open: Vec<Option<Events>>,
    left: usize,
    /// Where the next look begins, so that each has its turn.
    next: usize,
}

impl Running {
    pub fn new(events: Vec<Events>) -> Running {
        Running { left: events.len(), open: events.into_iter().map(Some).collect(), next: 0 }
    }

    /// Names the first of them.
    pub fn number(&self) -> u64 {
        self.open.iter().flatten().next().map_or(0, |events| events.id().number())
    }

    /// The next that happens to one of them; none after the last event of all.
    pub fn poll(&mut self, context: &mut Context) -> Poll<Option<(usize, EventKind)>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        for turn in 0..self.open.len() {
            let place = (self.next + turn) % self.open.len();
            let Some(events) = &mut self.open[place] else { continue };
            if let Poll::Ready(Some(event)) = Pin::new(events).poll_next(context) {
                self.next = place + 1;
                if event.is_last() {
                    self.open[place] = None;
                    self.left -= 1;
                }
                return Poll::Ready(Some((place, event)));
            }
        }
        Poll::Pending
    }

    /// Waits for the last events of all, in the order of the requests, and tells the call's ticket of all that come.
    ///
    /// # Errors
    /// A request that ends without an answer; the call's deadline.
    pub async fn ends(mut self, call: &mut Call) -> Result<Vec<EventKind>, Problem> {
        let ending = async {
            let mut ends: Vec<Option<EventKind>> = self.open.iter().map(|_| None).collect();
            while let Some((place, event)) = poll_fn(|context| self.poll(context)).await {
                heard(&mut call.ticket, place, &event)?;
                if event.is_last() {
                    ends[place] = Some(event);
                }
            }
            Ok(ends.into_iter().flatten().collect())
        };
        timeout_at(call.deadline.into(), ending).await.unwrap_or_else(|_| Err(Problem::deadline()))
    }
}

/// Counts an event for the log and the metrics.
///
/// # Errors
/// A request that ends without an answer.
pub fn heard(ticket: &mut Ticket, place: usize, event: &EventKind) -> Result<(), Problem> {
    match event {
        EventKind::Token { .. } => ticket.token(place),
        EventKind::Failed(error) => return Err(error.clone().into()),
        // By nobody of us: whoever does not want an answer any more drops its events.
        EventKind::Cancelled => return Err(Problem::draining()),
        event => {
            if let Some((usage, timings)) = took(event) {
                ticket.answered(usage, timings);
            }
        }
    }
    Ok(())
}

/// What a request took, by its last event.
pub fn took(event: &EventKind) -> Option<(&Usage, &Timings)> {
    match event {
        EventKind::Written(answer) => Some((&answer.usage, &answer.timings)),
        EventKind::Classified(found) => Some((&found.usage, &found.timings)),
        EventKind::Scored(score) => Some((&score.usage, &score.timings)),
        _ => None,
    }
}

/// What several requests took together.
#[derive(Clone, Default)]
pub struct Took {
    /// Of each prompt, which several answers may share.
    prompts: Vec<Usage>,
    completion_tokens: usize,
    images_encoded: usize,
    timings: Timings,
}

impl Took {
    /// Adds what a request took, to the prompt of that number.
    pub fn add(&mut self, prompt: usize, usage: &Usage, timings: &Timings) {
        if self.prompts.len() <= prompt {
            self.prompts.resize(prompt + 1, Usage::default());
        }
        let shared = &mut self.prompts[prompt];
        // What none of its answers had to compute was there before.
        let cached = match shared.prompt_tokens {
            0 => usage.cached_tokens,
            _ => shared.cached_tokens.min(usage.cached_tokens),
        };
        *shared = *usage;
        shared.cached_tokens = cached;
        self.completion_tokens += usage.completion_tokens;
        self.images_encoded += usage.images_encoded;
        // Side by side, as they run.
        let all = &mut self.timings;
        all.queue = all.queue.max(timings.queue);
        all.media = all.media.max(timings.media);
        all.prompt = all.prompt.max(timings.prompt);
        all.decode = all.decode.max(timings.decode);
    }

    fn sum(&self, of: impl Fn(&Usage) -> usize) -> usize {
        self.prompts.iter().map(of).sum()
    }

    /// As OpenAI has it; weighing choices writes no tokens.
    pub fn usage(&self) -> Value {
        let prompt = self.sum(|usage| usage.prompt_tokens);
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.sum(|usage| usage.cached_tokens)},
        })
    }

    /// As the routes for decisions have it.
    pub fn decided(&self) -> Value {
        let prompt = self.sum(|usage| usage.prompt_tokens);
        json!({
            "input_tokens": prompt,
            "output_tokens": 0,
            "total_tokens": prompt,
            "input_tokens_details": {"cached_tokens": self.sum(|usage| usage.cached_tokens), "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        })
    }

    /// What OpenAI has no fields for.
    pub fn flamant(&self, seed: Option<u64>) -> Value {
        let mut told = json!({
            "images": self.sum(|usage| usage.images),
            "images_encoded": self.images_encoded,
            "timings": {
                "queue_seconds": self.timings.queue,
                "media_seconds": self.timings.media,
                "prompt_seconds": self.timings.prompt,
                "decode_seconds": self.timings.decode,
            },
        });
        if let Some(seed) = seed {
            told["seed"] = seed.into();
        }
        told
    }
}

/// What stands in every answer.
#[derive(Clone)]
pub struct Head {
    pub number: u64,
    pub created: u64,
    pub model: String,
    pub fingerprint: String,
}

impl Head {
    pub fn new(given: &Given, number: u64) -> Head {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (model, fingerprint) = (given.server.id().to_owned(), given.server.fingerprint().to_owned());
        Head { number, created, model, fingerprint }
    }
}

/// Has a prompt read and done something with, for a body's field.
///
/// # Errors
/// What is wrong with either, by the field's name.
pub fn submit(
    given: &Given,
    salt: Option<[u8; 32]>,
    key: &str,
    prompt: &Prompt,
    task: Task,
) -> Result<Events, Problem> {
    let request = Request::new(prompt.clone(), task).salt(salt);
    let prepared = given.engine.preparer().prepare(request).map_err(|error| of_prompt(key, error))?;
    given.engine.submit_prepared(prepared).map_err(|error| at(key, error))
}

/// A response in one piece.
pub fn respond(value: &Value) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    ([(axum::http::header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

//! Answers as they are written, as events of a server (SSE).

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_core::Stream;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::running::{Running, Took, heard, took};
use super::sampling::{self, Kind};
use super::tokens::{self, Listed};
use super::writing::{Purpose, Writing, reason};
use crate::engine::EventKind;
use crate::serve::call::{Call, Ticket};
use crate::serve::problem::Problem;

/// How long nothing may come before a comment does, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that go out in one piece.
const EVENTS_MAX: usize = 64;

/// A stream of chunks. Dropped before its end, it cancels its requests.
pub struct Sse {
    writing: Writing,
    running: Running,
    ticket: Ticket,
    /// Whether usage is told at the end.
    usage: bool,
    /// What each chunk begins with.
    head: String,
    /// Characters of each answer's text so far.
    written: Vec<usize>,
    /// Answers that have not ended.
    open: usize,
    took: Took,
    late: Pin<Box<Sleep>>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    quiet: Pin<Box<Sleep>>,
    out: String,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    New,
    Open,
    Ended,
}

impl Sse {
    pub fn new(writing: Writing, stream: sampling::Stream, running: Running, call: Call) -> Sse {
        let (name, object) = writing.names_of_chunks();
        let head = &writing.head;
        let head = json!({
            "id": format!("{name}-{}", head.number),
            "object": object,
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
        });
        let head = head.to_string().trim_end_matches('}').to_owned();
        let prompts = writing.purposes.iter().map(|purpose| purpose.prompt() + 1).max().unwrap_or(0);
        let answers = writing.index(prompts, 0);
        Sse {
            written: vec![0; answers],
            open: answers,
            late: Box::pin(sleep_until(call.deadline.into())),
            cut: Box::pin(call.server.is_cut()),
            quiet: Box::pin(sleep(KEEP_ALIVE)),
            ticket: call.ticket,
            usage: stream.usage,
            took: Took::default(),
            out: String::new(),
            state: State::New,
            writing,
            running,
            head,
        }
    }

    pub fn respond(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
            // Proxies (nginx) are not to wait until they have more.
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        (headers, Body::from_stream(self)).into_response()
    }

    /// The first chunk of each answer.
    fn begin(&mut self) {
        for index in 0..self.written.len() {
            match (self.writing.kind, &self.writing.echo) {
                (Kind::Chat, _) => {
                    self.chunk(index, &json!({"role": "assistant", "content": ""}), &Value::Null, None);
                }
                (Kind::Text, Some(texts)) => {
                    let text = texts[index / self.writing.wanted.n].clone();
                    self.text(index, &text, &Value::Null, None);
                }
                (Kind::Text, None) => {}
            }
        }
    }

    /// A chunk: a message's delta, or a text.
    fn chunk(&mut self, index: usize, what: &Value, logprobs: &Value, finish: Option<&str>) {
        let key = if self.writing.kind == Kind::Chat { "delta" } else { "text" };
        self.open -= usize::from(finish.is_some());
        let finish = finish.map_or(Value::Null, Value::from);
        let choice =
            format_args!("{{\"index\":{index},\"{key}\":{what},\"logprobs\":{logprobs},\"finish_reason\":{finish}}}")
                .to_string();
        self.send(&choice, &Value::Null, finish.is_string());
    }

    fn send(&mut self, choices: &str, usage: &Value, is_end: bool) {
        let _ = write!(self.out, "data: {},\"choices\":[{choices}]", self.head);
        if self.usage {
            let _ = write!(self.out, ",\"usage\":{usage}");
        }
        if is_end && self.open == 0 && self.usage == usage.is_object() {
            let flamant = self.took.flamant(Some(self.writing.wanted.generation.sampling.seed));
            let _ = write!(self.out, ",\"flamant\":{flamant}");
        }
        self.out.push_str("}\n\n");
    }

    /// Text of an answer; the last one says why it ended.
    fn text(&mut self, index: usize, text: &str, logprobs: &Value, finish: Option<&str>) {
        self.written[index] += text.chars().count();
        let what = match self.writing.kind {
            Kind::Chat if finish.is_some() => json!({}),
            Kind::Chat => json!({"content": text}),
            Kind::Text => text.into(),
        };
        self.chunk(index, &what, logprobs, finish);
    }

    fn take(&mut self, place: usize, event: EventKind) {
        let purpose = self.writing.purposes[place];
        if let Err(problem) = heard(&mut self.ticket, place, &event) {
            return self.fail(&problem);
        }
        if let Some((usage, timings)) = took(&event) {
            self.took.add(purpose.prompt(), usage, timings);
        }
        match (purpose, event) {
            (Purpose::Write { prompt, answer }, EventKind::Token { id, logprob, text, top, .. }) => {
                let index = self.writing.index(prompt, answer);
                let logprobs = self.logprobs(index, id, logprob, &top);
                if !text.is_empty() || !logprobs.is_null() {
                    self.text(index, &text, &logprobs, None);
                }
            }
            (Purpose::Write { prompt, answer }, EventKind::Written(written)) => {
                let index = self.writing.index(prompt, answer);
                // A beam search knows its text only now.
                if self.writing.wanted.generation.num_beams > 1 && !written.text.is_empty() {
                    self.text(index, &written.text, &Value::Null, None);
                }
                self.text(index, "", &Value::Null, Some(reason(written.finish)));
            }
            (Purpose::Choose { prompt }, EventKind::Classified(found)) => {
                for answer in 0..self.writing.wanted.n {
                    let text = self.writing.chosen(&found, answer).to_owned();
                    let index = self.writing.index(prompt, answer);
                    self.text(index, &text, &Value::Null, None);
                    self.text(index, "", &Value::Null, Some("stop"));
                }
            }
            _ => {}
        }
    }

    /// Of one token, if they are wanted; none of one that is no text.
    fn logprobs(&self, index: usize, id: u32, logprob: f64, top: &[(u32, f64)]) -> Value {
        let tokenizer = self.writing.engine.preparer().tokenizer();
        if self.writing.wanted.logprobs.is_none() || tokenizer.is_special(id) {
            return Value::Null;
        }
        match self.writing.kind {
            Kind::Chat => {
                json!({"content": [tokens::of_chat(tokenizer, id, logprob, top)], "refusal": null})
            }
            Kind::Text => {
                let mut listed = Listed::new(self.written[index]);
                listed.add(tokenizer, id, logprob, top);
                listed.json()
            }
        }
    }

    /// All is told.
    fn end(&mut self) {
        if self.usage {
            let usage = self.took.usage();
            self.send("", &usage, true);
        }
        self.out.push_str("data: [DONE]\n\n");
        self.state = State::Ended;
    }

    /// The status is sent, so that an event says what went wrong, and nothing comes after it.
    fn fail(&mut self, problem: &Problem) {
        self.ticket.failed(problem);
        let _ = write!(self.out, "data: {}\n\n", problem.json());
        self.running = Running::new(Vec::new());
        self.state = State::Ended;
    }
}

impl Stream for Sse {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<Option<Self::Item>> {
        let all = &mut *self;
        if all.state == State::Ended {
            return Poll::Ready(None);
        }
        if all.state == State::New {
            all.state = State::Open;
            all.begin();
        }
        if all.late.as_mut().poll(context).is_ready() {
            all.fail(&Problem::deadline());
        } else if all.cut.as_mut().poll(context).is_ready() {
            all.fail(&Problem::draining());
        }
        for _ in 0..EVENTS_MAX {
            if all.state == State::Ended {
                break;
            }
            match all.running.poll(context) {
                Poll::Ready(Some((place, event))) => all.take(place, event),
                Poll::Ready(None) => all.end(),
                Poll::Pending => break,
            }
        }
        if all.out.is_empty() && all.quiet.as_mut().poll(context).is_ready() {
            all.out.push_str(": keep-alive\n\n");
        }
        if all.out.is_empty() {
            return Poll::Pending;
        }
        all.quiet.as_mut().reset(Instant::now() + KEEP_ALIVE);
        Poll::Ready(Some(Ok(std::mem::take(&mut all.out).into())))
    }
}

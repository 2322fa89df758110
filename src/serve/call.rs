//! What a route that computes is given: a body that was admitted, and what is held while it is answered.

use std::error::Error as _;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::time::{timeout, timeout_at};

use super::gate::{self, Place};
use super::guard::Key;
use super::log::Record;
use super::problem::Problem;
use super::{Server, State as Phase};
use crate::async_engine::AsyncEngine;
use crate::engine::{Timings, Usage};
use crate::error::Error;

/// A request that was let in.
pub(super) struct Call {
    pub server: Arc<Server>,
    pub engine: AsyncEngine,
    /// Gone once it is prepared.
    pub body: Bytes,
    /// The hash of the key that it came with.
    pub key: Option<blake3::Hash>,
    /// When an answer comes too late.
    pub deadline: Instant,
    /// Held until the last byte of the answer is gone.
    pub ticket: Ticket,
}

/// What is prepared of a call, on a thread that may take its time.
pub(super) struct Given {
    pub server: Arc<Server>,
    pub engine: AsyncEngine,
    pub body: Bytes,
    pub key: Option<blake3::Hash>,
    /// Counted until the body is gone.
    _bytes: gate::Bytes,
}

impl Call {
    /// Has `work` read the body, decode images and submit requests, on a thread where that may take its time. As many
    /// of them work at a time as there are cores.
    pub async fn prepare<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Given) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let given = Given {
            server: self.server.clone(),
            engine: self.engine.clone(),
            body: std::mem::take(&mut self.body),
            key: self.key,
            _bytes: std::mem::replace(&mut self.ticket.bytes, self.server.gate.bytes()),
        };
        let permit = self.server.gate.preparing(given.body.len()).await;
        let working = tokio::task::spawn_blocking(move || {
            let done = Error::catch("preparing a request", || Ok(work(&given)));
            drop((given, permit));
            done
        });
        match working.await {
            Ok(done) => done?,
            // The runtime is about to end.
            Err(_) => Err(Problem::draining()),
        }
    }

    /// The request wants its answer within so many seconds, if it says so; never later than the server says.
    ///
    /// # Errors
    /// It is too late already.
    pub fn within(&mut self, timeout: Option<f64>) -> Result<(), Problem> {
        let Some(seconds) = timeout else { return Ok(()) };
        let wanted =
            Duration::try_from_secs_f64(seconds).ok().and_then(|after| self.ticket.record.begun.checked_add(after));
        self.deadline = wanted.map_or(self.deadline, |wanted| wanted.min(self.deadline));
        if self.deadline <= Instant::now() { Err(Problem::deadline()) } else { Ok(()) }
    }
}

#[cfg(feature = "unstable-probe")]
impl Given {
    /// A body that came through no door.
    pub fn of(server: Arc<Server>, engine: AsyncEngine, body: Bytes) -> Given {
        let _bytes = server.gate.bytes();
        Given { server, engine, body, key: None, _bytes }
    }
}

/// A request's place, and what will be told of it in the log and the metrics.
pub(super) struct Ticket {
    record: Arc<Record>,
    bytes: gate::Bytes,
    /// When the last token of each answer came.
    last: Vec<Option<Instant>>,
    _place: Place,
}

impl Ticket {
    /// A token has come of one of its answers, which count from 0.
    pub fn token(&mut self, answer: usize) {
        if self.last.len() <= answer {
            self.last.resize(answer + 1, None);
        }
        self.record.token(&mut self.last[answer]);
    }

    /// One of its answers is whole.
    pub fn answered(&mut self, usage: &Usage, timings: &Timings) {
        self.record.answered(usage, timings);
    }

    /// A stream ends with a problem, after its status was sent.
    pub fn failed(&mut self, problem: &Problem) {
        self.record.cause(problem);
    }
}

/// A response on its way.
type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A handler: admits the request, and has it answered.
pub(super) fn route<F, A>(answer: F) -> impl Fn(State<Arc<Server>>, Request) -> Answering + Clone + Send + Sync
where
    F: Fn(Call) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    move |State(server), request| {
        let answer = answer.clone();
        Box::pin(async move {
            let answering = async {
                let call = admit(&server, request).await?;
                let deadline = call.deadline.into();
                timeout_at(deadline, answer(call)).await.unwrap_or_else(|_| Err(Problem::deadline()))
            };
            let answered = tokio::select! {
                answered = answering => answered,
                () = server.is_cut() => Err(Problem::draining()),
            };
            answered.unwrap_or_else(|problem| settled(&server, problem).into_response())
        })
    }
}

/// A problem with what the server knows of itself.
fn settled(server: &Server, mut problem: Problem) -> Problem {
    if problem.status == StatusCode::INTERNAL_SERVER_ERROR && server.state() == Phase::Failed {
        let detail = problem.detail.unwrap_or(problem.message);
        return Problem::failed().detail(detail);
    }
    if problem.status == StatusCode::TOO_MANY_REQUESTS && problem.retry_after.is_none() {
        problem.retry_after = Some(server.gate.retry_after());
    }
    problem
}

async fn admit(server: &Arc<Server>, request: Request) -> Result<Call, Problem> {
    let engine = server.engine()?.clone();
    let (mut head, body) = request.into_parts();
    let record = head.extensions.remove::<Arc<Record>>().expect("all routes are watched");
    content(&head.headers)?;
    let length = body.size_hint().exact();
    let most = server.settings.body_max;
    if length.is_some_and(|length| length > most) {
        return Err(too_large(most, length));
    }
    let place = server.gate.enter()?;
    let mut bytes = server.gate.bytes();
    bytes.take(length.unwrap_or(0))?;
    let reading = read(body, length, most, &mut bytes);
    let body = timeout(server.settings.body_timeout, reading).await.map_err(|_| late_body(server))??;
    record.body_is_read();
    let deadline = Instant::now() + server.settings.request_timeout;
    let key = head.extensions.get::<Key>().map(|key| key.0);
    let ticket = Ticket { record, bytes, last: Vec::new(), _place: place };
    Ok(Call { server: server.clone(), engine, body, key, deadline, ticket })
}

/// Whether a body is JSON as it is: nothing else is read. A page of another site cannot send this without asking.
fn content(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
    let refused = |name: &str, expected: &str, found: Option<&str>| {
        let found =
            found.map_or("none".to_owned(), |found| format!("{:?}", found.chars().take(100).collect::<String>()));
        let message = format!("{name}: expected {expected}, found {found}");
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
    };
    let kind = text(header::CONTENT_TYPE);
    let is_json = kind
        .is_some_and(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return refused("content-type", "application/json", kind);
    }
    let transfer = text(header::TRANSFER_ENCODING);
    if transfer.is_some_and(|coding| !coding.eq_ignore_ascii_case("chunked")) {
        return refused("transfer-encoding", "chunked", transfer);
    }
    match text(header::CONTENT_ENCODING) {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => refused("content-encoding", "none", Some(coding)),
        _ => Ok(()),
    }
}

fn too_large(most: u64, found: Option<u64>) -> Problem {
    let found = found.map_or("more".to_owned(), |found| found.to_string());
    let message = format!("body: expected at most {most} bytes, found {found}");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn late_body(server: &Server) -> Problem {
    let seconds = server.settings.body_timeout.as_secs_f64();
    let message = format!("body: expected all of it within {seconds} seconds");
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}

/// The whole body. What was not announced is counted as it comes.
async fn read(body: Body, length: Option<u64>, most: u64, bytes: &mut gate::Bytes) -> Result<Bytes, Problem> {
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut rest: Vec<u8> = Vec::new();
    let mut count = 0;
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        count += data.len() as u64;
        if count > most {
            return Err(too_large(most, None));
        }
        if length.is_none() {
            bytes.take(data.len() as u64)?;
        }
        // Small ones come in one piece, which is not copied.
        if count == data.len() as u64 {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve_exact(length.map_or(2 * count, |length| length.min(most)) as usize);
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

/// A body that ended early, or is not made as HTTP has it: then hyper's error has one of the system's beneath.
fn broken(error: axum::Error) -> Problem {
    let beneath = std::iter::successors(error.source(), |&error| error.source());
    let mut kinds = beneath.filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kinds.any(|kind| matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) {
        true => Problem::invalid("body", "body: expected chunks as HTTP has them"),
        false => Problem::gone(),
    }
}

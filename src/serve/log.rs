//! What becomes of each request: its line in the log, its counts, its id on the response, and an answer where answering
//! it panics.

use std::future::poll_fn;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use serde_json::{Value, json};

use super::problem::{Cause, Problem};
use super::settings::Log;
use super::{ROUTES, Server};
use crate::engine::{Timings, Usage};
use crate::error::Error;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a path that the log shows.
const PATH_MAX: usize = 200;
/// Characters of a request's id.
const ID_MAX: usize = 128;

/// A request, from when its head was read.
pub(super) struct Record {
    server: Arc<Server>,
    pub begun: Instant,
    /// `x-request-id`.
    pub id: String,
    trace: Option<String>,
    method: Method,
    path: String,
    route: &'static str,
    told: Mutex<Told>,
}

/// What is learned of it on the way.
#[derive(Default)]
struct Told {
    status: Option<StatusCode>,
    body_is_read: bool,
    key: Option<String>,
    cause: Option<Cause>,
    /// Seconds; the longest of its answers.
    queue: Option<f64>,
    first_token: Option<Duration>,
    usage: Usage,
}

impl Record {
    fn new(server: Arc<Server>, request: &Request) -> Record {
        let headers = request.headers();
        server.answering.fetch_add(1, Ordering::Relaxed);
        let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        Record {
            server,
            begun: Instant::now(),
            id: given_id(headers).unwrap_or_else(new_id),
            trace: headers.get("traceparent").and_then(trace),
            method: request.method().clone(),
            path: request.uri().path().chars().take(PATH_MAX).collect(),
            route: matched
                .and_then(|path| ROUTES.iter().find(|(route, _)| *route == path))
                .map_or("other", |(path, _)| path),
            told: Mutex::default(),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing of its body is left on the connection.
    pub fn body_is_read(&self) {
        self.told().body_is_read = true;
    }

    /// Whose it is: the first characters of a key's hash.
    pub fn key(&self, name: &str) {
        self.told().key = Some(name.to_owned());
    }

    /// Something to be told in the log: the fault of an answer that has begun.
    pub fn cause(&self, problem: &Problem) {
        self.told().cause = Some(Cause { code: problem.code, detail: problem.detail.clone() });
    }

    /// A token has come; `last` is when the one before it came, of the same answer.
    pub fn token(&self, last: &mut Option<Instant>) {
        let now = Instant::now();
        match last.replace(now) {
            Some(before) => self.server.metrics.next_token(now - before),
            None if self.told().first_token.is_none() => {
                let after = now - self.begun;
                self.told().first_token = Some(after);
                self.server.metrics.first_token(after);
            }
            None => {}
        }
    }

    /// One of its answers is whole.
    pub fn answered(&self, usage: &Usage, timings: &Timings) {
        self.server.metrics.answered(usage, timings.queue);
        let mut told = self.told();
        told.queue = Some(told.queue.unwrap_or_default().max(timings.queue));
        let sum = &mut told.usage;
        sum.prompt_tokens += usage.prompt_tokens;
        sum.cached_tokens += usage.cached_tokens;
        sum.completion_tokens += usage.completion_tokens;
        sum.images += usage.images;
        sum.images_encoded += usage.images_encoded;
    }

    /// It is over; whether to its end.
    fn end(&self, whole: bool) {
        let took = self.begun.elapsed();
        let told = self.told();
        let code = told.cause.as_ref().map(|cause| cause.code);
        // As nginx has it: nobody was there any more for a status.
        let status = told.status.map_or(499, |status| status.as_u16());
        let cancelled = !whole || matches!(code, Some("deadline" | "client_closed"));
        let metrics = &self.server.metrics;
        metrics.request(self.route, status, code, took);
        if cancelled {
            metrics.cancelled();
        }
        // Probes come every second, and say nothing while all is well.
        let is_probe = status == 200 && (self.route.contains("health") || ["/ready", "/metrics"].contains(&self.route));
        let log = self.server.settings.log;
        if log != Log::Off && !is_probe {
            let line = self.line(&told, status, took, cancelled);
            let line = match log {
                Log::Json => {
                    Value::Object(line.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()).to_string()
                }
                _ => plain(&line),
            };
            say(&line);
        }
    }

    /// Names and values, in the order in which people read them.
    fn line(&self, told: &Told, status: u16, took: Duration, cancelled: bool) -> Vec<(&'static str, Value)> {
        let now = jiff::Timestamp::now();
        let rounded = |seconds: f64| (seconds * 1e6).round() / 1e6;
        let mut line = vec![
            ("time", json!(format!("{now:.3}"))),
            ("status", json!(status)),
            ("method", json!(self.method.as_str())),
            ("path", json!(self.path)),
            ("seconds", json!(rounded(took.as_secs_f64()))),
            ("id", json!(self.id)),
        ];
        let mut add = |name, value: Option<Value>| line.extend(value.map(|value| (name, value)));
        add("trace", self.trace.clone().map(Value::from));
        add("key", told.key.clone().map(Value::from));
        add("queue", told.queue.map(|seconds| rounded(seconds).into()));
        add("first_token", told.first_token.map(|after| rounded(after.as_secs_f64()).into()));
        if told.queue.is_some() {
            let usage = &told.usage;
            add("prompt_tokens", Some(usage.prompt_tokens.into()));
            add("cached_tokens", Some(usage.cached_tokens.into()));
            add("written_tokens", Some(usage.completion_tokens.into()));
            add("images", Some(usage.images.into()));
        }
        add("cancelled", cancelled.then(|| true.into()));
        add("code", told.cause.as_ref().map(|cause| cause.code.into()));
        add("detail", told.cause.as_ref().and_then(|cause| cause.detail.clone()).map(Value::from));
        line
    }
}

/// A line on standard error.
pub(super) fn say(line: &str) {
    // Nobody is left to tell if this fails.
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// A line for people: the first five as they are, others with their names.
fn plain(line: &[(&str, Value)]) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let named = line.iter().map(|(name, value)| match *name {
        "time" | "status" | "method" | "path" => word(value),
        "seconds" => format!("{value}s"),
        "detail" => format!("detail={value}"),
        name => format!("{name}={}", word(value)),
    });
    named.collect::<Vec<_>>().join(" ")
}

/// The id that a client gave, if a log can hold it.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    ((1..=ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())).then(|| id.to_owned())
}

/// One that no other request has, here or after a new start.
fn new_id() -> String {
    static PROCESS: LazyLock<String> = LazyLock::new(|| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&jiff::Timestamp::now().as_nanosecond().to_le_bytes());
        hasher.update(&std::process::id().to_le_bytes());
        hasher.finalize().to_hex()[..12].to_owned()
    });
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("req-{}-{}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The trace's id of a W3C `traceparent`: version, trace, span and flags in hexadecimal.
fn trace(value: &HeaderValue) -> Option<String> {
    let parts: Vec<&str> = value.to_str().ok()?.split('-').collect();
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let [version, trace, span, flags, ..] = parts[..] else { return None };
    let usable = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    usable.then(|| trace.to_ascii_lowercase())
}

/// Ends a request's record, whatever becomes of it.
struct Watch {
    record: Arc<Record>,
    whole: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.record.end(self.whole);
        self.record.server.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The outermost layer of all routes.
pub(super) async fn watch(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let record = Arc::new(Record::new(server, &request));
    let has_body = request.body().size_hint().exact() != Some(0);
    let mut watch = Watch { record: record.clone(), whole: false };
    request.extensions_mut().insert(record.clone());
    let mut running = Box::pin(next.run(request));
    let polled = |context: &mut Context<'_>| match caught(|| running.as_mut().poll(context)) {
        Ok(poll) => poll,
        Err(error) => Poll::Ready(Problem::from(error).into_response()),
    };
    let mut response = poll_fn(polled).await;
    {
        let mut told = record.told();
        told.status = Some(response.status());
        told.cause = response.extensions_mut().remove::<Cause>();
    }
    if let Ok(id) = HeaderValue::from_str(&record.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    // The connection ends where its next request would begin; clients that keep it want to know.
    if has_body && !record.told().body_is_read {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // Of these, no body is sent.
    watch.whole = record.method == Method::HEAD;
    response.map(|body| Body::new(Watched { body, watch }))
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    Error::catch("answering a request", || Ok(work()))
}

/// A body that knows how far it was sent.
struct Watched {
    body: Body,
    watch: Watch,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = match caught(|| Pin::new(&mut self.body).poll_frame(context)) {
            Ok(polled) => polled,
            Err(error) => {
                let problem = Problem::from(error.clone());
                self.watch.record.cause(&problem);
                Poll::Ready(Some(Err(axum::Error::new(error))))
            }
        };
        if matches!(polled, Poll::Ready(None)) {
            self.watch.whole = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Of a body whose length is known, nobody asks for more than that.
        self.watch.whole |= self.body.is_end_stream();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_traces_are_taken_if_they_are_ones() {
        let with = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
        };
        let id = |value: &str| given_id(&with("x-request-id", value));
        assert_eq!(id("a-1").as_deref(), Some("a-1"));
        assert_eq!(id(&"a".repeat(128)).map(|id| id.len()), Some(128));
        for other in ["", "a b", &"a".repeat(129), "a\tb"] {
            assert_eq!(id(other), None, "{other:?}");
        }
        assert_ne!(new_id(), new_id());
        let of = |value: &str| trace(&HeaderValue::from_str(value).unwrap());
        let known = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of(&format!("00-{known}-00f067aa0ba902b7-01")).as_deref(), Some(known));
        for other in
            ["", "00-a-b-01", &format!("00-{known}-00f067aa0ba902b7"), &format!("0-{known}-00f067aa0ba902b7-01")]
        {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_line_for_people_has_the_fields_in_order() {
        let line = [
            ("time", json!("T")),
            ("status", json!(200)),
            ("path", json!("/")),
            ("seconds", json!(0.5)),
            ("id", json!("a")),
            ("detail", json!("b c")),
        ];
        assert_eq!(plain(&line), "T 200 / 0.5s id=a detail=\"b c\"");
    }
}

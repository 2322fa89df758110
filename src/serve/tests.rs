//! The server with routes of its own making: some take their time, some panic, some write without end.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use futures_core::Stream;

use super::call::{self, Call, Ticket};
use super::*;
use crate::engine::{Engine, EventKind, Generation, Options, Request};
use crate::prompt::Prompt;

const PATIENCE: Duration = Duration::from_secs(60);

fn demo() -> AsyncEngine {
    AsyncEngine::new(Engine::demo(&Options::default()).unwrap()).unwrap()
}

/// Text without end, as fast as it is taken.
struct Endless {
    _ticket: Ticket,
    panics: bool,
}

impl Stream for Endless {
    type Item = std::result::Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        assert!(!self.panics, "on purpose");
        Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; 64 << 10]))))
    }
}

type Answered = std::result::Result<Response, Problem>;

async fn slow(call: Call) -> Answered {
    tokio::time::sleep(PATIENCE * 10).await;
    drop(call);
    Ok(Response::new(Body::empty()))
}

/// Answers in half a second, if that is not too late for `timeout`.
async fn timed(mut call: Call) -> Answered {
    let seconds = call.prepare(|given| Ok(String::from_utf8_lossy(&given.body).parse().unwrap_or(0.0))).await?;
    call.within(Some(seconds))?;
    let asleep = tokio::time::sleep(Duration::from_millis(500));
    tokio::time::timeout_at(call.deadline.into(), asleep).await.map_err(|_| Problem::deadline())?;
    Ok(seconds.to_string().into_response())
}

async fn endless(call: Call) -> Answered {
    Ok(Response::new(Body::from_stream(Endless { _ticket: call.ticket, panics: false })))
}

async fn breaking(call: Call) -> Answered {
    Ok(Response::new(Body::from_stream(Endless { _ticket: call.ticket, panics: true })))
}

async fn panicking(_: Call) -> Answered {
    panic!("on purpose")
}

async fn panicking_at_work(mut call: Call) -> Answered {
    call.prepare(|_| -> std::result::Result<(), Problem> { panic!("on purpose") }).await?;
    Ok(Response::new(Body::empty()))
}

/// Writes eight tokens.
async fn write(mut call: Call) -> Answered {
    let mut events = call
        .prepare(|given| {
            let mut prompt = Prompt::new();
            prompt.text("kep.")?;
            let generation = Generation { max_new_tokens: 8, ignore_eos: true, ..Generation::default() };
            Ok(given.engine.submit(Request::generate(prompt, generation))?)
        })
        .await?;
    loop {
        match std::future::poll_fn(|context| Pin::new(&mut events).poll_next(context)).await {
            Some(EventKind::Token { .. }) => call.ticket.token(0),
            Some(EventKind::Written(answer)) => {
                call.ticket.answered(&answer.usage, &answer.timings);
                return Ok(answer.text.into_response());
            }
            Some(EventKind::Failed(error)) => return Err(error.into()),
            Some(event) if !event.is_last() => {}
            _ => return Err(Problem::gone()),
        }
    }
}

/// A server in this process.
struct Served {
    app: App,
    address: String,
    thread: JoinHandle<Result<()>>,
}

impl Served {
    fn start(app: App) -> Served {
        let listener = Listener::bind("127.0.0.1:0", 0).unwrap();
        let address = listener.url().unwrap().strip_prefix("http://").unwrap().to_owned();
        let routes = Router::new()
            .route("/slow", post(call::route(slow)))
            .route("/timed", post(call::route(timed)))
            .route("/endless", post(call::route(endless)))
            .route("/breaking", post(call::route(breaking)))
            .route("/panicking", post(call::route(panicking)))
            .route("/panicking-at-work", post(call::route(panicking_at_work)))
            .route("/write", post(call::route(write)))
            .route("/metrics", get(status::metrics))
            .route("/health", get(status::health))
            .route("/ready", get(status::ready));
        let (serving, router) = (app.clone(), app.guarded(routes));
        let thread = thread::spawn(move || listen::serve_router(listener, &serving, &router, || Ok::<(), Error>(())));
        Served { app, address, thread }
    }

    fn demo(settings: Settings) -> Served {
        Served::start(App::new(demo(), settings).unwrap())
    }

    fn send(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let rest = "content-type: application/json\r\nconnection: close\r\ncontent-length";
        write!(stream, "{head} HTTP/1.1\r\nhost: a\r\n{rest}: {length}\r\n\r\n{body}").unwrap();
        stream
    }

    fn ask(&self, head: &str, body: &str) -> String {
        let mut answer = String::new();
        self.send(head, body).read_to_string(&mut answer).unwrap();
        answer
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.ask("GET /metrics", "");
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    fn end(self) {
        self.app.drain();
        self.thread.join().unwrap().unwrap();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_route_is_there_once() {
    let paths: std::collections::BTreeSet<&str> = ROUTES.into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths.len(), ROUTES.len());
}

#[test]
fn a_server_says_that_it_loads_and_then_is_ready() {
    let served = Served::start(App::loading(Settings::default()).unwrap());
    assert!(served.ask("GET /health", "").starts_with("HTTP/1.1 200 OK"));
    for answer in [served.ask("GET /ready", ""), served.ask("POST /write", "{}")] {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"code\":\"loading\""), "{answer}");
        assert!(answer.contains("\r\nretry-after: 5\r\n"), "{answer}");
    }
    served.ask("GET /metrics", "");
    served.app.open(demo());
    assert!(served.ask("GET /ready", "").starts_with("HTTP/1.1 200 OK"));
    assert!(served.ask("POST /write", "{}").starts_with("HTTP/1.1 200 OK"));
    served.end();
}

#[test]
fn a_server_whose_engine_does_not_come_says_why() {
    let served = Served::start(App::loading(Settings::default()).unwrap());
    served.app.fail(Error::argument("no such model"));
    assert_eq!(served.thread.join().unwrap().unwrap_err().to_string(), "no such model");
    // And one that is told to end while it loads does so.
    Served::start(App::loading(Settings::default().drain_delay(PATIENCE * 10)).unwrap()).end();
}

#[test]
fn an_engine_that_has_died_is_said_everywhere_and_ends_the_server() {
    let mut engine = Engine::demo(&Options::default()).unwrap();
    let mut steps = 0;
    engine.before_run(Box::new(move || {
        steps += 1;
        assert!(steps < 4, "on purpose");
    }));
    let served = Served::start(App::new(AsyncEngine::new(engine).unwrap(), Settings::default()).unwrap());
    // The first is under way when it dies, the others come later.
    let answers = ["POST /write", "POST /write", "GET /ready", "GET /health"].map(|head| served.ask(head, "{}"));
    let begun = Instant::now();
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"code\":\"failed\""), "{answer}");
        assert!(answer.contains("\r\nx-should-retry: false\r\n") && !answer.contains("on purpose"), "{answer}");
    }
    let error = served.thread.join().unwrap().unwrap_err().to_string();
    assert_eq!(error, "the engine: it has panicked: on purpose");
    assert!(begun.elapsed() > Duration::from_secs(8), "balancers have time to see it");
}

#[test]
fn a_panic_is_an_error_of_one_request() {
    let served = Served::demo(Settings::default());
    for path in ["/panicking", "/panicking-at-work"] {
        let answer = served.ask(&format!("POST {path}"), "{}");
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("\"code\":\"internal\""), "{answer}");
        assert!(answer.contains("\r\nx-request-id: ") && !answer.contains("on purpose"), "{answer}");
    }
    // Of a body, nobody can be told any more; the connection ends before its end.
    let answer = served.ask("POST /breaking", "{}");
    assert!(answer.is_empty() || !answer.ends_with("0\r\n\r\n"), "{answer}");
    assert!(served.ask("POST /write", "{}").starts_with("HTTP/1.1 200 OK"));
    assert_eq!(served.metric("flamant_requests_cancelled_total"), 1.0);
    served.end();
}

#[test]
fn clients_that_hang_up_leave_nothing_behind() {
    let served = Served::demo(Settings::default().queue(0));
    let places = served.app.server.gate.free();
    for path in ["/slow", "/endless"] {
        let clients: Vec<TcpStream> = (0..5).map(|_| served.send(&format!("POST {path}"), "{}")).collect();
        until("all are inside", || served.app.server.gate.free() == places - 5);
        drop(clients);
        until("all have gone", || served.app.server.gate.free() == places);
    }
    assert_eq!(served.metric("flamant_requests_cancelled_total"), 10.0);
    assert_eq!(served.metric("flamant_body_bytes_in_flight"), 0.0);
    until("connections are closed", || served.metric("flamant_connections") == 1.0);
    served.end();
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let served = Served::demo(Settings::default().write_timeout(Duration::from_millis(500)));
    let places = served.app.server.gate.free();
    let lazy = served.send("POST /endless", "{}");
    until("it is inside", || served.app.server.gate.free() == places - 1);
    until("it is cut", || served.app.server.gate.free() == places);
    // One that takes a little all the time is not.
    let mut slow = served.send("POST /endless", "{}");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        slow.read_exact(&mut [0; 200_000]).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(served.app.server.gate.free(), places - 1);
    drop((lazy, slow));
    until("all have gone", || served.app.server.gate.free() == places);
    served.end();
}

#[test]
fn an_answer_that_is_late_is_cancelled() {
    let served = Served::demo(Settings::default().request_timeout(Duration::from_millis(900)));
    let is_late = |answer: &str| answer.starts_with("HTTP/1.1 504 ") && answer.contains("\"code\":\"deadline\"");
    assert!(is_late(&served.ask("POST /slow", "{}")));
    assert!(is_late(&served.ask("POST /timed", "0.1")));
    // Nobody gets more time than there is.
    assert!(served.ask("POST /timed", "1e300").starts_with("HTTP/1.1 200 OK"));
    assert_eq!(served.metric("flamant_requests_cancelled_total"), 2.0);
    served.end();
}

#[test]
fn an_answer_is_counted() {
    let served = Served::demo(Settings::default());
    for _ in 0..2 {
        assert!(served.ask("POST /write", "{}").starts_with("HTTP/1.1 200 OK"));
    }
    let counts = [
        "generation_tokens_total",
        "queue_seconds_count",
        "time_to_first_token_seconds_count",
        "inter_token_seconds_count",
    ];
    assert_eq!(counts.map(|name| served.metric(&format!("flamant_{name}"))), [16.0, 2.0, 2.0, 14.0]);
    assert!(served.metric("flamant_prompt_tokens_total") > 0.0 && served.metric("flamant_steps_total") >= 16.0);
    assert_eq!(served.metric("flamant_requests_running"), 0.0);
    assert_eq!(served.metric("flamant_text_pages{state=\"held\"}"), 0.0);
    served.end();
}

#[test]
fn requests_at_work_end_before_the_server_does() {
    let served = Served::demo(Settings::default());
    let places = served.app.server.gate.free();
    let mut running = served.send("POST /timed", "10");
    until("it is inside", || served.app.server.gate.free() == places - 1);
    served.app.drain();
    let mut answer = String::new();
    running.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("10"), "{answer}");
    served.thread.join().unwrap().unwrap();
}

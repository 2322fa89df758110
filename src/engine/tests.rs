//! What an engine tells by events of `tracing`.

use std::cell::RefCell;
use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::{Engine, EventKind, Generation, Limits, Options, Request};
use crate::prompt::Prompt;

/// Keeps each event as a line, for the thread that told it. It serves all threads: tracing asks the subscriber of
/// whichever thread comes to an event first whether anyone wants it.
struct Lines;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push(line.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn an_engine_tells_what_it_does() {
    tracing::subscriber::set_global_default(Lines).unwrap();
    // Two requests that do not fit side by side.
    let limits = Limits { text_pages: Some(10), ..Limits::default() };
    let options = Options { context_max: Some(120), limits, threads: 1, ..Options::default() };
    let mut engine = Engine::demo(&options).unwrap();
    for word in ["kep.", "mul."] {
        let mut prompt = Prompt::new();
        prompt.text(word).unwrap();
        let generation = Generation { max_new_tokens: 90, ignore_eos: true, ..Generation::default() };
        engine.submit(Request::generate(prompt, generation)).unwrap();
    }
    let cancelled = engine.submit(Request::score({
        let mut prompt = Prompt::new();
        prompt.text("ku").unwrap();
        prompt
    }));
    engine.cancel(cancelled.unwrap());
    while !engine.is_idle() {
        let events = engine.step();
        assert!(!events.iter().any(|event| matches!(event.kind, EventKind::Failed(_))), "{events:?}");
    }
    let lines = LINES.take();
    let has = |level: &str, parts: &[&str]| {
        let fits = |line: &String| line.starts_with(level) && parts.iter().all(|part| line.contains(part));
        lines.iter().filter(|line| fits(line)).count()
    };
    assert_eq!(has("INFO", &["message=open", "device=cpu", "text_pages=10"]), 1, "{lines:?}");
    assert_eq!(has("INFO", &["message=request done", "completion_tokens=90", "decode_seconds="]), 2, "{lines:?}");
    assert_eq!(has("DEBUG", &["message=request cancelled"]), 1, "{lines:?}");
    assert!(has("DEBUG", &["message=step", "tokens=2"]) > 0, "{lines:?}");
    assert!(has("DEBUG", &["message=request preempted"]) > 0, "{lines:?}");
}

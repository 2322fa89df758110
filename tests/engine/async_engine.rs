//! An engine on a thread of its own: the same answers, from many threads; what is dropped is cancelled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use flamant::demo::{Episode, Random, Sheet};
use flamant::{
    AsyncEngine, Engine, EventKind, Events, Flamingo, Generation, Limits, Options, Prompt, Request, Sampling,
};
use futures_core::Stream;

fn start(limits: Limits) -> AsyncEngine {
    AsyncEngine::new(Engine::demo(&Options { limits, ..Options::default() }).unwrap()).unwrap()
}

fn prompts(count: usize) -> Vec<Prompt> {
    let sheets = Sheet::all().unwrap();
    let mut random = Random::new(5);
    (0..count).map(|number| Episode::draw(&mut random, &sheets[number % 6], 3, 3).prompt().unwrap()).collect()
}

fn generation(max_new_tokens: usize) -> Generation {
    Generation { max_new_tokens, ignore_eos: true, ..Generation::default() }
}

/// A request without an end in sight.
fn long() -> Request {
    let mut prompt = Prompt::new();
    prompt.text("kep.").unwrap();
    Request::generate(prompt, generation(400))
}

/// Waits for what must come soon.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn handles_and_events_go_where_they_are_needed() {
    fn is_shared<T: Clone + Send + Sync + 'static>() {}
    fn is_sent<T: Send + Unpin + 'static>() {}
    is_shared::<AsyncEngine>();
    is_sent::<Events>();
}

#[test]
fn many_threads_get_the_answers_of_the_simple_face() {
    let prompts = prompts(24);
    let settings = |number: usize| match number % 3 {
        0 => generation(6),
        1 => Generation { num_beams: 3, ..generation(5) },
        _ => Generation {
            sampling: Sampling { temperature: 2.0, seed: number as u64, ..Sampling::default() },
            ..generation(12)
        },
    };
    let mut flamingo = Flamingo::demo(&Options::default()).unwrap();
    let engine = start(Limits { max_sequences: 7, ..Limits::default() });
    thread::scope(|scope| {
        let threads: Vec<_> = prompts
            .iter()
            .enumerate()
            .map(|(number, prompt)| {
                let engine = engine.clone();
                scope.spawn(move || {
                    let events = engine.submit(Request::generate(prompt.clone(), settings(number))).unwrap();
                    events.into_iter().collect::<Vec<EventKind>>()
                })
            })
            .collect();
        for (number, (prompt, thread)) in prompts.iter().zip(threads).enumerate() {
            let events = thread.join().unwrap();
            let expected = flamingo.generate(prompt, &settings(number), &mut |_| {}).unwrap();
            let Some((EventKind::Written(answer), tokens)) = events.split_last() else { panic!("{events:?}") };
            assert_eq!((&answer.text, &answer.ids), (&expected.text, &expected.ids), "request {number}");
            assert_eq!(answer.logprobs, expected.logprobs, "request {number}");
            let written = tokens.iter().map(|event| match event {
                EventKind::Token { text, .. } => text.as_str(),
                other => panic!("{other:?}"),
            });
            if settings(number).num_beams == 1 {
                assert_eq!(written.collect::<String>(), expected.text, "request {number}");
            }
        }
    });
    let stats = engine.stats().unwrap();
    assert_eq!((stats.requests_finished, stats.requests_running, stats.requests_waiting), (24, 0, 0));
}

#[test]
fn what_is_dropped_is_cancelled_and_gives_its_pages_back() {
    let engine = start(Limits { max_sequences: 4, ..Limits::default() });
    let mut all: Vec<Events> = (0..6).map(|_| engine.submit(long()).unwrap()).collect();
    assert!(matches!(all[0].wait(), Some(EventKind::Token { .. })));
    let held = engine.stats().unwrap();
    assert!(held.text_pages.held > 0 && held.requests_running > 0, "{held:?}");
    let kept = all.split_off(5).remove(0);
    drop(all);
    eventually("five are cancelled", || engine.stats().unwrap().requests_cancelled == 5);
    let last = kept.into_iter().last();
    assert!(matches!(&last, Some(EventKind::Written(answer)) if answer.ids.len() == 400), "{last:?}");
    let stats = engine.stats().unwrap();
    assert_eq!((stats.text_pages.held, stats.media_pages.held, stats.requests_running), (0, 0, 0));
    assert_eq!((stats.requests_finished, stats.requests_cancelled), (1, 5));
}

#[test]
fn a_request_can_be_cancelled_and_says_so() {
    let engine = start(Limits::default());
    let mut events = engine.submit(long()).unwrap();
    events.wait();
    events.cancel();
    let all: Vec<EventKind> = std::iter::from_fn(|| events.wait()).collect();
    assert_eq!(all.last(), Some(&EventKind::Cancelled));
    assert_eq!(events.wait(), None, "nothing after the last");
    events.cancel();
    drop(events);
    // One that is read to its end is not cancelled as it goes.
    assert!(engine.submit(Request::generate(prompts(1).remove(0), generation(2))).unwrap().into_iter().count() == 3);
    assert_eq!(engine.stats().unwrap().requests_cancelled, 1);
}

#[test]
fn requests_outlive_the_handles() {
    let events = start(Limits::default()).submit(Request::generate(prompts(1).remove(0), generation(30))).unwrap();
    let last = events.into_iter().last();
    assert!(matches!(&last, Some(EventKind::Written(answer)) if answer.ids.len() == 30), "{last:?}");
}

#[test]
fn what_the_engine_refuses_is_refused_here() {
    let engine = start(Limits { max_sequences: 1, queue: 2, ..Limits::default() });
    let error = engine.submit(Request::classify(Prompt::new(), Vec::new())).err().unwrap();
    assert!(error.to_string().contains("choice: expected at least one"), "{error}");
    let mut open = Vec::new();
    let error = loop {
        match engine.submit(long()) {
            Ok(events) => open.push(events),
            Err(error) => break error,
        }
        assert!(open.len() < 100, "the queue is never full");
    };
    assert!(error.to_string().contains("requests that wait: 3 is over the limit of 2"), "{error}");
}

/// Wakes a thread that waits for a task.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The next item of a stream, without any runtime.
fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match Pin::new(&mut *stream).poll_next(&mut context) {
            Poll::Ready(item) => return item,
            Poll::Pending => thread::park_timeout(Duration::from_secs(30)),
        }
    }
}

#[test]
fn a_stream_gives_what_the_iterator_gives() {
    let engine = start(Limits::default());
    let request = || Request::generate(prompts(1).remove(0), generation(20));
    let without_time = |event: EventKind| match event {
        EventKind::Written(answer) => format!("{:?}", (answer.text, answer.ids, answer.logprobs, answer.finish)),
        other => format!("{other:?}"),
    };
    let waited: Vec<String> = engine.submit(request()).unwrap().into_iter().map(without_time).collect();
    let mut stream = engine.submit(request()).unwrap();
    let streamed: Vec<String> = std::iter::from_fn(|| next(&mut stream)).map(without_time).collect();
    assert_eq!(streamed, waited);
    assert_eq!(streamed.len(), 21);
    assert_eq!(next(&mut stream), None, "nothing after the last");
}

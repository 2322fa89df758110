//! An engine on a thread of its own: the same answers, from many threads; what is dropped is cancelled; nobody waits
//! for a step.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use flamant::demo::{Episode, Random, Sheet};
use flamant::image::Image;
use flamant::{
    AsyncEngine, Engine, Error, EventKind, Events, Flamingo, Generation, Limits, Options, Prompt, PromptLimits,
    Request, RequestId, Sampling, batch, probe,
};
use futures_core::Stream;
use serde_json::{Value, json};

fn start(limits: Limits) -> AsyncEngine {
    AsyncEngine::new(Engine::demo(&Options::default().limits(limits)).unwrap()).unwrap()
}

fn prompts(count: usize) -> Vec<Prompt> {
    let sheets = Sheet::all().unwrap();
    let mut random = Random::new(5);
    (0..count).map(|number| Episode::draw(&mut random, &sheets[number % 6], 3, 3).prompt().unwrap()).collect()
}

fn generation(max_new_tokens: usize) -> Generation {
    Generation::default().max_new_tokens(max_new_tokens).ignore_eos(true)
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
        1 => generation(5).num_beams(3),
        _ => generation(12).sampling(Sampling::default().temperature(2.0).seed(number as u64)),
    };
    let mut flamingo = Flamingo::demo(&Options::default()).unwrap();
    let engine = start(Limits::default().max_sequences(7));
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
            let Some((EventKind::Begun { queue, .. }, tokens)) = tokens.split_first() else { panic!("{tokens:?}") };
            assert_eq!(*queue, answer.timings.queue, "request {number}");
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
    let engine = start(Limits::default().max_sequences(4));
    let mut all: Vec<Events> = (0..6).map(|_| engine.submit(long()).unwrap()).collect();
    assert!(matches!(all[0].wait(), Some(EventKind::Begun { .. })));
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
    assert!(engine.submit(Request::generate(prompts(1).remove(0), generation(2))).unwrap().into_iter().count() == 4);
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
    let engine = start(Limits::default().max_sequences(1).queue(2));
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
        EventKind::Begun { .. } => "begun".to_owned(),
        other => format!("{other:?}"),
    };
    let waited: Vec<String> = engine.submit(request()).unwrap().into_iter().map(without_time).collect();
    let mut stream = engine.submit(request()).unwrap();
    let streamed: Vec<String> = std::iter::from_fn(|| next(&mut stream)).map(without_time).collect();
    assert_eq!(streamed, waited);
    assert_eq!(streamed.len(), 22);
    assert_eq!(next(&mut stream), None, "nothing after the last");
}

/// Steps that wait for the test: each says that it has begun and goes on when it is told to, or once nobody is left to
/// tell.
struct Gate {
    begun: Receiver<()>,
    go: Sender<()>,
}

fn gated(limits: Limits) -> (AsyncEngine, Gate) {
    let mut engine = Engine::demo(&Options::default().limits(limits)).unwrap();
    let ((begins, begun), (go, told)) = (channel(), channel());
    probe::before_run(&mut engine, move || {
        // Nobody may be left at the other end.
        let _ = begins.send(());
        let _ = told.recv();
    });
    (AsyncEngine::new(engine).unwrap(), Gate { begun, go })
}

/// The step under way ends only when it is told to, after all these calls have returned.
#[test]
fn nobody_waits_for_a_step() {
    let prompts = prompts(5);
    let request = |number: usize| Request::generate(prompts[number].clone(), generation(4));
    let (engine, gate) = gated(Limits::default().queue(2));
    let mut all = vec![engine.submit(request(0)).unwrap()];
    gate.begun.recv().unwrap();
    let stats = engine.stats().unwrap();
    assert_eq!((stats.requests_running, stats.requests_waiting, stats.requests_finished), (1, 0, 0));
    assert!(stats.text_pages.held > 0, "{stats:?}");
    assert!(stats.step_begun.is_some() && stats.last_step.is_none(), "{stats:?}");

    all.push(engine.submit(request(1)).unwrap());
    all.push(engine.submit(request(2)).unwrap());
    assert!(!engine.has_room(&engine.preparer().prepare(request(3)).unwrap()));
    let error = engine.submit(request(3)).err().unwrap();
    assert!(matches!(&error, Error::QueueFull { limit: 2, found: 3, .. }), "{error:?}");
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (flamant::ErrorKind::QueueFull, "requests that wait: 3 is over the limit of 2")
    );
    assert_eq!(engine.stats().unwrap().requests_waiting, 2);

    // One that is still on its way makes room at once; one that runs is told so by the next step.
    all[1].cancel();
    all.push(engine.submit(request(3)).unwrap());
    all[0].cancel();
    let media: Vec<&[Image]> = prompts.iter().flat_map(Prompt::media).collect();
    let features = engine.features(&media).unwrap();
    assert_eq!(engine.stats().unwrap().steps, 0, "the first is not over");

    drop(gate);
    let ids: Vec<RequestId> = all.iter().map(Events::id).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let last: Vec<EventKind> = all.into_iter().map(|events| events.into_iter().last().unwrap()).collect();
    assert_eq!(&last[..2], [EventKind::Cancelled, EventKind::Cancelled]);
    let mut flamingo = Flamingo::demo(&Options::default()).unwrap();
    for (event, number) in last[2..].iter().zip(2..) {
        let alone = flamingo.generate(&prompts[number], &generation(4), &mut |_| {}).unwrap();
        assert!(matches!(event, EventKind::Written(answer) if answer.ids == alone.ids), "{event:?}");
    }
    assert_eq!(features.wait().unwrap(), flamingo.features(&media).unwrap());
    assert_eq!(engine.stats().unwrap().requests_cancelled, 2);
    // What was refused is taken now.
    let last = engine.submit(request(4)).unwrap().into_iter().last();
    assert!(matches!(last, Some(EventKind::Written(_))));
    eventually("the last step is over", || engine.stats().unwrap().step_begun.is_none());
    assert!(engine.stats().unwrap().last_step.is_some());
}

/// Room is there as soon as a step has begun with those that waited, not only when it ends.
#[test]
fn a_place_in_the_queue_is_free_when_a_request_runs() {
    let (engine, gate) = gated(Limits::default().queue(1).max_sequences(2));
    let mut all = vec![engine.submit(long()).unwrap()];
    gate.begun.recv().unwrap();
    all.push(engine.submit(long()).unwrap());
    assert!(matches!(engine.submit(long()).err(), Some(Error::QueueFull { .. })));
    gate.go.send(()).unwrap();
    gate.begun.recv().unwrap();
    let stats = engine.stats().unwrap();
    assert_eq!((stats.requests_running, stats.requests_waiting), (2, 0));
    all.push(engine.submit(long()).unwrap());
    assert!(matches!(engine.submit(long()).err(), Some(Error::QueueFull { .. })));
    drop(all);
    drop(gate);
    eventually("three are cancelled", || engine.stats().unwrap().requests_cancelled == 3);
}

/// Calls for features share batches, a video may need several, and requests go on beside them.
#[test]
fn features_are_those_of_an_engine_that_does_nothing_else() {
    let prompts = prompts(12);
    let mut flamingo = Flamingo::demo(&Options::default()).unwrap();
    let (engine, gate) = gated(Limits::default().max_batched_images(Some(3)));
    let running = engine.submit(Request::generate(prompts[0].clone(), generation(12))).unwrap();
    gate.begun.recv().unwrap();
    let all: Vec<Image> = prompts.iter().flat_map(Prompt::media).flatten().cloned().collect();
    let asked: Vec<Vec<&[Image]>> = vec![
        vec![&all[..1]],
        vec![&all[1..2], &all[2..9], &all[9..10]],
        vec![],
        vec![&all[3..4], &all[3..4]],
        vec![&all[10..12]],
    ];
    let found: Vec<_> = asked.iter().map(|media| engine.features(media).unwrap()).collect();
    drop(gate);
    for (media, mut found) in asked.iter().zip(found) {
        let mut context = Context::from_waker(Waker::noop());
        let mut polled = None;
        eventually("features", || match Pin::new(&mut found).poll(&mut context) {
            Poll::Ready(found) => {
                polled = Some(found);
                true
            }
            Poll::Pending => false,
        });
        assert_eq!(polled.unwrap().unwrap(), flamingo.features(media).unwrap());
    }
    let alone = flamingo.generate(&prompts[0], &generation(12), &mut |_| {}).unwrap();
    let last = running.into_iter().last();
    assert!(matches!(&last, Some(EventKind::Written(answer)) if answer.ids == alone.ids), "{last:?}");
    let error = engine.features(&[&[]]).err().unwrap().to_string();
    assert!(error.contains("at least one frame, found one of none"), "{error}");
}

#[test]
fn calls_for_features_have_a_budget_and_give_it_back() {
    let prompts = prompts(2);
    let images: Vec<&[Image]> = prompts.iter().flat_map(Prompt::media).take(3).collect();
    let engine = start(Limits::default());
    let bytes = engine.preparer().preprocessor().rgb(&images[0][0]).len() as u64;
    let (engine, gate) = gated(Limits::default().queue(2).queue_bytes(2 * bytes + 1000));
    let running = engine.submit(long()).unwrap();
    gate.begun.recv().unwrap();
    assert!(matches!(engine.features(&images).err(), Some(Error::Limit { .. })));
    let first = engine.features(&images[..2]).unwrap();
    let error = engine.features(&images[2..]).err().unwrap();
    assert!(matches!(&error, Error::QueueFull { what, .. } if what == "bytes of all requests"), "{error:?}");
    // An image that is held already costs nothing more.
    let second = engine.features(&images[1..2]).unwrap();
    let error = engine.features(&images[1..2]).err().unwrap();
    assert!(matches!(&error, Error::QueueFull { limit: 2, found: 3, .. }), "{error:?}");
    drop((gate, running));
    assert_eq!(first.wait().unwrap()[1..], second.wait().unwrap());
    assert_eq!(engine.features(&images[2..]).unwrap().wait().unwrap().len(), 1);
}

/// Lines in any number, of all tasks, good and bad: each has its answer, that of a batch, in the order of the lines.
#[test]
fn lines_are_answered_as_a_batch_answers_them() {
    let prompt = |number: u64| json!([{"text": "kep.mul."}, {"text": format!("{}.", number % 7)}]);
    let lines: Vec<String> = (0..60)
        .map(|number| match number % 6 {
            0 => json!({"id": number, "prompt": prompt(number), "max_new_tokens": 5}).to_string(),
            1 => json!({"task": "classify", "choices": ["kep", "mul"], "mean": true, "prompt": prompt(number)})
                .to_string(),
            2 => json!({"id": "a score", "task": "score", "prompt": prompt(number)}).to_string(),
            3 => json!({"id": number, "prompt": prompt(number), "seeds": 4}).to_string(),
            4 => "no JSON".to_owned(),
            _ => json!({"prompt": [{"text": "kep.".repeat(5000)}]}).to_string(),
        })
        .collect();
    // A queue that the lines overflow many times.
    let limits = Limits::default().max_sequences(3).queue(4);
    let answers = batch::answer_lines(&start(limits.clone()), lines.clone(), &PromptLimits::default()).unwrap();

    let mut engine = Engine::demo(&Options::default().limits(limits)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("requests.jsonl"), folder.path().join("answers.jsonl"));
    std::fs::write(&input, lines.join("\n")).unwrap();
    batch::Batch::open(&input, &output).unwrap().run(&mut engine, |_| ()).unwrap();
    let written = std::fs::read_to_string(&output).unwrap();
    let mut expected: Vec<Value> = written.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    expected.sort_by_key(|answer| answer["line"].as_u64());
    assert_eq!((answers.len(), expected.len()), (60, 60));
    for (answer, mut expected) in answers.iter().zip(expected) {
        let mut answer: Value = serde_json::from_str(answer).unwrap();
        let line = expected["line"].take();
        // Only there do errors say which line of which file, and what ran beside it decides how long it took.
        for answer in [&mut answer, &mut expected] {
            let answer = answer.as_object_mut().unwrap();
            for key in ["line", "request", "timings", "usage"] {
                answer.remove(key);
            }
            if let Some(Value::String(error)) = answer.get_mut("error") {
                *error = error.replace(&format!("{}: line {line}", input.display()), "request");
            }
        }
        assert_eq!(answer, expected);
    }
}

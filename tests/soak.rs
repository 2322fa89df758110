//! An engine under random load for a while: requests of all kinds come, are cancelled and refused, while pages are so
//! few that some have to give way. Nothing is lost, repeated or changed, and memory does not grow.
//!
//! `FLAMANT_SOAK_SECONDS` says how long, 60 if it does not; `FLAMANT_SOAK_SEED` repeats a run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use flamant::demo::{Episode, Random, Sheet};
use flamant::{
    Answer, Choice, Engine, Error, Event, EventKind, Generation, Limits, Options, Prompt, Request, RequestId, Sampling,
    Task,
};

/// Tokens of a sequence at most.
const CONTEXT: usize = 192;
/// Pages of a sequence of that length, and some more: two long requests never fit.
const TEXT_PAGES: usize = CONTEXT / 16 + 8;
/// Less than one prompt has images.
const MEDIA_PAGES: usize = 6;
/// Bytes that may come with time: allocators never give all back.
const GROWTH_MAX: u64 = 8 << 20;

/// A setting of the environment.
fn setting(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, found {text}")))
}

/// Bytes of this program that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// What is known of a request that was taken.
struct Open {
    /// What it is one of, and which.
    kind: Kind,
    cancelled: bool,
    begun: bool,
    tokens: usize,
    rows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Canary(usize),
    Write { max_new_tokens: usize },
    Search,
    Classify { choices: usize },
    Score { logits: bool },
}

/// What a canary must answer.
#[derive(Debug, PartialEq)]
enum Song {
    Written(String, Vec<u32>, Vec<f64>),
    Classified(Vec<Choice>),
    Scored(Vec<Option<f64>>),
}

impl Song {
    /// Of a last event; none for a request that ended without an answer.
    fn of(event: &EventKind) -> Option<Song> {
        match event {
            EventKind::Written(Answer { text, ids, logprobs, .. }) => {
                Some(Song::Written(text.clone(), ids.clone(), logprobs.clone()))
            }
            EventKind::Classified(classification) => Some(Song::Classified(classification.choices.clone())),
            EventKind::Scored(score) => Some(Song::Scored(score.logprobs.clone())),
            _ => None,
        }
    }
}

/// Makes requests.
struct Maker {
    random: Random,
    sheets: Vec<Sheet>,
}

impl Maker {
    fn prompt(&mut self) -> Prompt {
        let sheet = self.random.below(self.sheets.len());
        let (ways, shown) = (2 + self.random.below(4), self.random.below(14));
        Episode::draw(&mut self.random, &self.sheets[sheet], ways, shown).prompt().unwrap()
    }

    fn request(&mut self) -> (Request, Kind) {
        let prompt = self.prompt();
        let max_new_tokens = 1 + self.random.below(60);
        let generation = Generation::default().max_new_tokens(max_new_tokens).ignore_eos(self.random.below(2) == 0);
        match self.random.below(8) {
            0 => (Request::generate(prompt, generation.num_beams(4).max_new_tokens(10)), Kind::Search),
            1 => {
                let choices = 1 + self.random.below(12);
                let names = (0..choices).map(|name| format!("{name:b}bo{name:b}").replace(['0', '1'], "a")).collect();
                (Request::classify(prompt, names), Kind::Classify { choices })
            }
            2 => {
                let logits = self.random.below(2) == 0;
                (Request::new(prompt, Task::score(logits)), Kind::Score { logits })
            }
            3 | 4 => {
                let sampling = Sampling::default()
                    .temperature(1.5)
                    .top_k(self.random.below(20))
                    .min_p(0.05 * self.random.below(2) as f32)
                    .seed(self.random.below(1 << 20) as u64);
                (Request::generate(prompt, generation.sampling(sampling)), Kind::Write { max_new_tokens })
            }
            _ => (Request::generate(prompt, generation), Kind::Write { max_new_tokens }),
        }
    }

    /// A request that must be refused, and what the refusal mentions.
    fn bad(&mut self) -> (Request, &'static str) {
        let prompt = self.prompt();
        let mut text = Prompt::new();
        match self.random.below(5) {
            0 => {
                let sampling = Sampling::default().temperature(f32::NAN);
                (Request::generate(prompt, Generation::default().sampling(sampling)), "temperature")
            }
            1 => {
                text.text("a".repeat(CONTEXT + 1)).unwrap();
                (Request::score(text), "tokens of a sequence")
            }
            2 => {
                text.text("a<image>b").unwrap();
                (Request::score(text), "image markers")
            }
            3 => (Request::classify(prompt, vec![String::new()]), "choice"),
            _ => {
                let stop = vec![String::new()];
                (Request::generate(prompt, Generation::default().stop(stop)), "stop")
            }
        }
    }
}

/// Requests whose answers are known: one of each kind.
fn canaries() -> Vec<Request> {
    let mut maker = Maker { random: Random::new(99), sheets: Sheet::all().unwrap() };
    let mut prompt = || {
        let sheet = &maker.sheets[2];
        Episode::draw(&mut maker.random, sheet, 5, 8).prompt().unwrap()
    };
    let generation = Generation::default().max_new_tokens(40).ignore_eos(true);
    let sampling = Sampling::default().temperature(2.0).top_p(0.9).seed(4);
    vec![
        Request::generate(prompt(), generation.clone()),
        Request::generate(prompt(), generation.clone().sampling(sampling)),
        Request::generate(prompt(), generation.num_beams(3).max_new_tokens(8)),
        Request::classify(prompt(), ["mo.", "kep.", "zut.", "k"].map(str::to_owned).to_vec()),
        Request::score(prompt()),
    ]
}

/// What each canary answers alone, with room for everything.
fn songs(canaries: &[Request]) -> Vec<Song> {
    let limits = Limits::default().prefix_caching(false);
    let mut engine = Engine::demo(&Options::default().context_max(Some(CONTEXT)).limits(limits)).unwrap();
    let mut songs = Vec::new();
    for canary in canaries {
        engine.submit(canary.clone()).unwrap();
        while !engine.is_idle() {
            songs.extend(engine.step().iter().filter_map(|event| Song::of(&event.kind)));
        }
    }
    assert_eq!(songs.len(), canaries.len());
    songs
}

/// The load and its books.
struct Soak {
    engine: Engine,
    maker: Maker,
    open: HashMap<RequestId, Open>,
    order: Vec<RequestId>,
    songs: Vec<Song>,
    accepted: u64,
    answered: u64,
    cancelled: u64,
    refused: u64,
    full: u64,
    sung: u64,
}

impl Soak {
    fn submit(&mut self, request: Request, kind: Kind) {
        let waiting = self.engine.stats().requests_waiting;
        match self.engine.submit(request) {
            Ok(id) => {
                let open = Open { kind, cancelled: false, begun: false, tokens: 0, rows: 0 };
                assert!(self.open.insert(id, open).is_none(), "the id {id} is given twice");
                self.order.push(id);
                self.accepted += 1;
            }
            Err(Error::QueueFull { what, .. }) if what == "requests that wait" => {
                // More wait than the queue takes when running ones have given way.
                assert!(waiting >= self.engine.limits().queue, "refused while there is room");
                self.full += 1;
            }
            Err(error) => panic!("{kind:?}: {error}"),
        }
    }

    fn cancel_one(&mut self) {
        if self.order.is_empty() {
            return;
        }
        let id = self.order[self.maker.random.below(self.order.len())];
        let open = self.open.get_mut(&id).unwrap();
        // Canaries are heard to their end.
        if !matches!(open.kind, Kind::Canary(_)) {
            assert_eq!(self.engine.cancel(id), !open.cancelled, "request {id}");
            open.cancelled = true;
        }
    }

    fn refuse_one(&mut self) {
        let (request, mention) = self.maker.bad();
        let error = self.engine.submit(request).expect_err(mention).to_string();
        assert!(error.contains(mention), "{mention}: {error}");
        self.refused += 1;
    }

    fn step(&mut self) {
        for Event { id, kind: event, .. } in self.engine.step() {
            let open = self.open.get_mut(&id).unwrap_or_else(|| panic!("request {id} is over, and then {event:?}"));
            assert!(!open.cancelled || event.is_last(), "request {id} is cancelled, and then {event:?}");
            match (open.kind, &event) {
                (_, EventKind::Begun { .. }) => assert!(!std::mem::replace(&mut open.begun, true), "begun twice"),
                (Kind::Write { .. } | Kind::Canary(0 | 1), EventKind::Token { .. }) => open.tokens += 1,
                (Kind::Score { logits: true }, EventKind::Logits { position, .. }) => {
                    assert_eq!(*position, open.rows, "rows of logits in order");
                    open.rows += 1;
                }
                (_, EventKind::Cancelled) => assert!(open.cancelled, "request {id} was never cancelled"),
                (Kind::Canary(number), event) if event.is_last() => {
                    assert_eq!(Song::of(event).as_ref(), Some(&self.songs[number]), "canary {number} has changed");
                    self.sung += 1;
                }
                (Kind::Write { max_new_tokens }, EventKind::Written(answer)) => {
                    assert_eq!(answer.ids.len(), open.tokens, "as many tokens as were told");
                    assert!((1..=max_new_tokens).contains(&open.tokens));
                }
                (Kind::Search, EventKind::Written(_)) => {}
                (Kind::Classify { choices }, EventKind::Classified(found)) => {
                    assert_eq!(found.choices.len(), choices);
                }
                (Kind::Score { logits }, EventKind::Scored(score)) => {
                    assert_eq!(open.rows, if logits { score.ids.len() } else { 0 });
                }
                (kind, event) => panic!("request {id}, {kind:?}: {event:?}"),
            }
            if event.is_last() {
                self.open.remove(&id);
                self.order.retain(|open| *open != id);
                match event {
                    EventKind::Cancelled => self.cancelled += 1,
                    _ => self.answered += 1,
                }
            }
        }
    }
}

#[test]
fn nothing_is_lost_repeated_or_changed_under_random_load() {
    let time = Duration::from_secs(setting("FLAMANT_SOAK_SECONDS", 60));
    let seed = setting("FLAMANT_SOAK_SEED", 1);
    let canaries = canaries();
    let songs = songs(&canaries);
    let limits = Limits::default()
        .max_sequences(6)
        .max_batched_tokens(Some(40))
        .max_batched_images(Some(2))
        .text_pages(Some(TEXT_PAGES))
        .media_pages(Some(MEDIA_PAGES))
        .queue(24);
    let engine = Engine::demo(&Options::default().context_max(Some(CONTEXT)).limits(limits)).unwrap();
    // Images are few, so that all of them were seen before memory is measured.
    let sheets = Sheet::all().unwrap().into_iter().take(2).collect();
    let maker = Maker { random: Random::new(seed), sheets };
    let (open, order) = (HashMap::new(), Vec::new());
    let mut soak = Soak {
        engine,
        maker,
        open,
        order,
        songs,
        accepted: 0,
        answered: 0,
        cancelled: 0,
        refused: 0,
        full: 0,
        sung: 0,
    };
    let (begun, mut warm) = (Instant::now(), None);
    let mut next_canary = 0;
    while begun.elapsed() < time {
        // Waves: the queue runs full, and empties.
        let arrivals = if begun.elapsed().as_secs() % 4 < 2 { 3 } else { 12 };
        match soak.maker.random.below(arrivals) {
            0 => {
                let (request, kind) = soak.maker.request();
                soak.submit(request, kind);
            }
            1 if soak.maker.random.below(6) == 0 => {
                next_canary = (next_canary + 1) % canaries.len();
                soak.submit(canaries[next_canary].clone(), Kind::Canary(next_canary));
            }
            _ => {}
        }
        match soak.maker.random.below(40) {
            0 => soak.cancel_one(),
            1 => soak.refuse_one(),
            _ => {}
        }
        soak.step();
        // Everything has been in use once by then.
        if warm.is_none() && begun.elapsed() > time / 3 {
            warm = Some(resident());
        }
    }
    while !soak.engine.is_idle() {
        soak.step();
    }
    let (warm, end) = (warm.expect("the load was on for a while"), resident());
    let stats = soak.engine.stats();
    let Soak { accepted, answered, cancelled, refused, full, sung, open, .. } = soak;
    eprintln!(
        "{accepted} requests: {answered} answered ({sung} canaries), {cancelled} cancelled; {refused} refused, {full} \
         found the queue full; {} steps, {} preemptions, {} of {} images found; {} MB, {} MB after the warm-up",
        stats.steps,
        stats.preemptions,
        stats.images_cached,
        stats.images_cached + stats.images_encoded,
        end >> 20,
        warm >> 20,
    );
    assert!(open.is_empty(), "{} requests have no end", open.len());
    assert_eq!(answered + cancelled, accepted);
    assert_eq!((stats.requests_finished, stats.requests_cancelled, stats.requests_failed), (answered, cancelled, 0));
    assert_eq!((stats.requests_waiting, stats.requests_running), (0, 0));
    assert_eq!((stats.text_pages.held, stats.media_pages.held), (0, 0), "pages of nobody are held");
    assert_eq!((stats.text_pages.total, stats.media_pages.total), (TEXT_PAGES, MEDIA_PAGES));
    // It was a load.
    assert!(sung >= 5 && cancelled > 0 && refused > 0 && full > 0 && stats.preemptions > 0 && stats.tokens_cached > 0);
    assert!(end < warm + GROWTH_MAX, "memory grew from {warm} to {end} bytes");
}

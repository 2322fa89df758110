//! The server on the processor. `cargo bench --bench serve` runs all; `-- compare overload hang-ups` those that are
//! named, and `-- python` the engine's side of what `benches/peers/serve_python.py` measures.
//!
//! - `compare`: requests a second and time to first token through HTTP, beside the engine itself under threads that do
//!   the same (decode the same data URIs, prepare, submit, read the events), in turns.
//! - `overload`: five times as many requests as it can answer, for a minute: how many are answered, how fast the others
//!   are refused, and how memory grows.
//! - `hang-ups`: a hundred clients that stop reading or go away at random, for a minute; all counters must be at zero
//!   afterwards.

#[allow(dead_code, reason = "another bench uses the rest")]
mod http;
#[allow(dead_code, reason = "another bench uses the rest")]
mod synthetic;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use flamant::demo::Random;
use flamant::{AsyncEngine, Engine, EventKind, Generation, Options, Prompt, PromptLimits, Request, runner};
use http::{Client, Server};
use serde_json::{Value, json};

const ROUTE: &str = "/v1/completions";
const CONCURRENCIES: [usize; 3] = [1, 16, 64];
/// How long overload and hang-ups last.
const MINUTE: Duration = Duration::from_secs(60);

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|named| named == name);
    if wanted("compare") {
        compare(&Load::demo(), 5, [64, 512, 1024]);
        compare(&Load::large(), 3, [8, 32, 64]);
    }
    if wanted("overload") {
        overload();
    }
    if wanted("hang-ups") {
        hang_ups();
    }
    if named.iter().any(|named| named == "python") {
        for_python();
    }
}

/// Few-shot prompts of images of noise.
struct Load {
    name: &'static str,
    folder: Option<PathBuf>,
    shots: usize,
    /// Pixels of a side.
    side: usize,
    /// Letters after each image.
    letters: usize,
    /// Tokens of each answer.
    answer: usize,
}

impl Load {
    /// Five shots for the model in the program.
    fn demo() -> Load {
        Load { name: "demo", folder: None, shots: 5, side: 32, letters: 4, answer: 16 }
    }

    /// The queries of `benches/engine.rs`.
    fn large() -> Load {
        let folder = Some(synthetic::folder(synthetic::Dtype::F32));
        Load { name: "400M", folder, shots: 8, side: 224, letters: 20, answer: 4 }
    }

    fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn engine(&self) -> Engine {
        let options = Options::default();
        match &self.folder {
            Some(folder) => Engine::open(folder, &options.context_max(Some(512))),
            None => Engine::demo(&options),
        }
        .expect("the model opens")
    }

    fn server(&self, arguments: &[&str]) -> Server {
        let context: &[&str] = if self.folder.is_some() { &["--context", "512"] } else { &[] };
        Server::start(self.folder(), &[context, arguments].concat())
    }

    /// A prompt: the shots of a series, then an image of its own.
    fn parts(&self, series: usize, number: usize) -> Vec<(String, String)> {
        let part = |number: usize| (self.image(number), letters(self.letters, number));
        let shots = (0..self.shots).map(|shot| part(1_000_000 * (series + 1) + shot));
        shots.chain([part(number)]).collect()
    }

    /// A PNG of noise that no other number gives, as a data URI.
    fn image(&self, number: usize) -> String {
        let mut random = Random::new(number as u64);
        let pixels: Vec<u8> = (0..self.side * self.side * 3).map(|_| random.below(256) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.side as u32, self.side as u32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().expect("memory takes it");
        writer.write_image_data(&pixels).expect("memory takes it");
        writer.finish().expect("memory takes it");
        format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    /// As `flamant generate --prompt` reads it.
    fn prompt(&self, series: usize, number: usize) -> String {
        let parts = self.parts(series, number);
        let parts: Vec<Value> =
            parts.into_iter().flat_map(|(image, text)| [json!({"image": image}), json!({"text": text})]).collect();
        Value::from(parts).to_string()
    }

    /// The body of a request that streams.
    fn body(&self, series: usize, number: usize, answer: usize) -> Vec<u8> {
        let parts = self.parts(series, number).into_iter();
        let parts: Vec<Value> = parts
            .flat_map(|(image, text)| {
                [json!({"type": "image_url", "image_url": {"url": image}}), json!({"type": "text", "text": text})]
            })
            .collect();
        json!({"prompt": parts, "max_tokens": answer, "ignore_eos": true, "stream": true}).to_string().into_bytes()
    }
}

/// Letters that depend on a number.
fn letters(count: usize, number: usize) -> String {
    (0..count).map(|place| char::from(b'a' + ((place * 5 + number * (place + 1) / 3 + number) % 26) as u8)).collect()
}

fn generation(answer: usize) -> Generation {
    Generation::default().max_new_tokens(answer).ignore_eos(true)
}

/// The value that a share of all do not pass.
fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * share).round() as usize]
}

/// Has each number up to `count` asked by one of so many threads; requests a second, and the seconds to each first
/// token.
fn ask_all<C>(
    threads: usize,
    count: usize,
    client: impl Fn() -> C + Sync,
    ask: impl Fn(&mut C, usize) -> Instant + Sync,
) -> (f64, Vec<f64>) {
    let (next, firsts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut client = client();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let begun = Instant::now();
                    let first = ask(&mut client, number).duration_since(begun).as_secs_f64();
                    firsts.lock().expect("no thread panics").push(first);
                }
            });
        }
    });
    (count as f64 / begun.elapsed().as_secs_f64(), firsts.into_inner().expect("no thread panics"))
}

/// Asks the engine: as much as a route does, without HTTP.
fn ask_engine(engine: &AsyncEngine, prompt: &str, answer: usize) -> Instant {
    let prompt = Prompt::from_json(prompt, "prompt", Path::new(""), PromptLimits::default()).expect("it is right");
    let mut first = None;
    for event in engine.submit(Request::generate(prompt, generation(answer))).expect("there is room") {
        match event {
            EventKind::Token { .. } => first = first.or_else(|| Some(Instant::now())),
            EventKind::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    first.expect("tokens came")
}

fn ask_server(client: &mut Client, body: &[u8]) -> Instant {
    let answer = client.post(ROUTE, body).expect("the server answers");
    assert_eq!(answer.status, 200);
    answer.first.expect("tokens came")
}

fn compare(load: &Load, rounds: usize, counts: [usize; 3]) {
    let engine = AsyncEngine::new(load.engine()).expect("threads are left");
    let server = load.server(&[]);
    println!("{}: {} shots, {} tokens an answer, streamed", load.name, load.shots, load.answer);
    println!(
        "{:>12}{:>14}{:>14}{:>10}{:>18}{:>18}",
        "at a time", "engine/s", "HTTP/s", "share", "engine first ms", "HTTP first ms"
    );
    for (concurrency, count) in CONCURRENCIES.into_iter().zip(counts) {
        let (mut rates, mut firsts) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for round in 0..rounds {
            // The first goes second in every other round.
            for way in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let series = (concurrency * rounds + round) * 2 + way;
                let (rate, mut first) = if way == 0 {
                    let prompts: Vec<String> =
                        (0..count).map(|number| load.prompt(series, series * 10_000 + number)).collect();
                    ask_all(concurrency, count, || (), |(), number| ask_engine(&engine, &prompts[number], load.answer))
                } else {
                    let bodies: Vec<Vec<u8>> =
                        (0..count).map(|number| load.body(series, series * 10_000 + number, load.answer)).collect();
                    let connect = || Client::connect(&server.address);
                    ask_all(concurrency, count, connect, |client, number| ask_server(client, &bodies[number]))
                };
                rates[way].push(rate);
                firsts[way].append(&mut first);
            }
        }
        let [engine_rate, http_rate] = rates.map(|mut rates| quantile(&mut rates, 0.5));
        let [engine_first, http_first] = firsts.map(|mut firsts| 1e3 * quantile(&mut firsts, 0.5));
        let share = http_rate / engine_rate;
        println!(
            "{concurrency:>12}{engine_rate:>14.2}{http_rate:>14.2}{:>8.1} %{engine_first:>18.2}{http_first:>18.2}",
            100.0 * share
        );
        println!(
            "{}",
            json!({"name": format!("serve {}", load.name), "concurrency": concurrency, "engine_per_second": engine_rate,
                "http_per_second": http_rate, "share": share, "engine_first_ms": engine_first, "http_first_ms": http_first})
        );
    }
}

/// What happened to a request that came at its time, whatever the server was doing.
struct Sent {
    status: u16,
    seconds: f64,
}

/// Sends requests at a rate, each on a connection of its own.
fn send_at(server: &Server, rate: f64, time: Duration, body: &[u8]) -> Vec<Sent> {
    let sent = Mutex::new(Vec::new());
    let begun = Instant::now();
    thread::scope(|scope| {
        let mut due = 0.0;
        while due < time.as_secs_f64() {
            let at = begun + Duration::from_secs_f64(due);
            thread::sleep(at.saturating_duration_since(Instant::now()));
            scope.spawn(|| {
                let begun = Instant::now();
                let answer = Client::connect(&server.address).post(ROUTE, body);
                let status = answer.map_or(0, |answer| answer.status);
                sent.lock().expect("no thread panics").push(Sent { status, seconds: begun.elapsed().as_secs_f64() });
            });
            due += 1.0 / rate;
        }
    });
    sent.into_inner().expect("no thread panics")
}

fn overload() {
    const ANSWER: usize = 200;
    const QUEUE: &str = "64";
    let load = Load::demo();
    let server = load.server(&["--queue", QUEUE]);
    let body = load.body(0, 1, ANSWER);
    // As many as run at a time keep it busy.
    let ask = |client: &mut Client, _: usize| ask_server(client, &body);
    let connect = || Client::connect(&server.address);
    ask_all(64, 64, connect, ask);
    let peak = ask_all(64, 512, connect, ask).0;
    let memory_before = server.memory();
    let begun = Instant::now();
    let sent = send_at(&server, 5.0 * peak, MINUTE, &body);
    let seconds = begun.elapsed().as_secs_f64();
    let memory_after = server.memory();
    let of =
        |status: u16| sent.iter().filter(|sent| sent.status == status).map(|sent| sent.seconds).collect::<Vec<_>>();
    let (mut answered, mut refused) = (of(200), of(429));
    let other = sent.len() - answered.len() - refused.len();
    assert_eq!(other, 0, "each request is answered or refused");
    let goodput = answered.len() as f64 / seconds;
    let late = 1e3 * quantile(&mut refused, 0.99);
    let slow = quantile(&mut answered, 0.99);
    println!(
        "overload: {:.0} a second come for {seconds:.0} s, {peak:.1} at best; answered {goodput:.1} a second ({:.0} %), 99 % \
         of them within {slow:.2} s; 99 % of refusals within {late:.1} ms; memory {} to {} MiB",
        5.0 * peak,
        100.0 * goodput / peak,
        memory_before >> 20,
        memory_after >> 20
    );
    println!(
        "{}",
        json!({"name": "overload", "peak": peak, "goodput": goodput, "refused_p99_ms": late, "answered_p99_s": slow,
            "memory_before": memory_before, "memory_after": memory_after})
    );
}

/// What a client does that is not to be relied on.
fn misbehave(address: &str, random: &mut Random, body: &[u8]) {
    let mut client = Client::connect(address);
    let pause = |random: &mut Random| thread::sleep(Duration::from_millis(random.below(400) as u64));
    match random.below(4) {
        // Half a body.
        0 => {
            let head = format!("POST {ROUTE} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n");
            let length = format!("Content-Length: {}\r\n\r\n", body.len());
            let half = &body[..random.below(body.len())];
            use std::io::Write as _;
            let _ = client.stream.write_all(&[head.as_bytes(), length.as_bytes(), half].concat());
            pause(random);
        }
        // Nothing of the answer is read.
        1 => {
            let _ = client.send(ROUTE, body);
            pause(random);
        }
        // It goes at once.
        2 => drop(client.send(ROUTE, body)),
        _ => {
            let _ = client.post(ROUTE, body);
        }
    }
    client.hang_up();
}

fn hang_ups() {
    let load = Load::demo();
    let server = load.server(&[]);
    let bodies: Vec<Vec<u8>> = (0..64).map(|number| load.body(number % 4, number, 100)).collect();
    let asked = AtomicUsize::new(0);
    let end = Instant::now() + MINUTE;
    thread::scope(|scope| {
        for seed in 0..100 {
            let (server, bodies, asked) = (&server, &bodies, &asked);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while Instant::now() < end {
                    let body = &bodies[random.below(bodies.len())];
                    misbehave(&server.address, &mut random, body);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let held = || -> Vec<(&str, f64)> {
        let names = ["flamant_requests_running", "flamant_requests_waiting", "flamant_body_bytes_in_flight"];
        let held = names.map(|name| (name, server.metric(name)));
        held.into_iter().chain([("flamant_connections", server.metric("flamant_connections") - 1.0)]).collect()
    };
    let patience = Instant::now() + Duration::from_secs(5);
    while held().iter().any(|(_, count)| *count != 0.0) && Instant::now() < patience {
        thread::sleep(Duration::from_millis(50));
    }
    let left = held();
    assert!(left.iter().all(|(_, count)| *count == 0.0), "something is held still: {left:?}");
    let cancelled = server.metric("flamant_requests_cancelled_total");
    println!(
        "hang-ups: {} requests of 100 clients, {cancelled} cancelled; nothing is held afterwards",
        asked.load(Ordering::Relaxed)
    );
}

/// The rate of 256 prompts that are at hand, as Python's `generate` has them.
fn for_python() {
    let load = Load::demo();
    let mut engine = load.engine();
    let series = std::process::id() as usize;
    let prompts: Vec<String> = (0..256).map(|number| load.prompt(series, number)).collect();
    let begun = Instant::now();
    let requests = prompts.into_iter().map(|json| {
        let prompt = Prompt::from_json(&json, "prompt", Path::new(""), PromptLimits::default()).expect("it is right");
        ((), Request::generate(prompt, generation(64)))
    });
    runner::run_all(&mut engine, requests, |(), event| match event {
        EventKind::Failed(error) => Err(error),
        _ => Ok(()),
    })
    .expect("all are answered");
    println!("{}", json!({"name": "generate 256", "per_second": 256.0 / begun.elapsed().as_secs_f64()}));
}

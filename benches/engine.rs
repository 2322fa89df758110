//! The engine on the processor: queries behind one few-shot prefix, decoding side by side, a thousand names behind one
//! image. `cargo bench --bench engine` runs all; `-- few-shot decode names` those that are named.
//!
//! A round of what is compared takes its turn after the other, and the median of the rounds is printed: one round takes
//! up to a minute, too long for criterion's ten samples. Each round has images and texts of its own, so that nothing
//! is found that an earlier round left. Where work is counted, it is the least: matrix products of images and tokens
//! that nobody has computed yet. Its rate is compared with that of a lone prompt in the same run.

#[allow(dead_code, reason = "another bench uses the rest")]
mod synthetic;

use std::collections::BTreeSet;
use std::time::Instant;

use flamant::image::Image;
use flamant::{Engine, EventKind, Generation, Limits, Options, Prompt, Request, Stats};
use serde_json::json;

/// Rounds of each figure.
const ROUNDS: usize = 3;
/// Images with text before the image that is asked about.
const SHOTS: usize = 8;
/// Letters after each image; each is a token.
const LETTERS: usize = 20;
/// Tokens of an image with its fences.
const IMAGE_TOKENS: usize = 3;
/// Tokens of all shots, with the one that begins a sequence.
const PREFIX: usize = 1 + SHOTS * (IMAGE_TOKENS + LETTERS);
/// Tokens of a question with its image.
const QUESTION: usize = IMAGE_TOKENS + LETTERS;
/// Tokens of an answer.
const ANSWER: usize = 4;
/// Queries behind a prefix; without sharing fewer are measured, since each takes as long.
const QUERIES: usize = 64;
const QUERIES_ALONE: usize = 8;

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|named| named == name);
    if wanted("few-shot") {
        few_shot();
    }
    if wanted("decode") {
        decode();
    }
    if wanted("names") {
        names();
    }
}

fn open(prefix_caching: bool) -> Engine {
    let folder = synthetic::folder(synthetic::Dtype::F32);
    let limits = Limits::default().prefix_caching(prefix_caching);
    let options = Options::default().context_max(Some(512)).limits(limits);
    Engine::open(folder, &options).expect("the synthetic model opens")
}

/// An image of noise that no other number gives.
fn image(number: usize) -> Image {
    let mut state = number as u32;
    let mut pixel = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Image::from_rgb(224, 224, (0..224 * 224 * 3).map(|_| pixel()).collect()).expect("the size is right")
}

/// Letters that depend on a number.
fn letters(count: usize, number: usize) -> String {
    (0..count).map(|place| char::from(b'a' + ((place * 5 + number * (place + 1) / 3 + number) % 26) as u8)).collect()
}

/// A question about an image, behind the shots of a round.
fn query(round: usize, asked: usize, question: usize) -> Prompt {
    let mut prompt = Prompt::new();
    let mut part = |number: usize, text: String| {
        prompt.image(image(number)).expect("few images").text(text).expect("few parts");
    };
    for shot in 0..SHOTS {
        part(10_000 * round + shot, letters(LETTERS, 100 * round + shot));
    }
    part(10_000 * round + 1000 + asked, letters(LETTERS, 1000 + question));
    prompt
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Runs prompts that were prepared before; the seconds, and what was counted.
fn timed(engine: &mut Engine, requests: Vec<Request>) -> (f64, Stats) {
    let prepare = |request| engine.preparer().prepare(request).expect("the synthetic prompt is right");
    let prepared: Vec<_> = requests.into_iter().map(prepare).collect();
    let before = engine.stats();
    let begun = Instant::now();
    for prepared in prepared {
        engine.submit_prepared(prepared).expect("the queue is long enough");
    }
    while !engine.is_idle() {
        for event in engine.step() {
            assert!(!matches!(event.kind, EventKind::Failed(_)), "{event:?}");
        }
    }
    let (seconds, after) = (begun.elapsed().as_secs_f64(), engine.stats());
    let mut grown = after;
    grown.images_encoded -= before.images_encoded;
    grown.tokens_computed -= before.tokens_computed;
    (seconds, grown)
}

/// A way to ask, and what was measured of it.
struct Way {
    name: &'static str,
    prefix_caching: bool,
    queries: usize,
    per_image: usize,
    seconds: Vec<f64>,
}

/// The least work of so many queries, in floating-point operations.
fn least(engine: &Engine, way: &Way) -> u64 {
    let text = |tokens: usize| engine.flops(0, tokens)[1];
    // Reading no token costs one row of logits.
    let output = text(0);
    let asked = |from: u64| text(PREFIX + QUESTION + ANSWER - 1) - from + ANSWER as u64 * output;
    let count = way.queries as u64;
    match way.prefix_caching {
        true => {
            let images = SHOTS + way.queries / way.per_image;
            engine.flops(images, 0)[0] + text(PREFIX) - output + count * asked(text(PREFIX))
        }
        false => count * (engine.flops(SHOTS + 1, 0)[0] + asked(output)),
    }
}

fn few_shot() {
    let mut shared = open(true);
    let mut alone = open(false);
    write_for_peer(&shared);
    let way = |name, prefix_caching, queries, per_image| Way {
        name,
        prefix_caching,
        queries,
        per_image,
        seconds: Vec::new(),
    };
    let mut ways = [
        way("one alone", false, 1, 1),
        way("not shared", false, QUERIES_ALONE, 1),
        way("shared, an image each", true, QUERIES, 1),
        way("shared, 4 questions an image", true, QUERIES, 4),
    ];
    let generation = Generation::default().max_new_tokens(ANSWER).ignore_eos(true);
    for round in 0..ROUNDS {
        for (number, way) in ways.iter_mut().enumerate() {
            let engine = if way.prefix_caching { &mut shared } else { &mut alone };
            let prompt = |question| query(1 + round * 4 + number, question / way.per_image, question);
            let requests = (0..way.queries).map(|question| Request::generate(prompt(question), generation.clone()));
            let (seconds, stats) = timed(engine, requests.collect());
            if way.prefix_caching {
                let images = (SHOTS + way.queries / way.per_image) as u64;
                assert_eq!(stats.images_encoded, images, "each image is encoded once");
            }
            way.seconds.push(seconds);
        }
    }
    println!("{QUERIES} queries behind {SHOTS} shots, 400M float32: {PREFIX} + {QUESTION} tokens, {ANSWER} written");
    println!("{:32}{:>12}{:>12}{:>12}{:>10}", "", "queries/s", "GFLOP each", "GFLOP/s", "of alone");
    let mut rate_alone = None;
    for way in ways {
        let work = least(&shared, &way);
        let seconds = median(way.seconds);
        let (each, rate) = (work as f64 / 1e9 / way.queries as f64, work as f64 / 1e9 / seconds);
        let speed = way.queries as f64 / seconds;
        let share = 100.0 * rate / *rate_alone.get_or_insert(rate);
        println!("{:32}{speed:>12.3}{each:>12.0}{rate:>12.0}{share:>8.0} %", way.name);
        println!("{}", json!({"name": way.name, "queries_per_second": speed, "least_gflop_each": each}));
    }
}

/// What `benches/peers/transformers_few_shot.py` reads: the tokens of a few queries.
fn write_for_peer(engine: &Engine) {
    let queries: Vec<_> = (0..QUERIES_ALONE)
        .map(|question| {
            let rendered = query(0, question, question).render(engine.tokenizer()).expect("the prompt is right");
            assert_eq!(rendered.ids.len(), PREFIX + QUESTION);
            let media: Vec<_> = rendered.media.iter().map(|seen| seen.range().next()).collect();
            json!({"ids": rendered.ids, "media": media, "images": SHOTS + 1})
        })
        .collect();
    let file = synthetic::folder(synthetic::Dtype::F32).join("few_shot_ids.json");
    std::fs::write(file, json!({"queries": queries, "answer": ANSWER}).to_string()).expect("target can be written");
}

/// Tokens a second of so many sequences that all write.
fn decoding(engine: &mut Engine, sequences: usize, round: usize) -> f64 {
    const STEPS: usize = 24;
    let generation = Generation::default().max_new_tokens(200).ignore_eos(true);
    let mut ids = Vec::new();
    for sequence in 0..sequences {
        let mut prompt = Prompt::new();
        prompt.text(letters(100, 1 + sequence + 50 * round)).expect("few parts");
        ids.push(engine.submit(Request::generate(prompt, generation.clone())).expect("the queue is long enough"));
    }
    let mut writing = BTreeSet::new();
    while writing.len() < sequences {
        writing.extend(engine.step().iter().map(|event| event.id));
    }
    let begun = Instant::now();
    let tokens: usize = (0..STEPS).map(|_| engine.step().len()).sum();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(tokens, STEPS * sequences, "every step gives each sequence a token");
    ids.into_iter().for_each(|id| assert!(engine.cancel(id)));
    engine.step();
    tokens as f64 / seconds
}

fn decode() {
    for dtype in [synthetic::Dtype::F32, synthetic::Dtype::Bf16] {
        let folder = synthetic::folder(dtype);
        let options = Options::default().context_max(Some(512));
        let mut engine = Engine::open(folder, &options).expect("the synthetic model opens");
        let counts = [1, 4, 16, 64];
        let mut rates = counts.map(|_| Vec::new());
        for round in 0..ROUNDS {
            for (count, rates) in counts.into_iter().zip(&mut rates) {
                rates.push(decoding(&mut engine, count, round));
            }
        }
        println!("decoding, 400M {dtype:?}");
        let mut one = None;
        for (count, rates) in counts.into_iter().zip(rates) {
            let rate = median(rates);
            let times = rate / *one.get_or_insert(rate);
            println!("{count:>4} sequences {rate:>10.1} tokens/s, {times:>5.2} times one");
            println!("{}", json!({"name": format!("decode {dtype:?}"), "sequences": count, "tokens_per_second": rate}));
        }
    }
}

/// A thousand names of eight letters, each fifty with the same five first.
fn thousand_names() -> Vec<String> {
    let names = (0..1000).map(|number| letters(5, 7 * (number / 50)) + &letters(3, 1 + number % 50 * 11));
    let names: BTreeSet<String> = names.collect();
    let longer = names.iter().enumerate().map(|(number, name)| format!("{name}{}", letters(2, number)));
    longer.collect()
}

fn names() {
    let names = thousand_names();
    let mut engine = open(true);
    // What must be read: every beginning of a name, once; the last token's own logits are of no interest.
    let begins: BTreeSet<&str> = names.iter().flat_map(|name| (1..name.len()).map(|end| &name[..end])).collect();
    let tokens: usize = names.iter().map(String::len).sum();
    let (mut alone, mut all) = (Vec::new(), Vec::new());
    let mut computed = 0;
    for round in 0..ROUNDS {
        let prompt = |number: usize| {
            let mut prompt = Prompt::new();
            prompt.image(image(number)).expect("few images").text(letters(LETTERS, number)).expect("few parts");
            prompt
        };
        alone.push(timed(&mut engine, vec![Request::score(query(100 + round, 0, 0))]).0);
        let request = Request::classify(prompt(200 + round), names.clone());
        let (seconds, stats) = timed(&mut engine, vec![request]);
        all.push(seconds);
        computed = stats.tokens_computed as usize - (1 + QUESTION);
    }
    let text = |tokens: usize| engine.flops(0, tokens)[1];
    let output = text(0);
    let context = 1 + QUESTION;
    let prompt = engine.flops(1, 0)[0] + text(context);
    let read = begins.len() as u64 * (text(context + 5) - text(context + 4) + output);
    let lone = engine.flops(SHOTS + 1, 0)[0] + text(PREFIX + QUESTION) + (PREFIX + QUESTION - 1) as u64 * output;
    let (alone, all) = (median(alone), median(all));
    let rate_alone = lone as f64 / alone;
    let over = all / ((prompt + read) as f64 / rate_alone);
    println!(
        "{} names of {tokens} tokens behind one image: {all:.2} s; {computed} tokens computed, {} at least; {over:.2} \
         times the least work at the rate of a prompt that is scored alone",
        names.len(),
        begins.len(),
    );
    println!("{}", json!({"name": "names", "seconds": all, "computed": computed, "least": begins.len(), "over": over}));
}

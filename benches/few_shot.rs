//! Classification as an evaluation asks for it: 1000 images behind the same 8 shown ones, five names to choose from,
//! on the model in the box. Each way gives up one thing that the engine does: all of it; without running prompts side
//! by side; without finding again what was computed; without a trie, each name weighed as a prompt of its own. A round
//! of each takes its turn; medians are printed, and how often the first is as fast. All must choose the same names.

use std::time::Instant;

use flamant::demo::{Drawing, Episode, Random, Sheet};
use flamant::image::Image;
use flamant::{Engine, EventKind, Limits, Options, Prompt, Request};

const QUERIES: usize = 1000;
const WAYS: usize = 5;
const SHOTS: usize = 8;
const ROUNDS: usize = 5;

/// A way to ask.
struct Way {
    name: &'static str,
    sequences: usize,
    prefix_caching: bool,
    trie: bool,
    /// What takes long is timed for fewer, and the others reckoned to take as long.
    queries: usize,
}

const WAYS_TO_ASK: [Way; 4] = [
    Way { name: "side by side", sequences: 64, prefix_caching: true, trie: true, queries: QUERIES },
    Way { name: "one prompt at a time", sequences: 1, prefix_caching: true, trie: true, queries: QUERIES },
    Way { name: "and nothing found again", sequences: 1, prefix_caching: false, trie: true, queries: 100 },
    Way { name: "and each name a prompt", sequences: 1, prefix_caching: false, trie: false, queries: 20 },
];

fn main() {
    let sheets = Sheet::all().expect("the program has them");
    let mut seconds = WAYS_TO_ASK.map(|_| Vec::new());
    for round in 0..ROUNDS {
        // Other shots each round, so that nothing is found that an earlier round left.
        let episode = Episode::draw(&mut Random::new(round as u64), &sheets[round % 5], WAYS, SHOTS);
        let mut chosen: Vec<Vec<usize>> = Vec::new();
        for (way, seconds) in WAYS_TO_ASK.iter().zip(&mut seconds) {
            let limits = Limits::default().max_sequences(way.sequences).prefix_caching(way.prefix_caching);
            let limits = limits.max_batched_images(Some(16)).max_batched_tokens(Some(1024));
            let mut engine = Engine::demo(&Options::default().limits(limits)).expect("it is there");
            let queries = queries(&sheets, &episode, way.queries);
            let begun = Instant::now();
            chosen.push(match way.trie {
                true => ranked(&mut engine, queries, way.sequences),
                false => scored(&mut engine, queries),
            });
            seconds.push(begun.elapsed().as_secs_f64() * QUERIES as f64 / way.queries as f64);
        }
        assert!(chosen.iter().all(|names| *names == chosen[0][..names.len()]), "the same names");
    }
    let medians = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[ROUNDS / 2]
    });
    for (way, median) in WAYS_TO_ASK.iter().zip(medians) {
        let times = median / medians[0];
        println!("{:24} {:7.1} queries a second, {times:5.1} times as long", way.name, QUERIES as f64 / median);
    }
}

/// A prompt, and the names to choose from.
type Query = (Prompt, Vec<String>);

/// The drawings of all sheets in turn, each behind the shots of the episode.
fn queries(sheets: &[Sheet], episode: &Episode, count: usize) -> Vec<Query> {
    let all = sheets.iter().flat_map(|sheet| {
        (0..sheet.rows * sheet.columns).map(move |place| {
            let drawing = Drawing::new(place / sheet.columns, place % sheet.columns);
            (sheet, drawing)
        })
    });
    let names: Vec<String> = episode.names.iter().map(|name| format!("{name}.")).collect();
    let query = |(sheet, drawing): (&Sheet, Drawing)| {
        let mut prompt = Prompt::new();
        for (shown, way) in &episode.support {
            prompt.image(image(episode.sheet, *shown)).expect("few").text(names[*way].clone()).expect("few");
        }
        prompt.image(image(sheet, drawing)).expect("few");
        (prompt, names.clone())
    };
    all.take(count).map(query).collect()
}

fn image(sheet: &Sheet, drawing: Drawing) -> Image {
    let pixels = sheet.levels(drawing).into_iter().flat_map(|level| [level; 3]).collect();
    Image::from_rgb(sheet.tile as u32, sheet.tile as u32, pixels).expect("a drawing has as many pixels")
}

/// The likeliest name of each query; as many more wait as run, so that a step is never short of work, but where one
/// runs at a time.
fn ranked(engine: &mut Engine, queries: Vec<Query>, sequences: usize) -> Vec<usize> {
    let open_most = if sequences == 1 { 1 } else { 2 * sequences };
    let (mut ids, mut chosen) = (Vec::new(), vec![0; queries.len()]);
    let mut queries = queries.into_iter();
    let mut done = 0;
    while done < chosen.len() {
        while ids.len() < done + open_most
            && let Some((prompt, names)) = queries.next()
        {
            ids.push(engine.submit(Request::classify(prompt, names)).expect("the request is right"));
        }
        for event in engine.step() {
            let EventKind::Classified(classification) = event.kind else { panic!("{event:?}") };
            let place = ids.binary_search(&event.id).expect("it was submitted");
            chosen[place] = best(classification.choices.iter().map(|choice| choice.sum));
            done += 1;
        }
    }
    chosen
}

/// The same, one prompt for each name.
fn scored(engine: &mut Engine, queries: Vec<Query>) -> Vec<usize> {
    let mut score = |prompt: &Prompt, name: &str| {
        let mut prompt = prompt.clone();
        prompt.text(name).expect("few");
        engine.submit(Request::score(prompt)).expect("the request is right");
        loop {
            if let Some(event) = engine.step().into_iter().next() {
                let EventKind::Scored(score) = event.kind else { panic!("{event:?}") };
                // A letter is a token.
                let of_name = &score.logprobs[score.logprobs.len() - name.len()..];
                return of_name.iter().flatten().sum::<f64>();
            }
        }
    };
    queries.iter().map(|(prompt, names)| best(names.iter().map(|name| score(prompt, name)))).collect()
}

/// The place of the largest.
fn best(likelihoods: impl Iterator<Item = f64>) -> usize {
    let best = likelihoods.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    best.expect("there are names").0
}

//! Classification as an evaluation asks for it: 1000 pictures behind the same 8 shown ones, five names to choose from,
//! on the model in the box. Together, as the engine runs them; one prompt at a time, with what was computed before
//! found again; and one prompt at a time by itself. A round of each takes its turn; the medians and their ratios are
//! printed. All three must choose the same names.

use std::time::Instant;

use flamant::demo::{Drawing, Episode, Random, Sheet};
use flamant::image::Picture;
use flamant::{Engine, EventKind, Prompt, Request};

const QUERIES: usize = 1000;
/// By itself, fewer prompts are timed, and the others reckoned to take as long.
const QUERIES_ALONE: usize = 100;
const WAYS: usize = 5;
const SHOTS: usize = 8;
const ROUNDS: usize = 5;

/// A way to ask.
struct Way {
    name: &'static str,
    sequences: usize,
    sharing: bool,
    queries: usize,
}

const WAYS_TO_ASK: [Way; 3] = [
    Way { name: "together", sequences: 64, sharing: true, queries: QUERIES },
    Way { name: "one at a time, what is known found again", sequences: 1, sharing: true, queries: QUERIES },
    Way { name: "one at a time, by itself", sequences: 1, sharing: false, queries: QUERIES_ALONE },
];

fn main() {
    let sheets = Sheet::all().expect("the program has them");
    let mut seconds = WAYS_TO_ASK.map(|_| Vec::new());
    for round in 0..ROUNDS {
        // Other shots each round, so that nothing is found that an earlier round left.
        let episode = Episode::draw(&mut Random::new(round as u64), &sheets[round % 5], WAYS, SHOTS);
        let mut chosen: Vec<Vec<String>> = Vec::new();
        for (way, seconds) in WAYS_TO_ASK.iter().zip(&mut seconds) {
            let mut engine =
                Engine::builder().sequences(way.sequences).sharing(way.sharing).demo().expect("it is there");
            let requests = requests(&sheets, &episode, way.queries);
            let begun = Instant::now();
            chosen.push(ask(&mut engine, requests, way.sequences));
            seconds.push(begun.elapsed().as_secs_f64() * QUERIES as f64 / way.queries as f64);
        }
        assert!(chosen[1] == chosen[0] && chosen[2] == chosen[0][..QUERIES_ALONE], "the same names");
    }
    let medians = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[ROUNDS / 2]
    });
    for (way, median) in WAYS_TO_ASK.iter().zip(medians) {
        let rate = QUERIES as f64 / median;
        println!(
            "{}: {median:.3} s for {QUERIES}, {rate:.0} a second, {:.1} times together's",
            way.name,
            median / medians[0]
        );
    }
}

/// The drawings of all sheets in turn, each behind the shots of the episode.
fn requests(sheets: &[Sheet], episode: &Episode, count: usize) -> Vec<Request> {
    let all = sheets.iter().flat_map(|sheet| {
        (0..sheet.rows * sheet.columns).map(move |place| {
            let drawing = Drawing { symbol: place / sheet.columns, column: place % sheet.columns };
            (sheet, drawing)
        })
    });
    let names: Vec<String> = episode.names.iter().map(|name| format!("{name}.")).collect();
    let request = |(sheet, drawing): (&Sheet, Drawing)| {
        let mut prompt = Prompt::new();
        for (shown, way) in &episode.shown {
            prompt.image(picture(episode.sheet, *shown)).expect("few").text(names[*way].clone()).expect("few");
        }
        prompt.image(picture(sheet, drawing)).expect("few");
        Request::classify(prompt, names.clone())
    };
    all.take(count).map(request).collect()
}

fn picture(sheet: &Sheet, drawing: Drawing) -> Picture {
    let pixels = sheet.levels(drawing).into_iter().flat_map(|level| [level; 3]).collect();
    Picture::from_rgb(sheet.tile as u32, sheet.tile as u32, pixels).expect("a drawing has as many pixels")
}

/// The likeliest name of each request; at most `open` at a time, so that one at a time is that.
fn ask(engine: &mut Engine, requests: Vec<Request>, open: usize) -> Vec<String> {
    let (mut ids, mut chosen) = (Vec::new(), vec![String::new(); requests.len()]);
    let mut requests = requests.into_iter();
    let mut done = 0;
    while done < chosen.len() {
        // As many wait as run, so that a step is never short of work.
        while open == 1 && ids.len() == done || open > 1 && ids.len() < done + 2 * open {
            let Some(request) = requests.next() else { break };
            ids.push(engine.submit(request).expect("the request is right"));
        }
        for event in engine.step() {
            let EventKind::Classified(classification) = event.kind else { panic!("{event:?}") };
            let best = classification.choices.iter().max_by(|a, b| a.mean.total_cmp(&b.mean)).expect("five");
            let place = ids.iter().position(|id| *id == event.id).expect("it was submitted");
            chosen[place] = best.text.clone();
            done += 1;
        }
    }
    chosen
}

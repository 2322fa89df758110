//! The model in the box: the reference's numbers on its own prompts, what it was never trained on, and what it can do.

use flamant::demo::{ALPHABETS, Drawing, Episode, Random, Sheet};
use flamant::{Flamingo, Options};
use serde_json::Value;

fn json(path: &str) -> Value {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn open() -> Flamingo {
    Flamingo::demo(&Options::default()).unwrap()
}

/// Prompts that transformers scored and answered in float32 (`tools/demo_model/package.py`).
#[test]
fn episodes_score_and_end_as_in_transformers() {
    let mut flamingo = open();
    let sheets = Sheet::all().unwrap();
    let fixture = json("tests/data/demo/episodes.json");
    for case in fixture["episodes"].as_array().unwrap() {
        let images = case["pictures"].as_array().unwrap();
        let place = |entry: &Value, at: usize| entry[at].as_u64().unwrap() as usize;
        let drawing = |entry: &Value| Drawing::new(place(entry, 1), place(entry, 2));
        let names: Vec<String> =
            case["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        let (query, support) = images.split_last().unwrap();
        let sheet = sheets.iter().find(|sheet| sheet.name == query[0].as_str().unwrap()).unwrap();
        let support = support.iter().map(drawing).zip(0..).collect();
        let episode = Episode::new(sheet, names, support, (drawing(query), 0));
        let score = flamingo.score(&episode.prompt().unwrap()).unwrap();
        let ids: Vec<u64> = case["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert_eq!(score.ids.iter().map(|&id| u64::from(id)).collect::<Vec<_>>(), ids);
        for (got, want) in score.logprobs[1..].iter().zip(case["token_log_probs"].as_array().unwrap()) {
            let error = (got.unwrap() - want.as_f64().unwrap()).abs();
            assert!(error < 2e-4, "log-probability off by {error}");
        }
        let answer = episode.ask(&mut flamingo).unwrap();
        let want = case["answer"].as_str().unwrap();
        assert!(want.starts_with(&answer) && answer.len() >= 3.min(want.len()), "{answer} is not {want}");
    }
}

/// `training.json` lists every code point that was ever drawn for training, by script.
#[test]
fn tested_alphabets_were_never_drawn_for_training() {
    let training = json("models/demo/training.json");
    let number = |value: &Value| u32::from_str_radix(value.as_str().unwrap().strip_prefix("U+").unwrap(), 16).unwrap();
    let mut trained: Vec<(u32, u32)> = Vec::new();
    for (script, entry) in training["scripts"].as_object().unwrap() {
        for held_out in ["Armenian", "Georgian", "Tifinagh", "Nko", "Canadian_Aboriginal"] {
            assert_ne!(script, held_out);
        }
        for range in entry["ranges"].as_array().unwrap() {
            trained.push((number(&range[0]), number(&range[1])));
        }
    }
    assert!(trained.len() > 100, "the list of trained ranges is there");
    let overlaps = |first: u32, last: u32| trained.iter().find(|&&(from, to)| first <= to && from <= last);
    for sheet in Sheet::all().unwrap() {
        assert_eq!(sheet.code_points.is_empty(), !ALPHABETS.contains(&sheet.name.as_str()));
        for &code_point in &sheet.code_points {
            assert_eq!(overlaps(code_point, code_point), None, "U+{code_point:04X} of {} was drawn", sheet.name);
        }
    }
    // Nor anything else of the tested scripts' blocks (Unicode 15, Blocks.txt).
    for (first, last) in [
        (0x0530, 0x058f),
        (0x10a0, 0x10ff),
        (0x1c90, 0x1cbf),
        (0x2d00, 0x2d2f),
        (0x2d30, 0x2d7f),
        (0x07c0, 0x07ff),
        (0x1400, 0x167f),
        (0x18b0, 0x18ff),
    ] {
        assert_eq!(overlaps(first, last), None, "U+{first:04X} to U+{last:04X}");
    }
}

/// Right answers in per cent, over the five alphabets kept out of training.
fn percent(prompts: usize, mut right: impl FnMut(&mut Random, &Sheet) -> Option<bool>) -> f64 {
    let sheets = Sheet::all().unwrap();
    let mut random = Random::new(11);
    let held_out = sheets.iter().filter(|sheet| ALPHABETS.contains(&sheet.name.as_str()));
    let all: Vec<bool> =
        held_out.flat_map(|sheet| (0..prompts).filter_map(|_| right(&mut random, sheet)).collect::<Vec<_>>()).collect();
    100.0 * all.iter().filter(|&&right| right).count() as f64 / all.len() as f64
}

/// The figures stand in the README, measured over more prompts; here they may be off by what so few prompts allow.
#[test]
fn names_are_learned_from_the_prompt() {
    let mut flamingo = open();
    for (ways, least) in [(2, 96.0), (5, 88.0)] {
        let found = percent(40, |random, sheet| {
            let episode = Episode::draw(random, sheet, ways, 5);
            Some(episode.ask(&mut flamingo).unwrap() == episode.answer())
        });
        assert!(found >= least, "{ways} ways: {found} % of names are right");
    }
}

#[test]
fn more_images_shown_are_more_names_right() {
    let mut flamingo = open();
    let mut last = 0.0;
    for support in [0, 2, 4, 8] {
        let found = percent(30, |random, sheet| {
            let episode = Episode::draw(random, sheet, 5, support);
            Some(episode.ranked(&mut flamingo).unwrap() == episode.query.1)
        });
        assert!(found > last, "{support} images: {found} %, after {last} %");
        last = found;
    }
}

#[test]
fn unrelated_images_leave_chance_and_swapped_names_swap_the_answer() {
    let mut flamingo = open();
    let chance = percent(40, |random, sheet| {
        let episode = Episode::draw(random, sheet, 5, 5).unrelated(random);
        Some(episode.ranked(&mut flamingo).unwrap() == episode.query.1)
    });
    assert!(chance < 32.0, "unrelated images: {chance} % right where 20 % is chance");
    let followed = percent(40, |random, sheet| {
        let episode = Episode::draw(random, sheet, 5, 5);
        let right = episode.ask(&mut flamingo).unwrap() == episode.answer();
        let swapped = episode.swapped(random);
        right.then(|| swapped.ask(&mut flamingo).unwrap() == swapped.answer())
    });
    assert!(followed >= 93.0, "swapped names: the answer follows in {followed} %");
}

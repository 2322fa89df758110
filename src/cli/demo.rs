//! `flamant demo`: the model in the program learns names of symbols it has never seen, and its accuracy is measured.

mod page;
mod terminal;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use crate::demo::{ALPHABETS, Episode, Random, Sheet};
use crate::{Error, Flamingo, Limits, files};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::input::DeviceArguments;
use super::{Outcome, Run, output, print_json, progress};

/// Show the model in the program: it learns made-up names of symbols from a prompt
#[derive(Args)]
#[command(
    next_help_heading = "Prompts",
    after_help = "\
Examples:
  flamant demo
  flamant demo --alphabet nko --ways 8 --prompts 0 --html page.html"
)]
pub struct Demo {
    /// Alphabet of the first prompt: armenian, georgian, tifinagh, nko, syllabics or procedural
    #[arg(long, default_value = "tifinagh", value_parser = PossibleValuesParser::new(names()), hide_possible_values = true)]
    alphabet: String,
    /// Symbols in play in the first prompt, 2 to 8
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=8))]
    ways: u64,
    /// Seed of all random choices
    #[arg(long, default_value_t = 3)]
    seed: u64,
    /// Prompts behind each figure of the table; 0 for none
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=100_000))]
    prompts: u64,
    #[command(flatten)]
    device: DeviceArguments,
    /// Write images, prompt, answer and tables as one HTML page
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Print one line of JSON instead of images and tables
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// The names of the sheets.
fn names() -> impl Iterator<Item = &'static str> {
    ALPHABETS.into_iter().chain(["procedural"])
}

/// The first prompt and what the model made of it.
struct Shown<'a> {
    episode: Episode<'a>,
    answer: String,
    odds: Vec<f64>,
    /// From opening the model to its answer.
    seconds: f64,
}

impl Run for Demo {
    fn check(&self) -> Result<(), Error> {
        self.device.check(Limits::default())
    }

    fn run(self) -> Outcome {
        let begun = Instant::now();
        let mut flamingo = self.device.open(Flamingo::demo)?;
        let sheets = Sheet::all()?;
        let sheet = sheets.iter().find(|sheet| sheet.name == self.alphabet).expect("the parser knows their names");
        let ways = self.ways as usize;
        let episode = Episode::draw(&mut Random::new(self.seed), sheet, ways, ways);
        let answer = episode.ask(&mut flamingo)?;
        let seconds = begun.elapsed().as_secs_f64();
        let odds = episode.odds(&mut flamingo)?;
        let shown = Shown { episode, answer, odds, seconds };
        if !self.json {
            terminal::show_episode(&shown, &flamingo)?;
        }
        let report = Report::measure(&mut flamingo, &sheets, self.seed, self.prompts as usize)?;
        if let Some(path) = &self.html {
            let page = page::render(&shown, &flamingo, &report)?;
            files::write(path, |file| file.write_all(page.as_bytes()))?;
        }
        if self.json {
            return print_json(&json!({
                "alphabet": shown.episode.sheet.name, "names": shown.episode.names, "expected": shown.episode.answer(),
                "answer": shown.answer, "odds": shown.odds, "seconds": shown.seconds, "measured": report.to_json(),
            }));
        }
        terminal::show_report(&report)?;
        if let Some(path) = &self.html {
            writeln!(output()?, "\nThe page is {}", path.display())?;
        }
        Ok(())
    }
}

/// Right answers of so many.
#[derive(Clone, Copy, Default)]
struct Tally {
    right: usize,
    all: usize,
}

impl Tally {
    fn count(&mut self, right: bool) {
        self.right += usize::from(right);
        self.all += 1;
    }

    /// None of nothing.
    fn percent(self) -> Option<f64> {
        (self.all > 0).then(|| 100.0 * self.right as f64 / self.all as f64)
    }
}

/// Mean over tallies: each alphabet counts the same, but for those of nothing.
fn mean(tallies: &[Tally]) -> Option<f64> {
    let percents: Vec<f64> = tallies.iter().filter_map(|tally| tally.percent()).collect();
    (!percents.is_empty()).then(|| percents.iter().sum::<f64>() / percents.len() as f64)
}

/// A figure of a table.
fn figure(percent: Option<f64>) -> String {
    percent.map_or("–".to_owned(), |percent| format!("{percent:.1}"))
}

/// Ways of the accuracy table; five images are shown, or as many as there are ways.
const WAYS: [usize; 4] = [2, 3, 5, 8];
const SHOWN: usize = 5;
/// Images shown in the table of shots, at [`SHOT_WAYS`] ways.
const SHOTS: [usize; 6] = [0, 1, 2, 4, 8, 16];
const SHOT_WAYS: usize = 5;
/// Ways of the controls.
const CONTROL_WAYS: [usize; 2] = [2, 5];

/// Everything the demo measures.
struct Report {
    /// Title of each sheet, the held-out alphabets first, and its accuracy for each of [`WAYS`].
    by_ways: Vec<(String, [Tally; WAYS.len()])>,
    /// For each of [`SHOTS`], each alphabet: names spelt rightly.
    spelt: [Vec<Tally>; SHOTS.len()],
    /// For each of [`SHOTS`], each alphabet: names ranked first of those in play.
    ranked: [Vec<Tally>; SHOTS.len()],
    /// For each of [`CONTROL_WAYS`], each alphabet: the name ranked first, images unrelated.
    unrelated: [Vec<Tally>; CONTROL_WAYS.len()],
    /// For each of [`CONTROL_WAYS`], each alphabet: of the prompts answered rightly, those whose answer followed a
    /// swap.
    swapped: [Vec<Tally>; CONTROL_WAYS.len()],
    prompts: usize,
    seconds: f64,
}

impl Report {
    fn measure(flamingo: &mut Flamingo, sheets: &[Sheet], seed: u64, prompts: usize) -> Result<Report, Error> {
        let begun = Instant::now();
        let held_out: Vec<&Sheet> =
            ALPHABETS.iter().filter_map(|name| sheets.iter().find(|sheet| sheet.name == *name)).collect();
        let others = sheets.iter().filter(|sheet| !ALPHABETS.contains(&sheet.name.as_str()));
        let cells = sheets.len() * WAYS.len() + held_out.len() * (2 * SHOTS.len() + 3 * CONTROL_WAYS.len());
        let bar = progress((cells * prompts) as u64, "measuring {bar:40} {pos}/{len} prompts, {eta} left");
        let mut random = Random::new(seed);
        let mut tally = |each: &mut dyn FnMut(&mut Random, &mut Tally) -> Result<(), Error>, cost: u64| {
            let mut tally = Tally::default();
            for _ in 0..prompts {
                each(&mut random, &mut tally)?;
                bar.inc(cost);
            }
            Ok::<Tally, Error>(tally)
        };

        let mut by_ways = Vec::new();
        for sheet in held_out.iter().copied().chain(others) {
            let mut row = [Tally::default(); WAYS.len()];
            for (cell, ways) in row.iter_mut().zip(WAYS) {
                *cell = tally(
                    &mut |random, tally| {
                        let episode = Episode::draw(random, sheet, ways, ways.max(SHOWN));
                        tally.count(episode.ask(flamingo)? == episode.answer());
                        Ok(())
                    },
                    1,
                )?;
            }
            by_ways.push((sheet.title.clone(), row));
        }
        let (mut spelt, mut ranked) = (std::array::from_fn(|_| Vec::new()), std::array::from_fn(|_| Vec::new()));
        for (at, shots) in SHOTS.into_iter().enumerate() {
            for sheet in &held_out {
                let mut ranked_here = Tally::default();
                spelt[at].push(tally(
                    &mut |random, tally| {
                        let episode = Episode::draw(random, sheet, SHOT_WAYS, shots);
                        tally.count(episode.ask(flamingo)? == episode.answer());
                        ranked_here.count(episode.ranked(flamingo)? == episode.query.1);
                        Ok(())
                    },
                    2,
                )?);
                ranked[at].push(ranked_here);
            }
        }
        let mut unrelated = std::array::from_fn(|_| Vec::new());
        let mut swapped = std::array::from_fn(|_| Vec::new());
        for (at, ways) in CONTROL_WAYS.into_iter().enumerate() {
            for sheet in &held_out {
                unrelated[at].push(tally(
                    &mut |random, tally| {
                        let episode = Episode::draw(random, sheet, ways, SHOWN).unrelated(random);
                        tally.count(episode.ranked(flamingo)? == episode.query.1);
                        Ok(())
                    },
                    1,
                )?);
                swapped[at].push(tally(
                    &mut |random, tally| {
                        let episode = Episode::draw(random, sheet, ways, SHOWN);
                        if episode.ask(flamingo)? == episode.answer() {
                            let swapped = episode.swapped(random);
                            tally.count(swapped.ask(flamingo)? == swapped.answer());
                        }
                        Ok(())
                    },
                    2,
                )?);
            }
        }
        bar.finish_and_clear();
        Ok(Report { by_ways, spelt, ranked, unrelated, swapped, prompts, seconds: begun.elapsed().as_secs_f64() })
    }

    /// Accuracy for each of [`WAYS`], mean of the held-out alphabets.
    fn held_out(&self) -> [Option<f64>; WAYS.len()] {
        std::array::from_fn(|at| {
            let tallies: Vec<Tally> = self.by_ways.iter().take(ALPHABETS.len()).map(|(_, row)| row[at]).collect();
            mean(&tallies)
        })
    }

    /// Nothing, if no prompt was asked.
    fn to_json(&self) -> serde_json::Value {
        if self.prompts == 0 {
            return serde_json::Value::Null;
        }
        let by_ways: Vec<_> = self
            .by_ways
            .iter()
            .map(|(title, row)| json!({"alphabet": title, "percent": row.map(Tally::percent)}))
            .collect();
        let shots = SHOTS.iter().zip(self.spelt.iter().zip(&self.ranked));
        let controls = CONTROL_WAYS.iter().zip(self.unrelated.iter().zip(&self.swapped));
        json!({
            "prompts": self.prompts,
            "seconds": self.seconds,
            "ways": WAYS,
            "by_ways": by_ways,
            "held_out_mean": self.held_out(),
            "by_shots": shots.map(|(shown, (spelt, ranked))| {
                json!({"shown": shown, "spelt_percent": mean(spelt), "ranked_percent": mean(ranked)})
            }).collect::<Vec<_>>(),
            "controls": controls.map(|(ways, (unrelated, swapped))| {
                json!({"ways": ways, "unrelated_percent": mean(unrelated), "swap_followed_percent": mean(swapped)})
            }).collect::<Vec<_>>(),
        })
    }
}

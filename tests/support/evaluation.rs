//! `flamant eval` as a test runs it: in a folder of its own, with images and sets made there. And its prompts once
//! more, from the words of each form and what the records say was shown.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flamant::image::Image;
use flamant::video::Video;
use flamant::{Flamingo, Generation, Prompt};
use png::ColorType::{GrayscaleAlpha, Rgb, Rgba};
use serde_json::Value;

/// A folder in which the program runs; what is evaluated lies in it, answers go to `out`.
pub struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    pub fn new() -> Folder {
        Folder { root: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Draws an image that only its name decides.
    pub fn image(&self, name: &str) {
        let number = name.bytes().fold(7, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 9973;
        let (width, height) = (20 + number % 7, 16 + number % 5);
        let level = |at: u32| ((at / 3 % width * (number * 37 % 29 + 1) + at / width * (number * 11 % 17)) % 256) as u8;
        // With alpha too, which families see each in their own way.
        let (color, channels) = [(Rgb, 3), (Rgba, 4), (GrayscaleAlpha, 2)][number as usize % 3];
        let pixels: Vec<u8> = (0..width * height * channels).map(level).collect();
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        self.write(name, bytes);
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.args(["eval", "--threads", "1", "--output", "out"]).args(arguments).current_dir(self.root.path());
        command.env_remove("FLAMANT_THREADS").env_remove("FLAMANT_DEVICE").stdin(Stdio::null());
        command
    }

    /// Runs to the end; what it says on standard error.
    pub fn run(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{arguments:?}: {told}");
        let table = String::from_utf8(stdout).unwrap();
        assert!(table.ends_with("The page is out/index.html\n"), "{table}");
        told
    }

    /// Must be refused; the one line that says why.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), told.lines().count()), (Some(1), 1), "{arguments:?}: {told}");
        assert_eq!(stdout, b"");
        told
    }

    pub fn results(&self) -> Value {
        assert!(self.read("out/index.html").starts_with("<!DOCTYPE html>"));
        serde_json::from_str(&self.read("out/results.json")).unwrap()
    }

    /// What came of each question, in order; one that is answered is not asked again.
    pub fn records(&self) -> Vec<Record> {
        let text = self.read("out/answers.jsonl");
        assert!(text.ends_with('\n'), "whole lines");
        let mut records: BTreeMap<(String, usize, String), Record> = BTreeMap::new();
        for line in text.lines().skip(1) {
            let record: Record = serde_json::from_str(line).unwrap();
            let question = (record.series.clone(), record.shots, record.id.clone());
            let before = records.insert(question, record);
            assert!(before.is_none_or(|before| before.error.is_some()), "answered before: {line}");
        }
        records.into_values().collect()
    }
}

/// A line of `answers.jsonl`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub struct Record {
    pub series: String,
    pub shots: usize,
    pub id: String,
    pub support: Vec<String>,
    pub text: Option<String>,
    pub choice: Option<Choice>,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub struct Choice {
    pub name: String,
    pub last: f64,
    pub odds: Vec<(String, f64)>,
}

impl Record {
    pub fn question(&self) -> (&str, usize, &str) {
        (&self.series, self.shots, &self.id)
    }
}

/// An example as the test made it.
#[derive(Debug, Clone, Default)]
pub struct Item {
    pub id: String,
    /// An image, or the frames of a video.
    pub images: Vec<PathBuf>,
    pub question: String,
    pub answers: Vec<String>,
    pub choices: Vec<String>,
    pub group: String,
}

impl Item {
    /// The answer that is told when it is shown.
    pub fn told(&self) -> &str {
        &self.answers[0]
    }
}

/// The words before and after the image of an example.
type Around = fn(&Item) -> [String; 2];

/// The words of a form, and what a request asks for besides.
pub struct Words {
    pub begin: &'static str,
    pub support: Around,
    pub queries: Around,
    pub stop: &'static [&'static str],
    pub max_new_tokens: usize,
}

impl Words {
    /// The prompt of some examples and the one that is asked, whose image may be another's.
    pub fn prompt(&self, support: &[&Item], with_images: bool, queries: &Item, seen: &Item) -> Prompt {
        let (mut prompt, mut text) = (Prompt::new(), self.begin.to_owned());
        let mut add = |[before, after]: [String; 2], seen: Option<&Item>| {
            text.push_str(&before);
            if let Some(Item { images, .. }) = seen {
                if !text.is_empty() {
                    prompt.text(std::mem::take(&mut text)).unwrap();
                }
                match &images[..] {
                    [image] => prompt.image_file(image).unwrap(),
                    frames => prompt.video(Video::new(frames.iter().map(read).collect()).unwrap()).unwrap(),
                };
            }
            text.push_str(&after);
        };
        for item in support {
            add((self.support)(item), with_images.then_some(*item));
        }
        add((self.queries)(queries), Some(seen));
        prompt.text(text).unwrap();
        prompt
    }
}

fn read(path: &PathBuf) -> Image {
    let mut prompt = Prompt::new();
    prompt.image_file(path).unwrap();
    prompt.media().next().unwrap()[0].clone()
}

/// Holds every record without an error to what the model says alone to the prompt of the examples that it says were
/// shown. No example is shown twice, or shows the asked image.
pub fn check(records: &[Record], queries: &[Item], support: &[Item], words: &Words, flamingo: &mut Flamingo) {
    let by_id = |items: &'_ [Item]| -> HashMap<String, Item> {
        items.iter().map(|item| (item.id.clone(), item.clone())).collect()
    };
    let (queries, support) = (by_id(queries), by_id(support));
    let mut answers = Vec::new();
    for record in records.iter().filter(|record| record.error.is_none()) {
        let item = &queries[&record.id];
        let examples: Vec<&Item> = record.support.iter().map(|id| &support[id]).collect();
        assert_eq!(examples.len(), if record.shots == 0 { 2 } else { record.shots }, "{record:?}");
        assert!(examples.iter().all(|example| example.images != item.images), "{record:?}");
        assert!(
            record.support.iter().enumerate().all(|(place, id)| !record.support[..place].contains(id)),
            "{record:?}"
        );
        let prompt = words.prompt(&examples, record.shots > 0, item, item);
        if item.choices.is_empty() {
            let stop = words.stop.iter().map(|stop| (*stop).to_owned()).collect();
            let max_new_tokens = words.max_new_tokens;
            let settings =
                Generation::default().max_new_tokens(max_new_tokens).num_beams(3).length_penalty(0.0).stop(stop);
            let answer = flamingo.generate(&prompt, &settings, &mut |_| ()).unwrap();
            assert_eq!(record.text.as_ref(), Some(&answer.text), "{record:?}");
            answers.push(answer.text);
        } else {
            let classification = flamingo.classify(&prompt, &item.choices).unwrap();
            let means: Vec<f64> = classification.choices.iter().map(|choice| choice.mean).collect();
            check_choice(record, &item.choices, &means);
            answers.push(format!("{means:?}"));
        }
    }
    answers.sort();
    answers.dedup();
    assert!(answers.len() > 1, "with one answer to everything nothing is tested: {answers:?}");
}

/// Holds a choice to log-likelihoods of the names.
pub fn check_choice(record: &Record, names: &[String], means: &[f64]) {
    let choice = record.choice.as_ref().unwrap_or_else(|| panic!("{record:?}"));
    let total: f64 = means.iter().map(|mean| mean.exp()).sum();
    let mut odds: Vec<(&String, f64)> = names.iter().zip(means.iter().map(|mean| mean.exp() / total)).collect();
    let best = odds.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    let last = odds[odds.len() - 1].1;
    // As OpenFlamingo has it: the best share if the last name is the best, else what it lacks to 1.
    let last = if last == best { best } else { 1.0 - best };
    odds.sort_by(|a, b| b.1.total_cmp(&a.1));
    assert_eq!(&choice.name, odds[0].0, "{record:?}");
    assert!((choice.last - last).abs() < 1e-6, "{record:?}: {last}");
    assert_eq!(choice.odds.len(), odds.len().min(5));
    for ((name, share), (expected, of)) in choice.odds.iter().zip(odds) {
        assert!(name == expected && (share - of).abs() < 1e-6, "{record:?}: {expected} {of}");
    }
}

/// The point of a series at a number of shots.
pub fn point<'a>(results: &'a Value, series: &str, shots: usize) -> &'a Value {
    let of = |value: &'a Value, key: &str| value[key].as_array().unwrap().iter();
    let mut found = of(results, "series").filter(|one| one["label"] == series).flat_map(|one| of(one, "points"));
    found.find(|point| point["shots"] == shots).unwrap_or_else(|| panic!("{series}, {shots} shots: {results}"))
}

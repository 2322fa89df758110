//! `answers.jsonl`: what the evaluation is, in the first line, then an answered example a line, in the order in which
//! they are done. From it an interrupted evaluation goes on; with the data, it is all that results are made of.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::data::{Dataset, Example, Medium};
use super::plan::{Ask, Plan};
use super::template::Template;
use crate::engine::Engine;
use crate::engine::identity::{self, Identity, short};
use crate::error::Result;
use crate::files::Lines;
use crate::parse;

/// Longest line of an answer: what a model writes within its context, and names of examples.
const LINE_BYTES_MAX: usize = 16 << 20;

/// What must be the same for an evaluation to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// What decides the answers.
    pub evaluation: Identity,
    /// The day it was begun.
    pub date: String,
}

/// A line: what came of a question.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    /// The label of the series.
    series: Cow<'a, str>,
    shots: usize,
    /// The example asked.
    id: Cow<'a, str>,
    /// The support examples, in order; none where there was an error before they were chosen.
    support: Vec<Cow<'a, str>>,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What came of a question.
pub struct Record {
    /// The numbers of the support examples, in order.
    pub support: Vec<usize>,
    pub outcome: Outcome,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// What the model wrote.
    Text(String),
    /// Which name it chose.
    Choice(Choice),
    /// Why there is no answer.
    Error(String),
}

/// Names, weighed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The likeliest.
    pub name: String,
    /// How likely the last name is, as for ROC-AUC.
    pub last: f64,
    /// The likeliest few with their shares.
    pub odds: Vec<(String, f64)>,
}

/// The file, and what is in it.
pub struct Records {
    lines: Lines,
    pub head: Head,
    /// Whether the file has the head: it comes with the first answer, so that what fails before binds nobody.
    begun: bool,
    found: HashMap<Ask, Record>,
}

impl Records {
    /// Opens the file of an output folder, or begins it. Errors are not answers: they are asked again.
    ///
    /// # Errors
    /// Those of [`Lines::open`]; answers of another evaluation.
    pub fn open(folder: &Path, plan: &Plan, evaluation: Identity) -> Result<Records> {
        let path = folder.join("answers.jsonl");
        let places = Places::of(plan);
        let (mut head, mut found) = (None::<Head>, HashMap::new());
        let begin = |number: u64| if number == 1 { "{\"evaluation\":" } else { "{\"series\":" };
        let lines = Lines::open(&path, "an answer of flamant eval", begin, |_, line| {
            let most = if head.is_none() { identity::LINE_BYTES_MAX } else { LINE_BYTES_MAX };
            if line.len() > most {
                return Err(format!("{} bytes", line.len()));
            }
            if head.is_none() {
                head = Some(parse::line(line)?);
                return Ok(true);
            }
            let line: Line = parse::line(line)?;
            let name = || format!("{:?} at {} shots of {}", line.id, line.shots, line.series);
            let (ask, support) = places.find(plan, &line).ok_or_else(|| format!("one of {}", name()))?;
            if matches!(line.outcome, Outcome::Error(_)) {
                return Ok(false);
            }
            match found.entry(ask) {
                Entry::Vacant(place) => {
                    place.insert(Record { support, outcome: line.outcome });
                    Ok(true)
                }
                Entry::Occupied(_) => Err(format!("a second one of {}", name())),
            }
        });
        // Of another evaluation it is not the first answer that is wrong.
        if let Some(head) = &head {
            identity::check(&path, "evaluation", &head.evaluation, &evaluation)?;
        }
        let (lines, begun) = (lines?.begin()?, head.is_some());
        let today = || jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let head = head.unwrap_or_else(|| Head { evaluation, date: today() });
        Ok(Records { lines, head, begun, found })
    }

    /// How many questions are not answered.
    pub fn left(&self, plan: &Plan) -> usize {
        plan.asks().count() - self.found.len()
    }

    /// What came of a question.
    pub fn get(&self, ask: Ask) -> Option<&Record> {
        self.found.get(&ask)
    }

    /// Whether all that was added is in the file.
    ///
    /// # Errors
    /// Those of [`Lines::finish`].
    pub fn finish(&self) -> Result<()> {
        self.lines.finish()
    }

    /// Adds what came of one.
    pub fn add(&mut self, plan: &Plan, ask: Ask, support: &[usize], outcome: Outcome) -> Result<()> {
        let examples = &plan.set(ask).support.examples;
        let line = Line {
            series: Cow::Borrowed(&plan.series[ask.series].label),
            shots: plan.shots[ask.point],
            id: Cow::Borrowed(&plan.query(ask).id),
            support: support.iter().map(|&number| Cow::Borrowed(examples[number].id.as_str())).collect(),
            outcome,
        };
        if !self.begun {
            self.lines.add(&json(&self.head))?;
            self.begun = true;
        }
        self.lines.add(&json(&line))?;
        self.found.insert(ask, Record { support: support.to_vec(), outcome: line.outcome });
        Ok(())
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("maps with texts as keys, and finite numbers")
}

/// Where a line belongs.
struct Places<'a> {
    series: HashMap<&'a str, usize>,
    /// Of each set, its queries and shown, by name.
    examples: Vec<[HashMap<&'a str, usize>; 2]>,
}

impl<'a> Places<'a> {
    fn of(plan: &'a Plan) -> Places<'a> {
        let series = plan.series.iter().enumerate().map(|(place, series)| (series.label.as_str(), place)).collect();
        let named = |set: &'a Dataset| {
            set.examples.iter().enumerate().map(|(place, example)| (example.id.as_str(), place)).collect()
        };
        let examples = plan.sets.iter().map(|set| [named(&set.queries), named(&set.support)]).collect();
        Places { series, examples }
    }

    fn find(&self, plan: &Plan, line: &Line) -> Option<(Ask, Vec<usize>)> {
        let series = *self.series.get(&*line.series)?;
        let point = plan.shots.binary_search(&line.shots).ok()?;
        let [queries, support] = &self.examples[plan.series[series].set];
        let query = *queries.get(&*line.id)?;
        let support = line.support.iter().map(|id| support.get(&**id).copied()).collect::<Option<_>>()?;
        Some((Ask { series, point, query }, support))
    }
}

/// All that decides the answers, by name.
///
/// # Errors
/// Files of the model that cannot be read.
pub fn evaluation(plan: &Plan, template: &Template, engine: &Engine) -> Result<Identity> {
    let mut evaluation = engine.identity()?;
    let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let labels: Vec<&str> = plan.series.iter().map(|series| series.label.as_str()).collect();
    let entries = [
        ("benchmark", plan.benchmark.name.to_owned()),
        ("task", format!("{:?}, {} tokens", plan.benchmark.task, plan.benchmark.max_new_tokens)),
        ("queries", digest(plan.sets.iter().map(|set| (&set.queries, (0..set.queries.examples.len()).collect())))),
        ("support", digest(plan.sets.iter().map(|set| (&set.support, set.all.numbers())))),
        ("drawn from", digest(plan.sets.iter().map(|set| (&set.support, set.drawn.numbers())))),
        ("template", short(blake3::hash(format!("{template:?}").as_bytes()))),
        ("series", labels.join("; ")),
        ("shots", list(&plan.shots)),
        ("seed", plan.seed.to_string()),
        ("orders", plan.permutations.to_string()),
        ("reference slip", plan.reference_slip.to_string()),
        ("frames of videos", format!("{} a second, {} at most", plan.frames.per_second, plan.frames.frames_max)),
    ];
    evaluation.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Ok(evaluation)
}

/// A path without the dots that say nothing.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Tells sets of examples apart: all that they say and show.
fn digest<'a>(sets: impl Iterator<Item = (&'a Dataset, Vec<usize>)>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        // With its length each text ends where it ends, whatever follows.
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    for (set, numbers) in sets {
        set.choices.iter().for_each(|choice| add(choice));
        for example in numbers.into_iter().map(|number| &set.examples[number]) {
            let Example { id, medium, question, answers, choices, group } = example;
            match medium {
                Medium::Image(path) | Medium::Video(path) => add(&plain(path).display().to_string()),
                Medium::Drawn(_) => {}
            }
            [id, question].into_iter().chain(answers).for_each(|text| add(text));
            add(&format!("{} {:?}", answers.len(), group));
            choices.iter().flat_map(|choices| choices.iter()).for_each(|choice| add(choice));
        }
    }
    short(hasher.finalize())
}

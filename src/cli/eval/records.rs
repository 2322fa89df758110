//! `answers.jsonl`: what the evaluation is, in the first line, then an answered example a line, in the order in which
//! they are done. From it an interrupted evaluation goes on; with the data, it is all that results are made of.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use flamant::eval::form::Form;
use flamant::{Engine, Error};
use serde::{Deserialize, Serialize};

use super::plan::{Ask, Plan};
use crate::cli::lines::Lines;

/// What must be the same for an evaluation to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// What decides the answers.
    pub evaluation: BTreeMap<String, String>,
    /// The day it was begun.
    pub date: String,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The label of the series.
    series: String,
    shots: usize,
    /// The example asked.
    id: String,
    /// The examples shown, in order.
    pub shown: Vec<String>,
    #[serde(flatten)]
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
    found: HashMap<Ask, Record>,
}

impl Records {
    /// Opens the file of an output folder, or begins it.
    ///
    /// # Errors
    /// Those of [`Lines::open`]; answers of another evaluation.
    pub fn open(folder: &Path, plan: &Plan, form: &Form, engine: &Engine) -> Result<Records, Error> {
        let path = folder.join("answers.jsonl");
        let places = Places::of(plan);
        let (mut head, mut found) = (None::<Head>, HashMap::new());
        let lines = Lines::open(&path, "an answer of flamant eval", "{\"", |_, line| {
            if head.is_none() {
                head = Some(serde_json::from_slice(line).map_err(|error| error.to_string())?);
                return Ok(());
            }
            let record: Record = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            if let Some(ask) = places.ask(plan, &record) {
                found.insert(ask, record);
                return Ok(());
            }
            Err(format!("one of {:?} at {} shots of {}", record.id, record.shots, record.series))
        });
        let evaluation = evaluation(plan, form, engine);
        // Of another evaluation it is not the first answer that is wrong.
        if let Some(head) = &head {
            for (key, wanted) in &evaluation {
                let found = head.evaluation.get(key).map_or("nothing", String::as_str);
                if found != wanted {
                    let key = format!("{key} of its evaluation");
                    return Err(Error::invalid(&path, key, wanted, format!("{found} (choose another --output)")));
                }
            }
        }
        let mut lines = lines?.begin()?;
        let head = match head {
            Some(head) => head,
            None => {
                let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
                let head = Head { evaluation, date };
                lines.add(&json(&head))?;
                head
            }
        };
        Ok(Records { lines, head, found })
    }

    /// How many questions are not answered.
    pub fn left(&self, plan: &Plan) -> usize {
        plan.asks().count() - self.found.len()
    }

    /// What came of a question.
    pub fn get(&self, ask: Ask) -> Option<&Record> {
        self.found.get(&ask)
    }

    /// Adds what came of one.
    pub fn add(&mut self, plan: &Plan, ask: Ask, shown: &[usize], outcome: Outcome) -> Result<(), Error> {
        let examples = &plan.set(ask).shown.examples;
        let record = Record {
            series: plan.series[ask.series].label.clone(),
            shots: plan.shots[ask.point],
            id: plan.asked(ask).id.clone(),
            shown: shown.iter().map(|&number| examples[number].id.clone()).collect(),
            outcome,
        };
        self.lines.add(&json(&record))?;
        self.found.insert(ask, record);
        Ok(())
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("maps with texts as keys, and finite numbers")
}

/// Where a record belongs.
struct Places<'a> {
    series: HashMap<&'a str, usize>,
    /// Of each set, its examples by name.
    queries: Vec<HashMap<&'a str, usize>>,
}

impl<'a> Places<'a> {
    fn of(plan: &'a Plan) -> Places<'a> {
        let series = plan.series.iter().enumerate().map(|(place, series)| (series.label.as_str(), place)).collect();
        let queries = plan.sets.iter().map(|set| {
            set.asked.examples.iter().enumerate().map(|(place, example)| (example.id.as_str(), place)).collect()
        });
        Places { series, queries: queries.collect() }
    }

    fn ask(&self, plan: &Plan, record: &Record) -> Option<Ask> {
        let series = *self.series.get(record.series.as_str())?;
        let point = plan.shots.binary_search(&record.shots).ok()?;
        let query = *self.queries[plan.series[series].set].get(record.id.as_str())?;
        Some(Ask { series, point, query })
    }
}

/// All that decides the answers, by name.
fn evaluation(plan: &Plan, form: &Form, engine: &Engine) -> BTreeMap<String, String> {
    let examples = |of: &dyn Fn(&super::Set) -> &super::Dataset| {
        let mut hasher = blake3::Hasher::new();
        for set in &plan.sets {
            let set = of(set);
            for example in &set.examples {
                let super::Example { id, question, answers, .. } = example;
                for text in [id, question].into_iter().chain(answers).chain(set.choices_of(example).iter()) {
                    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
                }
            }
        }
        hasher.finalize().to_hex()[..16].to_owned()
    };
    let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let labels: Vec<&str> = plan.series.iter().map(|series| series.label.as_str()).collect();
    let weights = engine.reader().checkpoint().bytes();
    let entries = [
        ("benchmark", plan.benchmark.name.to_owned()),
        ("model", plan.model.as_ref().map_or("demo".to_owned(), |folder| folder.display().to_string())),
        ("weights", format!("{weights} bytes")),
        ("device", engine.device().to_string()),
        ("asked", examples(&|set| &set.asked)),
        ("shown", examples(&|set| &set.shown)),
        ("support", plan.sets.iter().map(|set| set.drawn.count()).sum::<usize>().to_string()),
        ("form", blake3::hash(format!("{form:?}").as_bytes()).to_hex()[..16].to_owned()),
        ("series", labels.join("; ")),
        ("shots", list(&plan.shots)),
        ("seed", plan.seed.to_string()),
        ("permutations", plan.permutations.to_string()),
        ("reference slip", plan.reference_slip.to_string()),
        ("frames", format!("{:?}", plan.frames)),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

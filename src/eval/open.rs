//! From settings to a plan: the files are read, and what is drawn at random is drawn.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::benchmark::{Benchmark, Metric};
use super::data::{self, Dataset, Example, Format, Medium, Source, Task};
use super::judge::Judge;
use super::metrics::okvqa::Stemmer;
use super::plan::{Plan, Series, Set};
use super::results::Missing;
use super::settings::{Settings, Subject};
use super::shots::{Selection, Support, shuffled};
use super::symbols;
use super::template::Kind;
use crate::demo::Random;
use crate::error::{Error, Result};

/// What is to be asked.
///
/// # Errors
/// Settings out of range or of no use for the subject; files that cannot be read; too few examples.
pub fn plan(settings: &Settings) -> Result<Plan> {
    settings.check()?;
    let plan = match &settings.subject {
        Subject::Benchmark { name, task, query, support } => of_benchmark(settings, name, *task, query, support)?,
        Subject::Symbols => of_symbols(settings)?,
    };
    plan.check()?;
    Ok(plan)
}

fn of_benchmark(settings: &Settings, name: &str, task: Option<Task>, query: &Source, support: &Source) -> Result<Plan> {
    let (benchmark, mut queries) = Benchmark::open(name, task, query)?;
    check_use(settings, &benchmark)?;
    let support = support_of(&benchmark, &queries, query, support)?;
    let mut missing = Missing::default();
    let mut named = HashSet::new();
    for path in data::missing(&queries).into_iter().chain(data::missing(&support)) {
        if named.insert(path.to_owned()) {
            missing.add(path.display().to_string());
        }
    }
    if let Some(most) = settings.queries.filter(|most| *most < queries.examples.len()) {
        let mut picked: Vec<usize> = shuffled(queries.examples.len(), settings.seed, 0).take(most).collect();
        picked.sort_unstable();
        queries.examples = picked.into_iter().map(|place| queries.examples[place].clone()).collect();
    }
    let is_there = |example: &Example| match &example.medium {
        Medium::Image(path) | Medium::Video(path) => !named.contains(path),
        Medium::Drawn(_) => true,
    };
    if !queries.examples.iter().any(is_there) {
        let (count, first) = (queries.examples.len(), &missing.names[0]);
        let expected = "expected the images or videos of --data";
        return Err(Error::argument(format!("media: {expected}, found none of {count}, the first is {first}")));
    }
    let most = if settings.support_max == 0 { usize::MAX } else { settings.support_max };
    let drawn = Support::new(&support, is_there, most, settings.seed);
    let all = Support::new(&support, is_there, usize::MAX, settings.seed);
    let stemmer = settings.nltk.as_ref().map(Stemmer::open).transpose()?.map(Arc::new);
    let chance = match benchmark.metric {
        Metric::RocAuc => Some(50.0),
        Metric::Accuracy => Some(odds(&queries)),
        _ => None,
    };
    let series = settings.selections_or(&[Selection::Random]).into_iter();
    let series = series.map(|selection| Series { label: selection.name().to_owned(), set: 0, selection, chance });
    Ok(Plan {
        title: format!("{}, few-shot", benchmark.title),
        series: series.collect(),
        sets: vec![Set { queries, support, drawn, all }],
        shots: settings.shots_or(&[0, 4, 8, 16, 32]),
        seed: settings.seed,
        permutations: settings.permutations,
        reference_slip: settings.reference_slip,
        judge: Judge::new(benchmark.metric, stemmer, settings.seed),
        missing,
        frames: settings.frames,
        benchmark,
    })
}

/// The examples to show: those that are asked, if no others are given.
fn support_of(benchmark: &Benchmark, queries: &Dataset, query: &Source, support: &Source) -> Result<Dataset> {
    let apart = !support.files.is_empty() || support.media.is_some() || support.split.is_some();
    if !apart && benchmark.format.splits().is_none() {
        return Ok(queries.clone());
    }
    if support.files.is_empty() && query.files.iter().any(|file| !file.is_file()) {
        return Err(Error::argument(
            "support: expected files of their own beside a pipe, which is read once, found none",
        ));
    }
    let files = if support.files.is_empty() { query.files.clone() } else { support.files.clone() };
    // Under two names of one folder, an example would not know its own image.
    let real = |folder: &PathBuf| folder.canonicalize().ok();
    let of_asked = query.media.as_ref().and_then(real);
    let same = of_asked.is_some() && of_asked == support.media.as_ref().and_then(real);
    let media = support.media.clone().filter(|_| !same).or(query.media.clone());
    benchmark.support(&Source { files, media, split: support.split.clone() })
}

/// Whether settings are of use for the benchmark.
fn check_use(settings: &Settings, benchmark: &Benchmark) -> Result<()> {
    let classifies = benchmark.task == Task::Classify;
    let given = [
        ("permutations", settings.permutations > 1, classifies, "classification"),
        ("reference-slip", settings.reference_slip, classifies, "classification"),
        ("nltk", settings.nltk.is_some(), benchmark.metric == Metric::OkVqa, "ok-vqa"),
    ];
    match given.into_iter().find(|(_, given, fits, _)| *given && !fits) {
        None => Ok(()),
        Some((name, _, _, of)) => {
            Err(Error::argument(format!("{name}: expected with {of} alone, found with {}", benchmark.name)))
        }
    }
}

/// What guessing gives, in per cent: the mean over examples of one among their names.
fn odds(queries: &Dataset) -> f64 {
    let each = queries.examples.iter().map(|example| {
        let choices = queries.choices_of(example);
        let right = choices.iter().filter(|choice| example.answers.contains(choice)).count();
        100.0 * right as f64 / choices.len() as f64
    });
    each.sum::<f64>() / queries.examples.len() as f64
}

/// Symbols in play.
const WAYS: [usize; 3] = [2, 5, 8];
/// Questions about symbols at each point, numbers of drawings shown, and ways to choose them, as usual.
const SYMBOLS_QUERIES: usize = 200;
const SYMBOLS_SHOTS: [usize; 6] = [0, 1, 2, 4, 8, 16];
const SYMBOLS_SELECTIONS: [Selection; 2] = [Selection::Random, Selection::Rices];

/// Most questions: all drawings are made before the first is asked for.
const SYMBOLS_QUERIES_MAX: usize = 4096;

/// The model in the box on its own task, over ways and shots, with drawings shown at random and by likeness.
fn of_symbols(settings: &Settings) -> Result<Plan> {
    let queries = settings.queries.unwrap_or(SYMBOLS_QUERIES);
    if queries > SYMBOLS_QUERIES_MAX {
        return Err(Error::limit("queries of the demo", SYMBOLS_QUERIES_MAX as u64, queries as u64));
    }
    let seed = settings.seed;
    let mut random = Random::new(seed);
    let (mut sets, mut series) = (Vec::new(), Vec::new());
    for (number, ways) in WAYS.into_iter().enumerate() {
        let (support, queries) = symbols::sets(ways, queries, &mut random)?;
        let all = Support::new(&support, |_| true, usize::MAX, seed);
        sets.push(Set { queries, support, drawn: all.clone(), all });
        series.extend(settings.selections_or(&SYMBOLS_SELECTIONS).into_iter().map(|selection| Series {
            label: format!("{ways} ways, {}", selection.name()),
            set: number,
            selection,
            chance: Some(100.0 / ways as f64),
        }));
    }
    let task = Task::Classify;
    let benchmark = Benchmark {
        name: "symbols",
        title: "Names of symbols",
        format: Format::Jsonl(Some(task)),
        task,
        kind: Kind::Classify,
        metric: Metric::Accuracy,
        max_new_tokens: 0,
    };
    Ok(Plan {
        title: "Names of symbols from alphabets never seen".to_owned(),
        judge: Judge::new(benchmark.metric, None, seed),
        benchmark,
        sets,
        series,
        shots: settings.shots_or(&SYMBOLS_SHOTS),
        seed,
        permutations: 1,
        reference_slip: false,
        missing: Missing::default(),
        frames: settings.frames,
    })
}

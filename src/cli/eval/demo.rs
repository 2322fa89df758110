//! The model in the box on its own task, over ways and shots, with drawings shown at random and by likeness.

use flamant::Error;
use flamant::demo::Random;
use flamant::eval::benchmark::{Benchmark, Metric};
use flamant::eval::data::{Format, Task};
use flamant::eval::judge::Judge;
use flamant::eval::results::Missing;
use flamant::eval::shots::{Selection, Support};
use flamant::eval::symbols;
use flamant::eval::template::Kind;

use super::Eval;
use super::plan::{Plan, Series, Set};

/// Symbols in play.
const WAYS: [usize; 3] = [2, 5, 8];
/// Questions at each point, numbers of drawings shown, and ways to choose them, if nothing else is asked for.
const QUERIES: usize = 200;
const SHOTS: [usize; 6] = [0, 1, 2, 4, 8, 16];
const SELECTIONS: [Selection; 2] = [Selection::Random, Selection::Rices];

/// Most questions: all drawings are made before the first is asked for.
const QUERIES_MAX: usize = 4096;

pub fn plan(arguments: &Eval) -> Result<Plan, Error> {
    let queries = arguments.queries.map_or(QUERIES, |queries| queries as usize);
    if queries > QUERIES_MAX {
        return Err(Error::limit("queries of the demo", QUERIES_MAX as u64, queries as u64));
    }
    let seed = arguments.seed;
    let mut random = Random::new(seed);
    let (mut sets, mut series) = (Vec::new(), Vec::new());
    for (number, ways) in WAYS.into_iter().enumerate() {
        let (support, queries) = symbols::sets(ways, queries, &mut random)?;
        let all = Support::new(&support, |_| true, usize::MAX, seed);
        sets.push(Set { queries, support, drawn: all.clone(), all });
        series.extend(arguments.selections(&SELECTIONS).into_iter().map(|selection| Series {
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
        model: None,
        judge: Judge::new(benchmark.metric, None, seed),
        benchmark,
        sets,
        series,
        shots: arguments.shots(&SHOTS),
        seed,
        permutations: 1,
        reference_slip: false,
        missing: Missing::default(),
        frames: arguments.video.sampling(),
    })
}

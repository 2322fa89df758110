//! From records to results: scores with their intervals, and some of the prompts as they were asked.

use std::io::Write as _;
use std::path::Path;

use flamant::eval::data::Task;
use flamant::eval::judge::{Answer, Judged};
use flamant::eval::results::{
    Metric, Model, Outcome as Worth, Part as Shown, Point, Results, Sample, Series, Settings, Thumbnail,
};
use flamant::eval::shots::Selection;
use flamant::eval::template::Template;
use flamant::{Engine, Error, Part};
use indicatif::DecimalBytes;

use super::media::Media;
use super::plan::{Ask, Plan};
use super::records::{Outcome, Records};
use crate::cli::Outcome as Done;

/// All that was found. Every question has a record.
///
/// # Errors
/// Answers that cannot be judged.
pub fn results(
    plan: &Plan,
    template: (&str, &Template),
    records: &Records,
    engine: &Engine,
    media: &Media,
    samples: usize,
) -> Result<Results, Error> {
    let (template_name, template) = template;
    let (mut series, mut support) = (Vec::new(), Vec::new());
    for (number, of) in plan.series.iter().enumerate() {
        let queries = &plan.sets[of.set].queries;
        let mut points = Vec::new();
        for (point, &shots) in plan.shots.iter().enumerate() {
            let asks: Vec<Ask> =
                (0..queries.examples.len()).map(|query| Ask { series: number, point, query }).collect();
            let outcomes: Vec<&Outcome> =
                asks.iter().map(|ask| &records.get(*ask).expect("all are answered").outcome).collect();
            let answers: Vec<Answer> = outcomes.iter().map(|outcome| answer(outcome)).collect();
            let judged = plan.judge.judge(queries, &answers)?;
            let errors = answers.iter().filter(|answer| **answer == Answer::Nothing).count();
            let Judged { interval, each } = judged;
            let (score, low, high) = (interval.score, interval.low, interval.high);
            points.push(Point { shots, score, low, high, examples: answers.len(), errors });
            // Evenly over the set.
            let count = samples.min(asks.len());
            for place in (0..count).map(|place| place * asks.len() / count) {
                support.push(sample(plan, asks[place], each[place], template, records, media));
            }
        }
        series.push(Series { label: of.label.clone(), points, chance: of.chance });
    }
    // Of several sets the largest: each point is of one.
    let most = |count: &dyn Fn(&super::Set) -> usize| plan.sets.iter().map(count).max().unwrap_or(0);
    let mut others = records.head.evaluation.clone();
    if plan.shots.contains(&0) {
        let instead = if plan.reference_slip { "the first one's image for the asked one" } else { "no images" };
        others.insert("0 shots".to_owned(), format!("2 examples, {instead}"));
    }
    if plan.series.iter().any(|series| series.selection == Selection::Rices) {
        others.insert("RICES looks at".to_owned(), most(&|set| set.all.count()).to_string());
    }
    let writes = plan.benchmark.task != Task::Classify;
    let unit = plan.benchmark.metric.unit();
    Ok(Results {
        title: plan.title.clone(),
        benchmark: plan.benchmark.name.to_owned(),
        model: Model { name: model_name(plan), description: description(engine) },
        device: engine.device().to_string(),
        date: records.head.date.clone(),
        metric: Metric {
            name: plan.judge.title(),
            unit: unit.to_owned(),
            // CIDEr has no end that is reached.
            best: (unit == "%").then_some(100.0),
        },
        settings: Settings {
            seed: plan.seed,
            queries: most(&|set| set.queries.examples.len()),
            support: most(&|set| set.drawn.count()),
            beams: writes.then(|| plan.benchmark.generation(&[]).num_beams),
            template: template_name.to_owned(),
            others,
        },
        series,
        missing: plan.missing.clone(),
        samples: support,
    })
}

fn model_name(plan: &Plan) -> String {
    let name = |folder: &Path| folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    plan.model.as_deref().map_or("the model in the box".to_owned(), name)
}

/// The family and the size.
fn description(engine: &Engine) -> String {
    let family = format!("{:?}", engine.config().family);
    format!("{family}, {} of weights", DecimalBytes(engine.preparer().checkpoint().bytes()))
}

fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Text(text) => Answer::Text(text.clone()),
        Outcome::Choice(choice) => Answer::Name { name: choice.name.clone(), last: choice.last },
        Outcome::Error(_) => Answer::Nothing,
    }
}

/// A question with its prompt.
fn sample(plan: &Plan, ask: Ask, worth: f64, template: &Template, records: &Records, media: &Media) -> Sample {
    let record = records.get(ask).expect("all are answered");
    // Of an example that failed there may be no prompt.
    let prompt = match &record.support[..] {
        [] => None,
        support => plan.prompt(ask, support, template, media).ok(),
    };
    let part = |part: &Part| match part {
        Part::Text(text) => Shown::Text(text.clone()),
        Part::Image(image) => Shown::Image(Thumbnail::of(image)),
        Part::Video(video) => Shown::Video { first: Thumbnail::of(&video.frames()[0]), frames: video.frames().len() },
    };
    let queries = plan.query(ask);
    let (answer, worth, odds) = match &record.outcome {
        Outcome::Text(text) => (plan.benchmark.metric.answer(text), Worth::Score(worth), Vec::new()),
        Outcome::Choice(choice) => (choice.name.clone(), Worth::Score(worth), choice.odds.clone()),
        Outcome::Error(error) => (String::new(), Worth::Error(error.clone()), Vec::new()),
    };
    Sample {
        series: plan.series[ask.series].label.clone(),
        shots: plan.shots[ask.point],
        id: queries.id.clone(),
        prompt: prompt.map_or(Vec::new(), |prompt| prompt.parts().iter().map(part).collect()),
        answer,
        expected: queries.answers.clone(),
        outcome: worth,
        odds,
    }
}

/// The scores as a table, and where the page is.
pub fn print(results: &Results, records: &Records, plan: &Plan, page: &Path) -> Done {
    let mut out = std::io::stdout().lock();
    let shots: Vec<usize> =
        results.series.first().map_or(Vec::new(), |series| series.points.iter().map(|point| point.shots).collect());
    let width = results.series.iter().map(|series| series.label.chars().count()).max().unwrap_or(0).max(5);
    writeln!(out, "{} of {}", results.metric.name, results.model.name)?;
    let heads: String = shots.iter().map(|shots| format!("{shots:>8}")).collect();
    writeln!(out, "{:width$}{heads}", "shots")?;
    for series in &results.series {
        let scores: String = series.points.iter().map(|point| format!("{:>8.1}", point.score)).collect();
        writeln!(out, "{:width$}{scores}", series.label)?;
    }
    let errors: usize = results.series.iter().flat_map(|series| &series.points).map(|point| point.errors).sum();
    let first = plan.asks().find_map(|ask| match &records.get(ask)?.outcome {
        Outcome::Error(error) => Some(error.as_str()),
        _ => None,
    });
    if let Some(first) = first {
        writeln!(out, "{errors} answers failed, which count as the worst; {first}")?;
    }
    writeln!(out, "The page is {}", page.display())?;
    Ok(())
}

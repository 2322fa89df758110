//! From records to results: scores with their intervals, and some of the prompts as they were asked.

use super::benchmark::Metric as Scored;
use super::data::Task;
use super::judge::{Answer, Judged};
use super::media::Media;
use super::plan::{Ask, Plan, Set};
use super::records::{Outcome, Records};
use super::results::{
    Metric, Model, Outcome as Worth, Part as Shown, Point, Results, Sample, Series, Settings, Thumbnail,
};
use super::shots::Selection;
use super::template::Template;
use crate::engine::Engine;
use crate::error::Result;
use crate::hub;
use crate::prompt::Part;

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
) -> Result<Results> {
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
    let most = |count: &dyn Fn(&Set) -> usize| plan.sets.iter().map(count).max().unwrap_or(0);
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
        model: Model { name: model_name(engine), description: description(engine) },
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
            beams: writes.then(|| plan.benchmark.generation(template).num_beams),
            template: template_name.to_owned(),
            others,
        },
        notes: notes(plan),
        series,
        missing: plan.missing.clone(),
        samples: support,
    })
}

/// What the scores do not say by themselves.
fn notes(plan: &Plan) -> Vec<String> {
    let of_one = plan.benchmark.metric == Scored::Cider && plan.sets.iter().any(|set| set.queries.examples.len() == 1);
    let note = "CIDEr of 1 image is 0 whatever is written: it weighs words by how rare they are among several images";
    if of_one { vec![note.to_owned()] } else { Vec::new() }
}

fn model_name(engine: &Engine) -> String {
    engine.folder().map_or("the model in the box".to_owned(), hub::model_name)
}

/// The family and the size.
fn description(engine: &Engine) -> String {
    let family = engine.tokenizer().family().name;
    format!("{family}, {} of weights", decimal(engine.preparer().checkpoint().bytes()))
}

/// Bytes in decimal units.
fn decimal(bytes: u64) -> String {
    let (mut value, mut units) = (bytes as f64, ["kB", "MB", "GB", "TB", "PB"].into_iter());
    let mut unit = "B";
    while value >= 1000.0 {
        let Some(larger) = units.next() else { break };
        (value, unit) = (value / 1000.0, larger);
    }
    let places = if unit == "B" { 0 } else { 2 };
    format!("{value:.places$} {unit}")
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

/// The first answer that failed, and why.
pub fn first_error(plan: &Plan, records: &Records) -> Option<String> {
    plan.asks().find_map(|ask| match &records.get(ask)?.outcome {
        Outcome::Error(error) => Some(error.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn bytes_in_decimal_units() {
        let found = [0, 999, 1000, 1_500, 12_345_678, 18_000_000_000].map(decimal);
        assert_eq!(found, ["0 B", "999 B", "1.00 kB", "1.50 kB", "12.35 MB", "18.00 GB"]);
    }
}

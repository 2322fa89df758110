//! What an evaluation asks: sets, series of points, and every single question in order.

use super::benchmark::{Benchmark, Metric};
use super::data::{Dataset, Example, Task};
use super::judge::Judge;
use super::media::Media;
use super::results::Missing;
use super::shots::{Selection, Similar, Support, shuffled};
use super::template::{Shots, Template};
use crate::engine::Request;
use crate::error::{Error, Result};
use crate::prompt::Prompt;
use crate::video::FrameSampling;

/// Support examples in place of none: without their images (Flamingo, appendix B.1.5).
const TEXT_ONLY: usize = 2;

/// An evaluation.
pub struct Plan {
    pub title: String,
    pub benchmark: Benchmark,
    pub sets: Vec<Set>,
    pub series: Vec<Series>,
    /// Rising.
    pub shots: Vec<usize>,
    pub seed: u64,
    /// Orders of the support examples whose log-likelihoods are averaged.
    pub permutations: usize,
    pub reference_slip: bool,
    pub judge: Judge,
    pub missing: Missing,
    pub frames: FrameSampling,
}

/// Queries, and those shown with them.
pub struct Set {
    pub queries: Dataset,
    pub support: Dataset,
    /// What random examples are drawn from.
    pub drawn: Support,
    /// What the most similar are found in.
    pub all: Support,
}

/// A curve: one set, one way to choose what is shown, all numbers of shots.
pub struct Series {
    pub label: String,
    pub set: usize,
    pub selection: Selection,
    /// What guessing gives, in per cent.
    pub chance: Option<f64>,
}

/// One example asked at one point of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    pub series: usize,
    /// Which number of shots.
    pub point: usize,
    /// Which example.
    pub query: usize,
}

impl Plan {
    /// Whether there can be results.
    ///
    /// # Errors
    /// Too few examples to show; for ROC-AUC, examples of one class alone.
    pub fn check(&self) -> Result<()> {
        let count = self.count_max();
        for series in &self.series {
            let set = &self.sets[series.set];
            let support = if series.selection == Selection::Rices { &set.all } else { &set.drawn };
            let mut most = 0;
            for queries in &set.queries.examples {
                most = most.max(support.draw(&set.support, queries, 0, self.seed).take(count).count());
                if most == count {
                    break;
                }
            }
            if most == 0 {
                let expected = format!("support: expected {count} examples to show with the one that is asked");
                let found = "found none: no example is shown with its own image, or one of another group";
                return Err(Error::argument(format!("{expected}, {found}")));
            }
            if most < count {
                let expected = format!("shots: expected at most {most}, as many as can be shown with one example");
                let found = match self.shots.last() {
                    Some(0) => format!("0, which shows the words of {TEXT_ONLY}"),
                    _ => count.to_string(),
                };
                return Err(Error::argument(format!("{expected}, found {found}")));
            }
        }
        for set in &self.sets {
            let is_last = |example: &Example| set.queries.choices_of(example).last() == example.answers.first();
            let last = set.queries.examples.iter().filter(|example| is_last(example)).count();
            if self.benchmark.metric == Metric::RocAuc && (last == 0 || last == set.queries.examples.len()) {
                let found = format!("{last} of {} of the second", set.queries.examples.len());
                return Err(Error::argument(format!("ROC-AUC: expected examples of both classes, found {found}")));
            }
        }
        Ok(())
    }

    /// All questions, point after point.
    pub fn asks(&self) -> impl Iterator<Item = Ask> {
        self.series.iter().enumerate().flat_map(move |(series, of)| {
            let queries = self.sets[of.set].queries.examples.len();
            (0..self.shots.len()).flat_map(move |point| (0..queries).map(move |query| Ask { series, point, query }))
        })
    }

    /// The set that a question is of.
    pub fn set(&self, ask: Ask) -> &Set {
        &self.sets[self.series[ask.series].set]
    }

    /// The example that is asked.
    pub fn query(&self, ask: Ask) -> &Example {
        &self.set(ask).queries.examples[ask.query]
    }

    /// How many examples are shown, with or without their images.
    fn count(&self, point: usize) -> usize {
        if self.shots[point] == 0 { TEXT_ONLY } else { self.shots[point] }
    }

    /// Most support examples.
    pub fn count_max(&self) -> usize {
        (0..self.shots.len()).map(|point| self.count(point)).max().unwrap_or(0)
    }

    /// The numbers of the support examples, in order.
    ///
    /// # Errors
    /// Fewer than wanted.
    pub fn support(&self, ask: Ask, similar: &Similar, media: &Media) -> Result<Vec<usize>> {
        let Series { set, selection, .. } = self.series[ask.series];
        let (count, of) = (self.count(ask.point), &self.sets[set]);
        let drawn = |number: usize| -> Vec<usize> {
            let drawn = of.drawn.draw(&of.support, self.query(ask), number, self.seed);
            drawn.filter(|&number| media.can_show(&of.support.examples[number].medium)).take(count).collect()
        };
        let support = match selection {
            Selection::Random => drawn(ask.query),
            Selection::Fixed => drawn(0),
            Selection::Rices => similar.nearest(set, ask.query, count),
        };
        if support.len() < count {
            let expected = format!("expected {count} examples that can be shown with it");
            return Err(Error::argument(format!("shots: {expected}, found {}", support.len())));
        }
        Ok(support)
    }

    /// The prompt of a question, with the support examples in this order.
    pub fn prompt(&self, ask: Ask, support: &[usize], template: &Template, media: &Media) -> Result<Prompt> {
        let set = self.set(ask);
        let examples: Vec<&Example> = support.iter().map(|&number| &set.support.examples[number]).collect();
        let shots = match (self.shots[ask.point], self.reference_slip) {
            (0, true) => Shots::FirstImage,
            (0, false) => Shots::TextOnly,
            _ => Shots::Whole,
        };
        template.prompt(&examples, self.query(ask), shots, &mut |prompt, medium| media.add(prompt, medium))
    }

    /// What is asked of the engine: one request for each order of the support examples, the one they have first.
    pub fn request(
        &self,
        ask: Ask,
        order: usize,
        support: &[usize],
        template: &Template,
        media: &Media,
    ) -> Result<Request> {
        let prompt = self.prompt(ask, &self.ordered(ask, order, support), template, media)?;
        let choices = self.set(ask).queries.choices_of(self.query(ask));
        Ok(match self.benchmark.task {
            Task::Classify => Request::classify(prompt, choices.iter().map(|name| template.choice(name)).collect()),
            Task::Caption | Task::Question => Request::generate(prompt, self.benchmark.generation(template)),
        })
    }

    /// The support examples in one of their orders; no order comes twice.
    fn ordered(&self, ask: Ask, order: usize, support: &[usize]) -> Vec<usize> {
        let mut orders = vec![support.to_vec()];
        let mut stream = (ask.query as u64) << 16;
        while orders.len() <= order {
            let next = shuffled(support.len(), self.seed ^ 1, stream).map(|place| support[place]).collect();
            if !orders.contains(&next) {
                orders.push(next);
            }
            stream += 1;
        }
        orders.swap_remove(order)
    }

    /// How many orders there are of the support examples.
    pub fn orders(&self, point: usize) -> usize {
        let all: usize = (1..=self.count(point)).take(6).product();
        self.permutations.min(all)
    }
}

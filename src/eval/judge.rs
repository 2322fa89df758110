//! What answers are worth together: from what a model answered to the score of a benchmark, with its interval. An
//! example without an answer counts as the worst one; it is never left out.

use std::sync::Arc;

use super::benchmark::Metric;
use super::data::{Dataset, Example};
use super::metrics::bootstrap::{self, Interval};
use super::metrics::okvqa::Stemmer;
use super::metrics::roc_auc::roc_auc;
use super::metrics::score_interval::{self, wilson};
use super::metrics::{accuracy, cider, mean, ptb, vqa};
use crate::error::Result;

/// Of the intervals of captions: 95 % from 1000 draws, as is usual.
const CONFIDENCE: f64 = 0.95;
const DRAWS: usize = 1000;

/// What a model answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A text, as it was written.
    Text(String),
    /// A name among those offered, and how likely the last of them was, from 0 to 1 (of memes: "yes").
    Name {
        /// The likeliest name.
        name: String,
        /// See [`roc_auc::class_score`](super::metrics::roc_auc::class_score).
        last: f64,
    },
    /// Nothing: there was an error.
    Nothing,
}

/// The worth of answers. All numbers are those of the metric times 100, as papers print them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Judged {
    /// The score of all, and its interval.
    pub interval: Interval,
    /// What each answer is worth by itself; for ROC-AUC, whether the likeliest name is the right one.
    pub each: Vec<f64>,
}

/// Judges answers by one metric.
#[derive(Clone)]
pub struct Judge {
    metric: Metric,
    stemmer: Option<Arc<Stemmer>>,
    seed: u64,
}

impl Judge {
    /// A judge; `stemmer` is of use for [`Metric::OkVqa`], whose answers are compared as they are without one. The seed
    /// is that of the intervals.
    pub fn new(metric: Metric, stemmer: Option<Arc<Stemmer>>, seed: u64) -> Judge {
        Judge { metric, stemmer, seed }
    }

    /// What the score is called.
    pub fn title(&self) -> String {
        match (self.metric, &self.stemmer) {
            (Metric::OkVqa, None) => format!("{} without stemming", self.metric.title()),
            _ => self.metric.title().to_owned(),
        }
    }

    /// Judges the answers to all examples of a set.
    ///
    /// # Errors
    /// For ROC-AUC, examples of one class only.
    pub fn judge(&self, queries: &Dataset, answers: &[Answer]) -> Result<Judged> {
        let examples = &queries.examples[..];
        assert_eq!(examples.len(), answers.len());
        let each = match self.metric {
            Metric::Cider => captions(examples, answers)?,
            _ => examples.iter().zip(answers).map(|(example, answer)| self.worth(example, answer)).collect(),
        };
        let interval = match self.metric {
            Metric::RocAuc => area(queries, answers)?,
            Metric::Cider => self.interval_of_captions(&each)?,
            _ => wilson(mean(each.iter().copied()), each.len()),
        };
        let percent = |share: f64| 100.0 * share;
        let Interval { score, low, high } = interval;
        let interval = Interval { score: percent(score), low: percent(low), high: percent(high) };
        Ok(Judged { interval, each: each.into_iter().map(percent).collect() })
    }

    /// What one answer is worth, from 0 to 1.
    fn worth(&self, example: &Example, answer: &Answer) -> f64 {
        let people = || example.answers.iter().map(String::as_str);
        match answer {
            Answer::Nothing => 0.0,
            Answer::Name { name, .. } => f64::from(example.answers.contains(name)),
            Answer::Text(text) => {
                let answer = self.metric.answer(text);
                match (self.metric, &self.stemmer) {
                    (Metric::Exact, _) => people().map(|given| accuracy::exact(&answer, given)).fold(0.0, f64::max),
                    (Metric::Ivqa, _) => accuracy::ivqa(&answer, people()),
                    (Metric::OkVqa, Some(stemmer)) => {
                        let people: Vec<String> = people().map(|given| stemmer.stem(given)).collect();
                        vqa::accuracy(&stemmer.stem(&answer), people.iter().map(String::as_str))
                    }
                    _ => vqa::accuracy(&answer, people()),
                }
            }
        }
    }

    /// Where all captions score the same, what holds for any values of that range.
    fn interval_of_captions(&self, each: &[f64]) -> Result<Interval> {
        if each.iter().any(|score| *score != each[0]) {
            return bootstrap::interval(each, CONFIDENCE, DRAWS, self.seed);
        }
        let Interval { low, high, .. } = wilson((each[0] / cider::BEST).clamp(0.0, 1.0), each.len());
        Ok(Interval { score: each[0], low: low * cider::BEST, high: high * cider::BEST })
    }
}

/// The area under the curve.
fn area(queries: &Dataset, answers: &[Answer]) -> Result<Interval> {
    let (mut scores, mut labels) = (Vec::new(), Vec::new());
    for (example, answer) in queries.examples.iter().zip(answers) {
        let positive = queries.choices_of(example).last() == example.answers.first();
        scores.push(match answer {
            Answer::Name { last, .. } => *last,
            // The wrong end.
            _ => f64::from(!positive),
        });
        labels.push(positive);
    }
    let positives = labels.iter().filter(|positive| **positive).count();
    Ok(score_interval::area(roc_auc(&scores, &labels)?, positives, labels.len() - positives))
}

/// CIDEr-D of each caption; one that is not there has no tokens.
fn captions(examples: &[Example], answers: &[Answer]) -> Result<Vec<f64>> {
    let judged: Vec<cider::Example> = examples
        .iter()
        .zip(answers)
        .map(|(example, answer)| {
            let text = if let Answer::Text(text) = answer { Metric::Cider.answer(text) } else { String::new() };
            let references = example.answers.iter().map(|caption| ptb::tokens(caption)).collect();
            cider::Example { candidate: ptb::tokens(&text), references }
        })
        .collect();
    Ok(cider::cider(&judged)?.examples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::data::{Medium, Task};

    fn set(answers: &[&[&str]], choices: &[&str]) -> Dataset {
        let example = |(number, answers): (usize, &&[&str])| Example {
            id: number.to_string(),
            medium: Medium::Image(format!("{number}.png").into()),
            question: String::new(),
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
            choices: None,
            group: None,
        };
        let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
        Dataset { task: Task::Caption, examples: answers.iter().enumerate().map(example).collect(), choices }
    }

    fn judged(metric: Metric, set: &Dataset, answers: &[Answer]) -> Judged {
        Judge::new(metric, None, 1).judge(set, answers).unwrap()
    }

    fn said(text: &str) -> Answer {
        Answer::Text(text.to_owned())
    }

    fn named(name: &str, last: f64) -> Answer {
        Answer::Name { name: name.to_owned(), last }
    }

    #[test]
    fn captions_are_cut_and_one_that_is_missing_counts_as_the_worst() {
        let captions = set(&[&["a red fox on a mat"], &["two dogs in the rain"], &["nobody at all is here"]], &[]);
        let found = judged(
            Metric::Cider,
            &captions,
            &[said("a red fox on a mat Output: more"), said("two dogs in the rain"), Answer::Nothing],
        );
        // What is said word for word is worth ten in every length of n-gram.
        assert!((found.each[0] - 1000.0).abs() < 1e-9 && (found.each[1] - 1000.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found.each[2], 0.0);
        assert!((found.interval.score - 2000.0 / 3.0).abs() < 1e-9);
        assert!(found.interval.low < found.interval.score && found.interval.score < found.interval.high);
    }

    #[test]
    fn answers_count_by_those_of_people() {
        let questions = set(&[&["a cat", "two"], &["red"], &["red"]], &[]);
        let answers = [said("The cat, sitting"), said("blue Question: x"), Answer::Nothing];
        assert_eq!(judged(Metric::Exact, &questions, &answers).each, [100.0, 0.0, 0.0]);
        let people: Vec<&str> = vec!["red"; 2].into_iter().chain(vec!["blue"; 3]).collect();
        let questions = set(&[&people, &people], &[]);
        let found = judged(Metric::Ivqa, &questions, &[said("red"), said("green")]);
        assert_eq!((found.each, found.interval.score), (vec![100.0, 0.0], 50.0));
    }

    #[test]
    fn names_count_and_the_area_takes_a_missing_one_for_the_wrong_end() {
        let memes = set(&[&["no"], &["yes"], &["yes"], &["no"]], &["no", "yes"]);
        let answers = [named("no", 0.1), named("yes", 0.9), named("no", 0.3), Answer::Nothing];
        assert_eq!(judged(Metric::Accuracy, &memes, &answers).each, [100.0, 100.0, 0.0, 0.0]);
        // Of four pairs the two with the missing one, taken for a sure yes, are in the wrong order.
        assert_eq!(judged(Metric::RocAuc, &memes, &answers).interval.score, 50.0);
        let one_class = set(&[&["no"]], &["no", "yes"]);
        assert!(Judge::new(Metric::RocAuc, None, 1).judge(&one_class, &answers[..1]).is_err());
        // Any of its names is right.
        let sofas = set(&[&["sofa", "couch"]], &["sofa", "couch", "bed"]);
        assert_eq!(judged(Metric::Accuracy, &sofas, &[named("couch", 0.0)]).each, [100.0]);
    }
}

//! Which examples are shown with the one that is asked: drawn at random by a seed, or the most similar ones (RICES,
//! Yang et al. 2021; Flamingo, appendix B.2). What is drawn for an example depends on the seed and its number alone,
//! and more shots only add to fewer.

use std::collections::HashMap;
use std::sync::Arc;

use super::data::{Dataset, Example, Medium};
use super::retrieval::{Features, nearest};
use crate::sample::uniform;

/// How the examples to show are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// At random, for each asked example anew.
    Random,
    /// At random, the same for all.
    Fixed,
    /// The most similar ones, the most similar last.
    Rices,
}

impl Selection {
    /// As the command line takes it and a page tells it.
    pub fn name(self) -> &'static str {
        match self {
            Selection::Random => "random",
            Selection::Fixed => "fixed",
            Selection::Rices => "RICES",
        }
    }
}

/// Examples that can be shown, by group.
#[derive(Debug, Clone)]
pub struct Support {
    /// Numbers of examples of the set.
    members: HashMap<Option<Arc<str>>, Vec<usize>>,
    count: usize,
}

impl Support {
    /// The examples of a set that are `usable`, at most `most` of them, drawn by the seed.
    pub fn new(support: &Dataset, usable: impl Fn(&Example) -> bool, most: usize, seed: u64) -> Support {
        let usable: Vec<usize> =
            (0..support.examples.len()).filter(|&number| usable(&support.examples[number])).collect();
        // The order of the file stays.
        let mut picked: Vec<usize> = shuffled(usable.len(), seed, 0).take(most).collect();
        picked.sort_unstable();
        let mut members: HashMap<_, Vec<usize>> = HashMap::new();
        for &place in &picked {
            members.entry(support.examples[usable[place]].group.clone()).or_default().push(usable[place]);
        }
        Support { members, count: picked.len() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their numbers, in order.
    pub fn numbers(&self) -> Vec<usize> {
        let mut numbers: Vec<usize> = self.members.values().flatten().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// The examples that can be shown with the example `query`, the `number`th of its set, as they are drawn.
    pub fn draw(&self, support: &Dataset, queries: &Example, number: usize, seed: u64) -> impl Iterator<Item = usize> {
        let members = self.members.get(&queries.group).map_or(&[][..], Vec::as_slice);
        let drawn = shuffled(members.len(), seed, number as u64 + 1).map(|place| members[place]);
        drawn.filter(|&member| may_show(&support.examples[member], queries))
    }

    /// For each example of `query`, the `shots` most similar ones to show, the most similar last. Rows of `of_shown`
    /// are those of [`Support::numbers`], rows of `of_asked` the queries.
    pub fn similar(
        &self,
        support: &Dataset,
        queries: &[Example],
        of_shown: &Features,
        of_asked: &Features,
        shots: usize,
    ) -> Vec<Vec<usize>> {
        let numbers = self.numbers();
        let allowed = |query: usize, row: usize| may_show(&support.examples[numbers[row]], &queries[query]);
        let found = nearest(of_asked, of_shown, shots, allowed);
        found.into_iter().map(|rows| rows.iter().rev().map(|neighbour| numbers[neighbour.row]).collect()).collect()
    }
}

/// An example is never shown its own image, nor one of another group.
fn may_show(support: &Example, queries: &Example) -> bool {
    let same = match (&support.medium, &queries.medium) {
        (Medium::Image(support), Medium::Image(queries)) | (Medium::Video(support), Medium::Video(queries)) => {
            support == queries
        }
        (Medium::Drawn(support), Medium::Drawn(queries)) => Arc::ptr_eq(support, queries),
        _ => false,
    };
    !same && support.group == queries.group
}

/// For each set, each example's most similar ones, the most similar last.
pub(super) struct Similar {
    /// For each set and example, numbers of examples.
    pub of_sets: Vec<Vec<Vec<usize>>>,
}

impl Similar {
    /// The `count` examples most similar to one.
    pub fn nearest(&self, set: usize, query: usize, count: usize) -> Vec<usize> {
        let found = &self.of_sets[set][query];
        found[found.len().saturating_sub(count)..].to_vec()
    }
}

/// The numbers below `count` in random order, as many as are taken (Fisher and Yates; only what was moved is kept).
pub fn shuffled(count: usize, seed: u64, stream: u64) -> impl Iterator<Item = usize> {
    let mut moved: HashMap<usize, usize> = HashMap::new();
    (0..count).map(move |place| {
        let share = uniform(seed, (stream << 24) + place as u64);
        let other = place + ((share * (count - place) as f64) as usize).min(count - place - 1);
        let drawn = moved.get(&other).copied().unwrap_or(other);
        let here = moved.get(&place).copied().unwrap_or(place);
        moved.insert(other, here);
        drawn
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::data::Task;

    fn set(count: usize) -> Dataset {
        let example = |number: usize| Example {
            id: number.to_string(),
            medium: Medium::Image(format!("{}.png", number / 2).into()),
            question: String::new(),
            answers: vec!["a".to_owned()],
            choices: None,
            group: Some(if number < 10 { "few" } else { "many" }.into()),
        };
        Dataset { task: Task::Caption, examples: (0..count).map(example).collect(), choices: Arc::default() }
    }

    #[test]
    fn shuffling_gives_each_number_once_and_every_order_as_often() {
        let mut counts = HashMap::new();
        for stream in 0..24_000 {
            let order: Vec<usize> = shuffled(4, 5, stream).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            *counts.entry(order).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        // Five standard deviations of a binomial.
        assert!(counts.values().all(|&count: &i32| (count - 1000).abs() < 160), "{counts:?}");
    }

    #[test]
    fn shots_are_of_one_group_and_never_the_asked_image() {
        let set = set(60);
        let support = Support::new(&set, |example| example.id != "7", 1000, 3);
        assert_eq!(support.count(), 59);
        for number in [0, 3, 25, 44] {
            let queries = &set.examples[number];
            let most: Vec<usize> = support.draw(&set, queries, number, 3).collect();
            for support in most.iter().map(|&support| &set.examples[support]) {
                assert!(support.group == queries.group && support.id != "7");
                assert!(!matches!((&support.medium, &queries.medium), (Medium::Image(a), Medium::Image(b)) if a == b));
            }
            assert_eq!(most.len(), if number < 10 { 7 } else { 48 });
        }
        let picked = Support::new(&set, |_| true, 20, 3).numbers();
        assert!(picked.len() == 20 && picked.is_sorted());
        assert_ne!(picked, Support::new(&set, |_| true, 20, 4).numbers());
    }
}

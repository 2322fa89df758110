//! Scores that papers and model cards state for models of the family, to stand beside one's own. `published.txt` holds
//! them, laid out as the papers' tables are.

use std::sync::LazyLock;

/// The numbers of shots that papers report.
pub const SHOTS: [usize; 5] = [0, 4, 8, 16, 32];

/// One model's scores on one benchmark.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The benchmark: "coco", "vqav2".
    pub benchmark: &'static str,
    /// The model.
    pub model: &'static str,
    /// How the shown examples were chosen: "random" or "RICES".
    pub examples: &'static str,
    /// The paper and its table.
    pub source: &'static str,
    /// By [`SHOTS`]; none where nothing was published.
    pub scores: [Option<f64>; SHOTS.len()],
}

impl Published {
    /// The score at a number of shots.
    pub fn at(&self, shots: usize) -> Option<f64> {
        SHOTS.iter().position(|&published| published == shots).and_then(|column| self.scores[column])
    }
}

/// All that was published on a benchmark, in the order of the papers; nothing for a name that none of them has.
pub fn published(benchmark: &str) -> impl Iterator<Item = &'static Published> {
    ROWS.iter().filter(move |row| row.benchmark == benchmark)
}

static ROWS: LazyLock<Vec<Published>> = LazyLock::new(|| parse(include_str!("published.txt")));

/// Blocks of lines: a source, how examples were chosen, models, and a line for each benchmark. The text is ours, so a
/// line that is wrong is a panic.
fn parse(text: &'static str) -> Vec<Published> {
    let (mut source, mut examples, mut models) = ("", "", Vec::new());
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once(' ').expect("a key and a value");
        let value = value.trim();
        match key {
            "source" => source = value,
            "examples" => examples = value,
            "models" => models = value.split(" | ").collect(),
            benchmark => {
                let columns: Vec<&str> = value.split('|').collect();
                assert_eq!(columns.len(), models.len(), "{line}");
                rows.extend(models.iter().zip(columns).map(|(&model, column)| {
                    let score = |text: &str| (text != "-").then(|| text.parse().expect("a number"));
                    let scores: Vec<Option<f64>> = column.split_whitespace().map(score).collect();
                    let scores = scores.try_into().expect("a score for each number of shots");
                    Published { benchmark, model, examples, source, scores }
                }));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(benchmark: &str, model: &str, examples: &str) -> [Option<f64>; 5] {
        let found: Vec<_> = published(benchmark).filter(|row| (row.model, row.examples) == (model, examples)).collect();
        assert_eq!(found.len(), 1, "{benchmark}, {model}, {examples}");
        found[0].scores
    }

    #[test]
    fn rows_are_those_of_the_papers() {
        assert_eq!(row("coco", "Flamingo 80B", "random"), [84.3, 103.2, 108.8, 110.5, 113.8].map(Some));
        assert_eq!(row("vatex", "Flamingo 9B", "random"), [39.5, 51.7, 55.2, 58.5, 57.4].map(Some));
        assert_eq!(row("hateful-memes", "Flamingo 3B", "random"), [53.7, 53.6, 54.7, 55.3, 56.3].map(Some));
        assert_eq!(row("vqav2", "OpenFlamingo 9B", "random"), [52.7, 54.8, 54.8, 54.3, 53.3].map(Some));
        assert_eq!(row("textvqa", "OpenFlamingo 4B Instruct", "RICES"), [23.5, 28.9, 25.6, 22.0, 23.0].map(Some));
        assert_eq!(row("vizwiz", "OpenFlamingo 3B", "RICES"), [32.1, 37.3, 41.7, 44.8, 45.8].map(Some));
        assert_eq!(row("ok-vqa", "IDEFICS 80B", "random"), [45.2, 52.4, 55.1, 56.8, 57.8].map(Some));
        assert_eq!(row("flickr30k", "IDEFICS 9B", "random"), [27.3, 59.7, 61.9, 64.5, 64.4].map(Some));
        assert_eq!(row("imagenet", "Flamingo 80B", "RICES"), [None, None, Some(71.9), Some(71.7), None]);
        assert_eq!(published("msvd-qa").find(|row| row.model == "Flamingo 80B").unwrap().at(32), Some(52.3));
        assert_eq!(published("coco").next().unwrap().at(2), None);
    }

    #[test]
    fn every_benchmark_has_its_rows() {
        for (benchmark, count) in [
            ("coco", 15),
            ("flickr30k", 15),
            ("vqav2", 17),
            ("ok-vqa", 15),
            ("textvqa", 15),
            ("vizwiz", 15),
            ("hateful-memes", 15),
            ("msvd-qa", 3),
            ("msrvtt-qa", 3),
            ("vatex", 3),
            ("imagenet", 6),
            ("a set of one's own", 0),
        ] {
            assert_eq!(published(benchmark).count(), count, "{benchmark}");
        }
        assert_eq!(ROWS.len(), 122);
        let scores = ROWS.iter().flat_map(|row| row.scores).flatten();
        assert!(scores.into_iter().all(|score| (10.0..140.0).contains(&score)));
        assert!(ROWS.iter().all(|row| !row.source.is_empty() && ["random", "RICES"].contains(&row.examples)));
    }
}

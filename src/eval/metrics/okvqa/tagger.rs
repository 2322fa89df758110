//! Parts of speech by NLTK's averaged perceptron (`nltk/tag/perceptron.py`): a sum of weights for what is seen of a
//! word and its neighbours, from left to right, the best class each time.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::read_json;
use crate::error::{Error, Result};

/// Most bytes of one file; the published weights have 6 million.
const BYTES_MAX: u64 = 64 << 20;

/// The weights of a tagger.
#[derive(Debug, Clone)]
pub(super) struct Tagger {
    /// In order of the alphabet.
    classes: Vec<String>,
    /// For each feature, the classes that it speaks for or against.
    weights: HashMap<String, Vec<(usize, f64)>>,
    /// Words that have one class, whatever stands around them.
    known: HashMap<String, String>,
}

impl Tagger {
    pub(super) fn open(folder: &Path) -> Result<Tagger> {
        let path = |part: &str| folder.join(format!("averaged_perceptron_tagger_eng.{part}.json"));
        let invalid =
            |part: &str, key: &str, expected: &str, found: &Value| Error::invalid(path(part), key, expected, found);
        let read = |part: &str| read_json(&path(part), BYTES_MAX);
        let list = read("classes")?;
        let classes = list.as_array().filter(|classes| !classes.is_empty());
        let classes =
            classes.and_then(|classes| classes.iter().map(|class| class.as_str().map(str::to_owned)).collect());
        let mut classes: Vec<String> =
            classes.ok_or_else(|| invalid("classes", "classes", "a list of at least one name", &list))?;
        classes.sort_unstable();
        let mut known = HashMap::new();
        let table = read("tagdict")?;
        for (word, class) in object(&table).ok_or_else(|| invalid("tagdict", "words", "an object", &table))? {
            let class = class.as_str().ok_or_else(|| invalid("tagdict", word, "a class", class))?;
            known.insert(word.clone(), class.to_owned());
        }
        let mut weights = HashMap::new();
        let table = read("weights")?;
        for (feature, of_classes) in
            object(&table).ok_or_else(|| invalid("weights", "features", "an object", &table))?
        {
            let wrong = || invalid("weights", feature, "a number for each of some classes", of_classes);
            let mut found = Vec::new();
            for (class, weight) in object(of_classes).ok_or_else(wrong)? {
                let class = classes.binary_search(class).map_err(|_| wrong())?;
                found.push((class, weight.as_f64().ok_or_else(wrong)?));
            }
            weights.insert(feature.clone(), found);
        }
        Ok(Tagger { classes, weights, known })
    }

    /// The class of each word.
    pub(super) fn tags(&self, words: &[String]) -> Vec<&str> {
        let around =
            ["-START-", "-START2-"].into_iter().map(str::to_owned).chain(words.iter().map(|word| general(word)));
        let around: Vec<String> = around.chain(["-END-", "-END2-"].map(str::to_owned)).collect();
        let (mut last, mut before_last) = ("-START-", "-START2-");
        let mut tags = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            let known = self.known.get(word).filter(|class| !class.is_empty()).map(String::as_str);
            let tag = known.unwrap_or_else(|| self.best(&features(word, &around[at..at + 5], last, before_last)));
            (before_last, last) = (last, tag);
            tags.push(tag);
        }
        tags
    }

    /// Of classes that are worth the same, the last in the alphabet.
    fn best(&self, features: &[String]) -> &str {
        let mut scores = vec![0f64; self.classes.len()];
        for &(class, weight) in features.iter().filter_map(|feature| self.weights.get(feature)).flatten() {
            scores[class] += weight;
        }
        // Weights so large that their sum is no number speak for no class.
        let order = |&a: &usize, &b: &usize| scores[a].partial_cmp(&scores[b]).unwrap_or(Ordering::Equal);
        let best = (0..scores.len()).max_by(order).expect("a tagger has classes");
        &self.classes[best]
    }
}

fn object(value: &Value) -> Option<&serde_json::Map<String, Value>> {
    value.as_object()
}

/// A word as its neighbours see it.
fn general(word: &str) -> String {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    if word.contains('-') && !word.starts_with('-') {
        "!HYPHEN".to_owned()
    } else if is_number && word.len() == 4 {
        "!YEAR".to_owned()
    } else if word.starts_with(|first: char| first.is_ascii_digit()) {
        "!DIGITS".to_owned()
    } else {
        word.to_lowercase()
    }
}

/// What is seen of the word in the middle of five, after two classes.
fn features(word: &str, around: &[String], last: &str, before_last: &str) -> [String; 14] {
    let first: String = word.chars().take(1).collect();
    [
        "bias".to_owned(),
        format!("i suffix {}", suffix(word)),
        format!("i pref1 {first}"),
        format!("i-1 tag {last}"),
        format!("i-2 tag {before_last}"),
        format!("i tag+i-2 tag {last} {before_last}"),
        format!("i word {}", around[2]),
        format!("i-1 tag+i word {last} {}", around[2]),
        format!("i-1 word {}", around[1]),
        format!("i-1 suffix {}", suffix(&around[1])),
        format!("i-2 word {}", around[0]),
        format!("i+1 word {}", around[3]),
        format!("i+1 suffix {}", suffix(&around[3])),
        format!("i+2 word {}", around[4]),
    ]
}

/// The last three characters.
fn suffix(word: &str) -> &str {
    let start = word.char_indices().rev().nth(2).map_or(0, |(at, _)| at);
    &word[start..]
}

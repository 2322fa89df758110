//! What an evaluation is to be: which benchmark or task, how many examples are shown and which, what is random.

use std::path::PathBuf;

use super::data::{Source, Task};
use super::shots::Selection;
use crate::error::{Error, Result};
use crate::prompt::PromptLimits;
use crate::video::FrameSampling;

/// Most support examples.
pub const SHOTS_MAX: usize = 255;
/// Most orders of the support examples.
pub const PERMUTATIONS_MAX: usize = 64;

/// What is evaluated.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Subject {
    /// A benchmark with its files.
    #[non_exhaustive]
    Benchmark {
        /// Its name; see [`benchmark`](super::benchmark).
        name: String,
        /// What one's own examples ask; none: what they look like.
        task: Option<Task>,
        /// The examples to ask.
        query: Source,
        /// The examples to show. What is not given is that of `query`.
        support: Source,
    },
    /// The task of the model in the box: names of symbols from alphabets it has never seen.
    Symbols,
}

/// Settings of an evaluation; whatever is left empty is as usual for its subject.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// What is evaluated.
    pub subject: Subject,
    /// How examples become a prompt: the name of a [`template`](super::template) or its file; none: by the model.
    pub template: Option<PathBuf>,
    /// In place of the template's [`no_repeat_ngram_size`](super::template::Template::no_repeat_ngram_size).
    pub no_repeat_ngram_size: Option<usize>,
    /// Numbers of support examples.
    pub shots: Vec<usize>,
    /// How they are chosen.
    pub selections: Vec<Selection>,
    /// Of all random choices.
    pub seed: u64,
    /// Queries, drawn at random; none: all, and 200 symbols for each number of names.
    pub queries: Option<usize>,
    /// Examples that random ones are drawn from, drawn at random; 0: all.
    pub support_max: usize,
    /// Random orders of the support examples whose log-likelihoods are averaged, for classification.
    pub permutations: usize,
    /// Whether to repeat a slip of OpenFlamingo's classification with 0 shots: the first shown image stands for the
    /// asked one.
    pub reference_slip: bool,
    /// NLTK's data folder, for the stems of ok-vqa.
    pub nltk: Option<PathBuf>,
    /// Prompts of each point that the page shows.
    pub samples: usize,
    /// Which frames of videos are read.
    pub frames: FrameSampling,
    /// What images and videos may be.
    pub prompt_limits: PromptLimits,
}

impl Settings {
    /// Of a benchmark, and the files of its examples.
    pub fn benchmark(name: impl Into<String>, query: Source) -> Settings {
        let (task, support) = (None, Source::default());
        Settings::of(Subject::Benchmark { name: name.into(), task, query, support })
    }

    /// Of the task of the model in the box.
    pub fn symbols() -> Settings {
        Settings::of(Subject::Symbols)
    }

    fn of(subject: Subject) -> Settings {
        Settings {
            subject,
            template: None,
            no_repeat_ngram_size: None,
            shots: Vec::new(),
            selections: Vec::new(),
            seed: 42,
            queries: None,
            support_max: 2048,
            permutations: 1,
            reference_slip: false,
            nltk: None,
            samples: 3,
            frames: FrameSampling::default(),
            prompt_limits: PromptLimits::default(),
        }
    }

    /// Whether every number is usable.
    pub(super) fn check(&self) -> Result<()> {
        self.frames.check()?;
        if let Some(&shots) = self.shots.iter().find(|shots| **shots > SHOTS_MAX) {
            return Err(Error::limit("shots", SHOTS_MAX as u64, shots as u64));
        }
        if !(1..=PERMUTATIONS_MAX).contains(&self.permutations) {
            let found = self.permutations;
            return Err(Error::argument(format!("permutations: expected 1 to {PERMUTATIONS_MAX}, found {found}")));
        }
        if self.queries == Some(0) {
            return Err(Error::argument("queries: expected at least 1, found 0"));
        }
        Ok(())
    }

    /// Numbers of shots, rising, each once.
    pub(super) fn shots_or(&self, usual: &[usize]) -> Vec<usize> {
        let mut shots = if self.shots.is_empty() { usual.to_vec() } else { self.shots.clone() };
        shots.sort_unstable();
        shots.dedup();
        shots
    }

    /// Ways to choose examples, each once.
    pub(super) fn selections_or(&self, usual: &[Selection]) -> Vec<Selection> {
        let mut selections: Vec<Selection> = Vec::new();
        for &selection in if self.selections.is_empty() { usual } else { &self.selections } {
            if !selections.contains(&selection) {
                selections.push(selection);
            }
        }
        selections
    }
}

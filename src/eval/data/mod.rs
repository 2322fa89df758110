//! Evaluation sets: what is asked about which picture, and what people answered. A set is read from the files that its
//! authors publish, one reader a format, or from our own lines of JSON ([`jsonl`]).

use std::path::PathBuf;
use std::sync::Arc;

use crate::image::Picture;

/// What a set asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Describe a picture.
    Caption,
    /// Answer a question about it.
    Question,
    /// Pick the right one of some names: each is weighed by its likelihood.
    Classify,
}

/// What an example shows.
#[derive(Debug, Clone)]
pub enum Medium {
    /// A picture in a file.
    Picture(PathBuf),
    /// A video: whatever a prompt takes for one.
    Video(PathBuf),
    /// A picture that is there already.
    Drawn(Arc<Picture>),
}

/// A picture or video with what is asked about it and what people answered.
#[derive(Debug, Clone)]
pub struct Example {
    /// Names it among those of its set.
    pub id: String,
    /// What it shows.
    pub medium: Medium,
    /// The question; for memes the text in the picture; empty where none is asked.
    pub question: String,
    /// What people answered: captions, answers or the name of its class, at least one. The first is the one that is
    /// told when the example is shown.
    pub answers: Vec<String>,
    /// Names to choose from; those of the set if none are given.
    pub choices: Option<Arc<[String]>>,
    /// Only examples of the same group are shown with it.
    pub group: Option<Arc<str>>,
}

/// Examples of one task.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What is asked.
    pub task: Task,
    /// In the order of the file.
    pub examples: Vec<Example>,
    /// Names to choose from, for [`Task::Classify`]; empty for other tasks and where each example has its own.
    pub choices: Arc<[String]>,
}

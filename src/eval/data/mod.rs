//! Evaluation sets: what is asked about which image, and what people answered. A set is read from the files that its
//! authors publish, one reader a format, or from our own lines of JSON ([`jsonl`]).
//!
//! A set is checked as it is read: a field that is missing or of another type, two examples of one name, a question
//! without answers are errors that say where. That its images are there is another matter: see [`missing`].

pub mod hateful_memes;
pub mod imagenet;
pub mod jsonl;
pub mod karpathy;
pub mod videos;
pub mod vqa;

mod json;
mod names;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::is_there;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::setters::setters;

/// Most examples of a set; the training half of ImageNet has 1.3 million.
pub const EXAMPLES_MAX: usize = 4 << 20;

/// What a set asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Describe an image.
    Caption,
    /// Answer a question about it.
    Question,
    /// Pick the right one of some names: each is weighed by its likelihood.
    Classify,
}

/// What an example shows.
#[derive(Debug, Clone)]
pub enum Medium {
    /// An image in a file.
    Image(PathBuf),
    /// A video: whatever a prompt takes for one.
    Video(PathBuf),
    /// An image that is there already.
    Drawn(Arc<Image>),
}

/// An image or video with what is asked about it and what people answered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Example {
    /// Names it among those of its set.
    pub id: String,
    /// What it shows.
    pub medium: Medium,
    /// The question; for memes the text in the image; empty where none is asked.
    pub question: String,
    /// What people answered: captions, answers or the name of its class, at least one. The first is the one that is
    /// told when the example is shown.
    pub answers: Vec<String>,
    /// Names to choose from; those of the set if none are given.
    pub choices: Option<Arc<[String]>>,
    /// Only examples of the same group are shown with it.
    pub group: Option<Arc<str>>,
}

setters!(Example { choices: Option<Arc<[String]>>, group: Option<Arc<str>> });

/// Examples of one task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Dataset {
    /// What is asked.
    pub task: Task,
    /// In the order of the file.
    pub examples: Vec<Example>,
    /// Names to choose from, for [`Task::Classify`]; empty for other tasks and where each example has its own.
    pub choices: Arc<[String]>,
}

impl Dataset {
    /// These examples, with no names to choose from.
    pub fn new(task: Task, examples: Vec<Example>) -> Self {
        Dataset { task, examples, choices: Arc::default() }
    }
}

setters!(Dataset { choices: Arc<[String]> });

/// The layouts that sets are published in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Our own lines, of a task or of the one they look like; see [`jsonl`].
    Jsonl(Option<Task>),
    /// COCO's and Flickr30k's captions; see [`karpathy`].
    Karpathy,
    /// Questions and annotations, with images named so; see [`vqa`].
    Vqa(vqa::Naming),
    /// See [`hateful_memes`].
    HatefulMemes,
    /// A folder a class; see [`imagenet`].
    ImageNet,
    /// See [`videos::read_questions`].
    VideoQuestions,
    /// See [`videos::read_captions`].
    VideoCaptions,
}

impl Format {
    /// The files of a set, as one tells a user.
    pub fn files(self) -> &'static str {
        match self {
            Format::Jsonl(_) | Format::HatefulMemes => "FILE.jsonl",
            Format::Karpathy => "dataset_NAME.json",
            Format::Vqa(vqa::Naming::Coco) => "QUESTIONS.json ANNOTATIONS.json",
            Format::Vqa(_) => "QUESTIONS.json ANNOTATIONS.json, or the one FILE.json of its authors",
            Format::ImageNet => "no file, or NAMES.txt, or NAMES.json",
            Format::VideoQuestions => "FILE.json, or FILE.json MAPPING.txt",
            Format::VideoCaptions => "FILE.json",
        }
    }

    /// The splits that are shown and asked unless others are named, if a file of this format holds several.
    pub fn splits(self) -> Option<Splits> {
        (self == Format::Karpathy).then_some(Splits { support: "train", queries: "test" })
    }
}

/// Parts of a file, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Splits {
    /// Examples to show.
    pub support: &'static str,
    /// Examples to ask about.
    pub queries: &'static str,
}

/// Where a set lies.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Source {
    /// What [`Format::files`] says, in this order.
    pub files: Vec<PathBuf>,
    /// The folder of images or videos; if none is given, that of the first file.
    pub media: Option<PathBuf>,
    /// The part that is wanted of a file that holds several.
    pub split: Option<String>,
}

impl Source {
    /// These files, with their media beside the first.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Source { files, ..Source::default() }
    }
}

setters!(Source { media: Option<PathBuf>, split: Option<String> });

impl Source {
    /// The folder that images or videos are in.
    fn folder(&self) -> &Path {
        let folder = self.media.as_deref().or_else(|| self.files.first()?.parent());
        folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

/// Reads a set.
///
/// # Errors
/// Another number of files than the format has; a split where it has none, or none where it has some; whatever is wrong
/// with the files, with the place.
pub fn read(format: Format, source: &Source) -> Result<Dataset> {
    let folder = source.folder();
    match (format.splits(), &source.split) {
        (None, Some(split)) => {
            return Err(Error::argument(format!("split {split:?}: a file of this set holds no parts to choose from")));
        }
        (Some(Splits { support, queries }), None) => {
            let expected = format!("expected the name of a part, such as {support} or {queries}");
            return Err(Error::argument(format!("split: {expected}, found none")));
        }
        _ => {}
    }
    match (format, &source.files[..]) {
        (Format::Jsonl(task), [file]) => jsonl::read(file, folder, task),
        (Format::Karpathy, [file]) => karpathy::read(file, folder, source.split.as_deref().unwrap_or_default()),
        (Format::Vqa(naming), [questions, annotations]) => vqa::read(questions, annotations, folder, naming),
        (Format::Vqa(naming @ (vqa::Naming::Jpeg | vqa::Naming::Whole)), [file]) => {
            vqa::read_native(file, folder, naming)
        }
        (Format::HatefulMemes, [file]) => hateful_memes::read(file, folder, source.media.is_some()),
        (Format::ImageNet, [] | [_]) if source.media.is_none() => {
            Err(Error::argument("media: expected the folder of the classes' folders, found none"))
        }
        (Format::ImageNet, [] | [_]) => imagenet::read(folder, source.files.first().map(PathBuf::as_path)),
        (Format::VideoQuestions, [file]) => videos::read_questions(file, None, folder),
        (Format::VideoQuestions, [file, mapping]) => videos::read_questions(file, Some(mapping), folder),
        (Format::VideoCaptions, [file]) => videos::read_captions(file, folder),
        (_, files) => {
            let found = match files.len() {
                1 => "1 file".to_owned(),
                count => format!("{count} files"),
            };
            Err(Error::argument(format!("files: expected {}, found {found}", format.files())))
        }
    }
}

/// The images and videos of a set that are not there, each once, in order. What is there and cannot be read is an
/// error of its examples.
pub fn missing(dataset: &Dataset) -> Vec<&Path> {
    let mut seen = HashSet::new();
    let media = dataset.examples.iter().filter_map(|example| match &example.medium {
        Medium::Image(path) | Medium::Video(path) => Some(&**path),
        Medium::Drawn(_) => None,
    });
    media.filter(|path| seen.insert(*path) && !is_there(path)).collect()
}

impl Example {
    /// An example of no group and without choices of its own.
    pub fn new(id: String, medium: Medium, question: String, answers: Vec<String>) -> Example {
        Example { id, medium, question, answers, choices: None, group: None }
    }
}

impl Dataset {
    /// The names that an example is to choose from.
    pub fn choices_of<'a>(&'a self, example: &'a Example) -> &'a Arc<[String]> {
        example.choices.as_ref().unwrap_or(&self.choices)
    }

    /// A set that was read from a file, if it holds what every set must.
    fn checked(file: &Path, task: Task, examples: Vec<Example>, choices: Arc<[String]>) -> Result<Dataset> {
        check_count(file, examples.len())?;
        if examples.is_empty() {
            return Err(Error::invalid(file, "examples", "at least 1", "none"));
        }
        let mut seen = HashSet::new();
        if let Some(example) = examples.iter().find(|example| !seen.insert(&example.id)) {
            return Err(Error::invalid(file, "id", "each name once", format!("{:?} again", example.id)));
        }
        if let Some(example) = examples.iter().find(|example| example.answers.is_empty()) {
            let key = format!("answers of {:?}", example.id);
            return Err(Error::invalid(file, key, "at least 1", "none"));
        }
        Ok(Dataset { task, examples, choices })
    }
}

/// Whether a set may hold so many examples.
fn check_count(file: &Path, examples: usize) -> Result<()> {
    if examples <= EXAMPLES_MAX {
        return Ok(());
    }
    Err(Error::limit(format!("{}: examples", file.display()), EXAMPLES_MAX as u64, examples as u64))
}

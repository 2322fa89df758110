//! Questions about images with the answers of ten people: VQAv2 and OK-VQA in their two files, questions and
//! annotations; TextVQA and VizWiz in the same layout, as OpenFlamingo publishes them, or each in the one file of its
//! authors.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::json::{self, Examples, Id, Object};
use super::{Dataset, Example, Medium, Task};
use crate::error::{Error, Result};

/// From an image's `image_id` to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// A number, as in `COCO_val2014_000000000042.jpg`, below a folder `val2014`: VQAv2 and OK-VQA.
    Coco,
    /// A name without its end, `.jpg`: TextVQA.
    Jpeg,
    /// The whole name: VizWiz.
    Whole,
}

#[derive(Deserialize)]
struct Questions {
    /// Such as "val2014".
    data_subtype: Option<String>,
    questions: Examples<Question>,
}

#[derive(Deserialize)]
struct Question {
    question_id: Id,
    image_id: Id,
    question: String,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Examples<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: Id,
    answers: Vec<Object<Answer>>,
}

#[derive(Deserialize)]
struct Answer {
    answer: String,
}

/// Reads questions and their annotations, which are joined by `question_id`.
///
/// COCO's images are of the year and part that the questions' `data_subtype` or else the name of `folder` says. They
/// are in `folder` if that is its name, else in the folder of that name below it.
///
/// # Errors
/// A malformed file; a question without annotation, or the reverse.
pub fn read(questions: &Path, annotations: &Path, folder: &Path, naming: Naming) -> Result<Dataset> {
    let Object(queries): Object<Questions> = json::read(questions)?;
    let Object(annotated): Object<Annotations> = json::read(annotations)?;
    let coco = match naming {
        Naming::Coco => Some(Coco::new(questions, queries.data_subtype.as_deref(), folder)?),
        Naming::Jpeg | Naming::Whole => None,
    };
    let mut answers = HashMap::new();
    for Object(Annotation { question_id, answers: given }) in annotated.annotations.0 {
        match answers.entry(question_id) {
            Entry::Vacant(entry) => entry.insert(given),
            Entry::Occupied(entry) => {
                let found = format!("{} again", entry.key().0);
                return Err(Error::invalid(annotations, "question_id", "each once", found));
            }
        };
    }
    let mut examples = Vec::with_capacity(queries.questions.0.len());
    for Object(Question { question_id, image_id, question }) in queries.questions.0 {
        let path = match (&coco, naming) {
            (Some(coco), _) => coco.path(questions, &image_id)?,
            (None, Naming::Jpeg) => folder.join(format!("{}.jpg", image_id.0)),
            (None, _) => folder.join(image_id.0),
        };
        let given = answers.remove(&question_id).ok_or_else(|| {
            Error::invalid(annotations, "question_id", format!("an annotation of {}", question_id.0), "none")
        })?;
        let answers = given.into_iter().map(|Object(given)| given.answer).collect();
        examples.push(Example::new(question_id.0, Medium::Image(path), question, answers));
    }
    if let Some(Id(id)) = answers.keys().min_by_key(|Id(id)| id) {
        return Err(Error::invalid(questions, "question_id", format!("the annotated question {id}"), "none"));
    }
    Dataset::checked(questions, Task::Question, examples, Arc::default())
}

/// COCO's images of one year and part.
struct Coco {
    /// Such as "val2014".
    part: String,
    folder: PathBuf,
}

impl Coco {
    fn new(questions: &Path, part: Option<&str>, folder: &Path) -> Result<Coco> {
        let name = folder.file_name().and_then(|name| name.to_str());
        let part = part.or(name).unwrap_or_default().to_owned();
        if !["train2014", "val2014"].contains(&&*part) {
            let expected = "train2014 or val2014, here or as the name of the media folder";
            return Err(Error::invalid(questions, "data_subtype", expected, format!("{part:?}")));
        }
        let folder = if name == Some(&part) { folder.to_owned() } else { folder.join(&part) };
        Ok(Coco { part, folder })
    }

    fn path(&self, questions: &Path, Id(image): &Id) -> Result<PathBuf> {
        let number: u64 = image
            .parse()
            .map_err(|_| Error::invalid(questions, "image_id", "a number of COCO", format!("{image:?}")))?;
        Ok(self.folder.join(format!("COCO_{}_{number:012}.jpg", self.part)))
    }
}

#[derive(Deserialize)]
struct TextVqa {
    data: Examples<TextVqaQuestion>,
}

#[derive(Deserialize)]
struct TextVqaQuestion {
    question_id: Id,
    image_id: String,
    question: String,
    #[serde(default)]
    answers: Vec<String>,
}

#[derive(Deserialize)]
struct VizWizQuestion {
    image: String,
    question: String,
    #[serde(default)]
    answers: Vec<Object<Answer>>,
}

/// Reads the one file of TextVQA ([`Naming::Jpeg`]) or of VizWiz ([`Naming::Whole`], a question an image).
///
/// # Errors
/// A malformed file; a question without answers, as those of the hidden test parts.
///
/// # Panics
/// With [`Naming::Coco`], whose sets have two files.
pub fn read_native(file: &Path, folder: &Path, naming: Naming) -> Result<Dataset> {
    let examples = match naming {
        Naming::Jpeg => {
            let questions = json::read::<Object<TextVqa>>(file)?.0.data.0.into_iter();
            let example = |Object(queries): Object<TextVqaQuestion>| {
                let medium = Medium::Image(folder.join(format!("{}.jpg", queries.image_id)));
                Example::new(queries.question_id.0, medium, queries.question, queries.answers)
            };
            questions.map(example).collect()
        }
        Naming::Whole => {
            let questions = json::read::<Examples<VizWizQuestion>>(file)?.0.into_iter();
            let example = |Object(queries): Object<VizWizQuestion>| {
                let answers = queries.answers.into_iter().map(|Object(given)| given.answer).collect();
                let medium = Medium::Image(folder.join(&queries.image));
                Example::new(queries.image, medium, queries.question, answers)
            };
            questions.map(example).collect()
        }
        Naming::Coco => unreachable!("COCO's questions and annotations are two files"),
    };
    Dataset::checked(file, Task::Question, examples, Arc::default())
}

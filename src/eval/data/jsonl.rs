//! Our own format: a file of lines, each a JSON object that is one example. A line that is empty is passed over, a key
//! that is not among these too.
//!
//! | key | value |
//! |---|---|
//! | `image` or `video` | what the example shows: a path, relative to the media folder or else to the file |
//! | `answer` or `answers` | what people answered: a text, or an array of them; the first is told when it is shown |
//! | `question` | what is asked about it, if anything |
//! | `choices` | the names to choose from, at least two; either all lines have them or none |
//! | `id` | its name, a text or a whole number; the number of the line if there is none |
//! | `group` | a text; only examples of the same group are shown with it |
//!
//! ```json
//! {"image": "fox.png", "answers": ["a red fox on a mat", "a fox that sleeps"]}
//! {"image": "fox.png", "question": "What is it lying on?", "answer": "a mat"}
//! {"image": "fox.png", "question": "Is it awake?", "answer": "no", "choices": ["yes", "no"]}
//! {"video": "clips/7.mp4", "id": "7", "answer": "running", "group": "animals"}
//! ```
//!
//! Of what task a file is, its caller says. If nobody says, it is classification where a line has `choices`, else
//! questions where a line has a `question`, else captions. Classification without `choices` is among all answers that
//! the file has, in order of first appearance.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::json::{self, Id};
use super::{Dataset, Example, Medium, Task, check_count};
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Line {
    image: Option<String>,
    video: Option<String>,
    answer: Option<String>,
    answers: Option<Vec<String>>,
    question: Option<String>,
    choices: Option<Vec<String>>,
    id: Option<Id>,
    group: Option<String>,
}

/// Reads a file of a task, or of the one it looks like. Paths in it are relative to `folder`.
///
/// # Errors
/// Whatever is not as said above, with the number of the line.
pub fn read(file: &Path, folder: &Path, task: Option<Task>) -> Result<Dataset> {
    let (mut examples, mut places) = (Vec::<Example>::new(), Vec::new());
    json::read_lines(file, |place, number, line: Line| {
        check_count(file, examples.len() + 1)?;
        let last = examples.last().and_then(|example| example.choices.clone());
        examples.push(example(place, number, line, folder, last)?);
        places.push(number);
        Ok(())
    })?;
    let choose = examples.iter().any(|example| example.choices.is_some());
    let ask = examples.iter().any(|example| !example.question.is_empty());
    let task = task.unwrap_or(match (choose, ask) {
        (true, _) => Task::Classify,
        (false, true) => Task::Question,
        (false, false) => Task::Caption,
    });
    for (example, number) in examples.iter().zip(places) {
        let place = format!("{}: line {number}", file.display());
        if task == Task::Question && example.question.is_empty() {
            return Err(Error::invalid(place, "question", "a question, as other lines have one", "none"));
        }
        if task == Task::Classify && choose && example.choices.is_none() {
            return Err(Error::invalid(place, "choices", "choices, as other lines have some", "none"));
        }
    }
    let choices = if task == Task::Classify && !choose { names(&examples) } else { Arc::default() };
    Dataset::checked(file, task, examples, choices)
}

/// The example of a line. `last` are the choices of the line before, which are kept once if these are the same.
fn example(place: &Path, number: usize, line: Line, folder: &Path, last: Option<Arc<[String]>>) -> Result<Example> {
    let medium = match (line.image, line.video) {
        (Some(image), None) => Medium::Image(folder.join(image)),
        (None, Some(video)) => Medium::Video(folder.join(video)),
        (None, None) => return Err(Error::invalid(place, "image", "an \"image\" or a \"video\"", "none")),
        (Some(_), Some(_)) => return Err(Error::invalid(place, "image", "an \"image\" or a \"video\"", "both")),
    };
    let answers = match (line.answer, line.answers) {
        (Some(answer), None) => vec![answer],
        (None, Some(answers)) if !answers.is_empty() => answers,
        (None, _) => return Err(Error::invalid(place, "answer", "an \"answer\" or \"answers\"", "none")),
        (Some(_), Some(_)) => return Err(Error::invalid(place, "answer", "an \"answer\" or \"answers\"", "both")),
    };
    if let Some(choices) = &line.choices {
        if choices.len() < 2 {
            return Err(Error::invalid(place, "choices", "at least 2", choices.len()));
        }
        if choices.iter().any(String::is_empty) {
            return Err(Error::invalid(place, "choices", "names", "an empty one"));
        }
        let mut seen = HashSet::new();
        if let Some(choice) = choices.iter().find(|choice| !seen.insert(*choice)) {
            return Err(Error::invalid(place, "choices", "each name once", format!("{choice:?} again")));
        }
        if let Some(answer) = answers.iter().find(|answer| !seen.contains(answer)) {
            return Err(Error::invalid(place, "answer", "one of the choices", format!("{answer:?}")));
        }
    }
    let choices = line.choices.map(|choices| match last {
        Some(last) if *last == *choices => last,
        _ => choices.into(),
    });
    Ok(Example {
        id: line.id.map_or_else(|| number.to_string(), |Id(id)| id),
        medium,
        question: line.question.unwrap_or_default(),
        answers,
        choices,
        group: line.group.map(Arc::from),
    })
}

/// All answers, each once.
fn names(examples: &[Example]) -> Arc<[String]> {
    let mut seen = HashSet::new();
    examples.iter().flat_map(|example| &example.answers).filter(|answer| seen.insert(*answer)).cloned().collect()
}

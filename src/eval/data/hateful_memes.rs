//! Hateful Memes (Kiela et al. 2020): lines of `{"id": 42953, "img": "img/42953.png", "label": 0, "text": "..."}`. The
//! text on the image is what is asked about; the classes are "no" and "yes", in this order.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::json::{self, Id};
use super::{Dataset, Example, Medium, Task, check_count};
use crate::error::{Error, Result};

/// What an example's label says: not hateful, hateful.
pub const CLASSES: [&str; 2] = ["no", "yes"];

#[derive(Deserialize)]
struct Line {
    id: Id,
    img: String,
    label: Option<u64>,
    text: String,
}

/// Reads a file of lines. Images are where `img` says, relative to `folder`; or, `flat`, in `folder` itself.
///
/// # Errors
/// A malformed line; one without label, as those of the hidden test part.
pub fn read(file: &Path, folder: &Path, flat: bool) -> Result<Dataset> {
    let mut examples = Vec::new();
    json::read_lines(file, |place, _, line: Line| {
        check_count(file, examples.len() + 1)?;
        let class = match line.label {
            Some(label @ (0 | 1)) => CLASSES[label as usize],
            Some(other) => return Err(Error::invalid(place, "label", "0 or 1", other)),
            None => return Err(Error::invalid(place, "label", "0 or 1", "none")),
        };
        let path = match line.img.rsplit_once('/') {
            Some((_, name)) if flat => folder.join(name),
            _ => folder.join(line.img),
        };
        examples.push(Example::new(line.id.0, Medium::Image(path), line.text, vec![class.to_owned()]));
        Ok(())
    })?;
    Dataset::checked(file, Task::Classify, examples, Arc::new(CLASSES.map(str::to_owned)))
}

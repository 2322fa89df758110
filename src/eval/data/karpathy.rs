//! COCO and Flickr30k as Karpathy and Fei-Fei 2015 split them: `dataset_coco.json`, `dataset_flickr30k.json`. Parts are
//! `train`, `val` and `test`, and of COCO `restval`; OpenFlamingo shows examples of `train` and asks about `test`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::json::{self, Examples, Id, Object};
use super::{Dataset, Example, Medium, Task};
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct File {
    images: Examples<Image>,
}

#[derive(Deserialize)]
struct Image {
    /// A folder within the media folder; Flickr30k has none.
    filepath: Option<String>,
    filename: String,
    split: String,
    sentences: Vec<Object<Sentence>>,
    cocoid: Option<Id>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

/// Reads one part. Images are found as the file names them: COCO's in folders `train2014` and `val2014` of `folder`,
/// Flickr30k's in `folder` itself. Captions are without the spaces around them.
///
/// # Errors
/// A malformed file; a part that it does not have.
pub fn read(file: &Path, folder: &Path, split: &str) -> Result<Dataset> {
    let Object(File { images: Examples(images) }) = json::read(file)?;
    if !images.iter().any(|Object(image)| image.split == split) {
        let splits: BTreeSet<&str> = images.iter().map(|Object(image)| &*image.split).collect();
        let splits: Vec<&str> = splits.into_iter().collect();
        let expected = if splits.is_empty() { "images".to_owned() } else { splits.join(", ") };
        return Err(Error::invalid(file, "split", expected, format!("{split:?}")));
    }
    let images = images.into_iter().map(|Object(image)| image).filter(|image| image.split == split);
    let examples = images.map(|image| {
        let path = folder.join(image.filepath.unwrap_or_default()).join(&image.filename);
        let stem = image.filename.split('.').next().unwrap_or_default();
        let id = image.cocoid.map_or_else(|| stem.to_owned(), |Id(id)| id);
        let captions = image.sentences.iter().map(|Object(sentence)| sentence.raw.trim().to_owned()).collect();
        Example::new(id, Medium::Image(path), String::new(), captions)
    });
    Dataset::checked(file, Task::Caption, examples.collect(), Arc::default())
}

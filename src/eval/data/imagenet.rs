//! Classes as folders of images: `n01440764/n01440764_10026.JPEG`, as ImageNet's parts are unpacked. A file may name
//! the classes; else the folders' own names do, with spaces for underscores.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::{Dataset, Example, Medium, Task, check_count, json, names};
use crate::error::{Error, Result};

/// Ends of the files that are images; others are passed over.
const ENDS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// Reads a folder of classes. Classes and images are in order of their files' names.
///
/// `names_file` has a line a class, `n01440764 tench, Tinca tinca`, of which the first name counts (as in
/// `LOC_synset_mapping.txt`), or is a `.json` file of one object, `{"n01440764": "tench", ...}`, whose names are taken
/// as they stand. All that it names can be chosen, in order of the folders, whether there are images of it or not.
/// Classes of one name, such as ImageNet's two cranes, count as one.
///
/// # Errors
/// A malformed file of names; a class that it does not name; a class without images.
pub fn read(folder: &Path, names_file: Option<&Path>) -> Result<Dataset> {
    let classes = entries(folder, fs::FileType::is_dir)?;
    let named = match names_file {
        Some(file) if file.extension().is_some_and(|end| end == "json") => json::read_names(file)?,
        Some(file) => names::read(file, "a folder and a name", |line| {
            let (class, names) = line.split_once(char::is_whitespace)?;
            Some((class, names.split_once(',').map_or(names, |(first, _)| first).trim()))
        })?,
        None => classes.iter().map(|class| (class.clone(), class.replace('_', " "))).collect(),
    };
    let mut seen = HashSet::new();
    let choices = named.values().filter(|&name| seen.insert(name)).cloned().collect();
    let mut examples = Vec::new();
    for class in classes {
        let name = named
            .get(&class)
            .ok_or_else(|| Error::invalid(names_file.unwrap_or(folder), &class, "a name for this folder", "none"))?;
        let folder = folder.join(&class);
        let mut images = entries(&folder, fs::FileType::is_file)?;
        images.retain(|file| {
            let end = Path::new(file).extension().and_then(|end| end.to_str()).unwrap_or_default();
            ENDS.contains(&&*end.to_ascii_lowercase())
        });
        if images.is_empty() {
            return Err(Error::invalid(&folder, "images", format!("at least 1 of {}", ENDS.join(", ")), "none"));
        }
        examples.extend(images.into_iter().map(|file| {
            let (id, medium) = (format!("{class}/{file}"), Medium::Image(folder.join(file)));
            Example::new(id, medium, String::new(), vec![name.clone()])
        }));
    }
    Dataset::checked(folder, Task::Classify, examples, choices)
}

/// What lies in a folder, of a type or a link to it, in order; hidden files are passed over.
fn entries(folder: &Path, of_type: impl Fn(&fs::FileType) -> bool) -> Result<Vec<String>> {
    let failed = |reason| Error::file(folder, reason);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let mut file_type = entry.file_type().map_err(failed)?;
        if file_type.is_symlink() {
            file_type = fs::metadata(entry.path()).map_err(|reason| Error::file(entry.path(), reason))?.file_type();
        }
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| Error::invalid(folder, "name", "UTF-8", format!("{name:?}")))?;
        if of_type(&file_type) && !name.starts_with('.') {
            check_count(folder, names.len() + 1)?;
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

//! Classes as folders of pictures: `n01440764/n01440764_10026.JPEG`, as ImageNet's parts are unpacked. A file may name
//! the classes; else the folders' own names do, with spaces for underscores.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Dataset, Example, Medium, Task, check_count, json};
use crate::checkpoint::read_bounded;
use crate::error::{Error, Result};

/// Ends of the files that are pictures; others are passed over.
const ENDS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// Largest file of names; that of all 21,841 classes has 1 MB.
const NAMES_BYTES_MAX: u64 = 16 << 20;

/// Reads a folder of classes. Classes and pictures are in order of their files' names.
///
/// `names` has a line a class, `n01440764 tench, Tinca tinca`, of which the first name counts (`LOC_synset_mapping.txt`),
/// or is a JSON object, `{"n01440764": "tench", ...}`, whose names are taken as they stand. All that it names can be
/// chosen, in order of the folders, whether there are pictures of it or not. Classes of one name, such as ImageNet's two
/// cranes, count as one.
///
/// # Errors
/// A malformed file of names; a class that it does not name; a class without pictures.
pub fn read(folder: &Path, names: Option<&PathBuf>) -> Result<Dataset> {
    let classes = entries(folder, fs::FileType::is_dir)?;
    let named = match names {
        Some(file) => read_names(file)?,
        None => classes.iter().map(|class| (class.clone(), class.replace('_', " "))).collect(),
    };
    let mut seen = HashSet::new();
    let choices = named.values().filter(|&name| seen.insert(name)).cloned().collect();
    let mut examples = Vec::new();
    for class in classes {
        let name = named.get(&class).ok_or_else(|| {
            Error::invalid(names.map_or(folder, |file| file), &class, "a name for this folder", "none")
        })?;
        let folder = folder.join(&class);
        let mut pictures = entries(&folder, fs::FileType::is_file)?;
        pictures.retain(|file| {
            let end = Path::new(file).extension().and_then(|end| end.to_str()).unwrap_or_default();
            ENDS.contains(&&*end.to_ascii_lowercase())
        });
        if pictures.is_empty() {
            return Err(Error::invalid(&folder, "pictures", format!("at least 1 of {}", ENDS.join(", ")), "none"));
        }
        examples.extend(pictures.into_iter().map(|file| Example {
            id: format!("{class}/{file}"),
            medium: Medium::Picture(folder.join(file)),
            question: String::new(),
            answers: vec![name.clone()],
            choices: None,
            group: None,
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

/// Folders and their classes' names.
fn read_names(file: &Path) -> Result<BTreeMap<String, String>> {
    let bytes = read_bounded(file, NAMES_BYTES_MAX)?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        return json::read(file);
    }
    let text = String::from_utf8(bytes).map_err(|reason| Error::invalid(file, "text", "UTF-8", reason))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let (class, names) = line.trim().split_once(char::is_whitespace).ok_or_else(|| {
                let key = format!("line {}", index + 1);
                Error::invalid(file, key, "a folder and a name", format!("{line:?}"))
            })?;
            let (first, _) = names.split_once(',').unwrap_or((names, ""));
            Ok((class.to_owned(), first.trim().to_owned()))
        })
        .collect()
}

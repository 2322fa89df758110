//! Sets of videos: the questions of MSVD-QA and MSRVTT-QA (Xu et al. 2017), and captions in VATEX's layout (Wang et al.
//! 2019).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::json::{self, Examples, Id, Object};
use super::{Dataset, Example, Medium, Task, check_count, names};
use crate::error::{Error, Result};

/// Ends of videos' files. Where a video is there more than once, the first of these is taken, then a folder of frames.
const ENDS: [&str; 5] = ["mp4", "avi", "mkv", "webm", "gif"];

#[derive(Deserialize)]
struct Question {
    id: Id,
    question: String,
    answer: String,
    video_id: Id,
}

/// Reads `[{"id": 0, "question": "...", "answer": "...", "video_id": 1301}, ...]`.
///
/// The video is `video1301`, `vid1301` or `1301` in `folder`, with one of the usual ends, or a folder of frames. Videos
/// that are called otherwise have a `mapping`, the file of lines `-4wsuPCjDBc_5_15 vid1` that comes with MSVD.
///
/// # Errors
/// A malformed file; a video that the mapping does not name.
pub fn read_questions(file: &Path, mapping: Option<&Path>, folder: &Path) -> Result<Dataset> {
    let Examples(questions): Examples<Question> = json::read(file)?;
    let names = mapping.map(|mapping| names::read(mapping, "a file's name and a video's", by_video)).transpose()?;
    let videos = Videos::list(folder)?;
    let mut examples = Vec::with_capacity(questions.len());
    for Object(Question { id: Id(id), question, answer, video_id: Id(video) }) in questions {
        let path = match (&names, mapping) {
            (Some(names), Some(mapping)) => {
                let video = format!("vid{video}");
                let unnamed = || Error::invalid(mapping, &video, "the name of this video", "none");
                videos.find(&[names.get(&video).ok_or_else(unnamed)?])
            }
            _ => videos.find(&[&format!("video{video}"), &format!("vid{video}"), &video]),
        };
        examples.push(Example::new(id, Medium::Video(path), question, vec![answer]));
    }
    Dataset::checked(file, Task::Question, examples, Arc::default())
}

/// A line of a mapping: the video, and the name of its file without the end.
fn by_video(line: &str) -> Option<(&str, &str)> {
    let (name, video) = line.split_once(char::is_whitespace)?;
    Some((video.trim_start(), name))
}

#[derive(Deserialize)]
struct Captions {
    #[serde(rename = "videoID")]
    video: String,
    #[serde(rename = "enCap")]
    english: Vec<String>,
}

/// Reads `[{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["...", ...]}, ...]`.
///
/// The video is of that name in `folder`, with one of the usual ends, or a folder of frames. Captions are without the
/// spaces around them.
///
/// # Errors
/// A malformed file.
pub fn read_captions(file: &Path, folder: &Path) -> Result<Dataset> {
    let Examples(captions): Examples<Captions> = json::read(file)?;
    let videos = Videos::list(folder)?;
    let example = |Object(captions): Object<Captions>| {
        let medium = Medium::Video(videos.find(&[&captions.video]));
        let english = captions.english.iter().map(|caption| caption.trim().to_owned()).collect();
        Example::new(captions.video, medium, String::new(), english)
    };
    let examples = captions.into_iter().map(example).collect();
    Dataset::checked(file, Task::Caption, examples, Arc::default())
}

/// The videos of a folder, listed once.
struct Videos<'a> {
    folder: &'a Path,
    /// What there is of each name: how good it is, and the file.
    files: HashMap<String, (usize, OsString)>,
}

impl Videos<'_> {
    fn list(folder: &Path) -> Result<Videos<'_>> {
        let failed = |reason| Error::file(folder, reason);
        let mut files = HashMap::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let file = entry.map_err(failed)?.file_name();
            let path = Path::new(&file);
            let end = path.extension().and_then(|end| end.to_str()).map(str::to_ascii_lowercase);
            let known = ENDS.iter().position(|known| end.as_deref() == Some(known));
            // A folder of frames has no end, or a dot in its name.
            let stem = if known.is_some() { path.file_stem() } else { path.file_name() };
            let Some(stem) = stem.and_then(|stem| stem.to_str()) else { continue };
            check_count(folder, files.len() + 1)?;
            let found = (known.unwrap_or(ENDS.len()), file.clone());
            let best = files.entry(stem.to_owned()).or_insert_with(|| found.clone());
            *best = found.min(best.clone());
        }
        Ok(Videos { folder, files })
    }

    /// The file of the first name that there is one of, or else what one would call the file of the first.
    fn find(&self, names: &[&str]) -> PathBuf {
        let found = names.iter().find_map(|&name| self.files.get(name));
        self.folder.join(found.map_or_else(|| format!("{}.mp4", names[0]).into(), |(_, file)| file.clone()))
    }
}

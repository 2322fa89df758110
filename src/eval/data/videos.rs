//! Sets of videos: the questions of MSVD-QA and MSRVTT-QA (Xu et al. 2017), and captions in VATEX's layout (Wang et al.
//! 2019).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::json::{self, Id};
use super::{Dataset, Example, Medium, Task, check_count};
use crate::checkpoint::read_bounded;
use crate::error::{Error, Result};

/// Ends of videos' files. Where a video is there more than once, the first of these is taken, then a folder of frames.
const ENDS: [&str; 5] = ["mp4", "avi", "mkv", "webm", "gif"];

/// Largest file of videos' names; MSVD's has 60 kB.
const MAPPING_BYTES_MAX: u64 = 16 << 20;

#[derive(Deserialize)]
struct Question {
    id: Id,
    question: String,
    answer: String,
    video_id: Id,
}

/// Reads `[{"id": 0, "question": "...", "answer": "...", "video_id": 1301}, ...]`.
///
/// The video is `video1301`, `vid1301` or `1301` in `folder`, with one of the usual ends, or a folder of frames. `mapping`
/// is the file that comes with MSVD, of lines `-4wsuPCjDBc_5_15 vid1`: names of videos that are called otherwise.
///
/// # Errors
/// A malformed file; a video that the mapping does not name.
pub fn read_questions(file: &Path, mapping: Option<&PathBuf>, folder: &Path) -> Result<Dataset> {
    let questions: Vec<Question> = json::read(file)?;
    let mapping = mapping.map(|mapping| Ok((mapping, read_mapping(mapping)?))).transpose()?;
    let videos = Videos::list(folder)?;
    let mut examples = Vec::with_capacity(questions.len());
    for Question { id: Id(id), question, answer, video_id: Id(video) } in questions {
        let path = match &mapping {
            Some((mapping, names)) => {
                let name = names
                    .get(&format!("vid{video}"))
                    .ok_or_else(|| Error::invalid(mapping, format!("vid{video}"), "the name of this video", "none"))?;
                videos.find(&[name])
            }
            None => videos.find(&[&format!("video{video}"), &format!("vid{video}"), &video]),
        };
        let (medium, answers) = (Medium::Video(path), vec![answer]);
        examples.push(Example { id, medium, question, answers, choices: None, group: None });
    }
    Dataset::checked(file, Task::Question, examples, Arc::default())
}

#[derive(Deserialize)]
struct Captions {
    #[serde(rename = "videoID")]
    video: String,
    #[serde(rename = "enCap")]
    english: Vec<String>,
}

/// Reads `[{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["...", ...]}, ...]`. The video is of that name in `folder`,
/// with one of the usual ends, or a folder of frames. Captions are without the spaces around them.
///
/// # Errors
/// A malformed file.
pub fn read_captions(file: &Path, folder: &Path) -> Result<Dataset> {
    let captions: Vec<Captions> = json::read(file)?;
    let videos = Videos::list(folder)?;
    let example = |captions: Captions| Example {
        medium: Medium::Video(videos.find(&[&captions.video])),
        id: captions.video,
        question: String::new(),
        answers: captions.english.iter().map(|caption| caption.trim().to_owned()).collect(),
        choices: None,
        group: None,
    };
    let examples = captions.into_iter().map(example).collect();
    Dataset::checked(file, Task::Caption, examples, Arc::default())
}

/// From names such as "vid1" to those of the files, without their ends.
fn read_mapping(file: &Path) -> Result<HashMap<String, String>> {
    let bytes = read_bounded(file, MAPPING_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|reason| Error::invalid(file, "text", "UTF-8", reason))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name, video] => Ok((video.to_owned(), name.to_owned())),
            _ => {
                let key = format!("line {}", index + 1);
                Err(Error::invalid(file, key, "two names", format!("{line:?}")))
            }
        })
        .collect()
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

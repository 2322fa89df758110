//! Pictures and videos of a set, as prompts take them. They are kept at the encoder's size, at which a second resizing
//! changes nothing: an example is shown many times, and reading it costs more than all that follows.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flamant::eval::data::Medium;
use flamant::image::Picture;
use flamant::video::{FrameSampling, Video};
use flamant::{Error, Prompt, Reader};

/// Bytes of frames that are kept.
const KEPT_BYTES: usize = 512 << 20;

/// Where pictures come from.
pub struct Media {
    reader: Reader,
    sampling: FrameSampling,
    kept: Mutex<Kept>,
    /// What could not be read and is therefore never shown.
    unreadable: Mutex<HashSet<PathBuf>>,
}

/// What was read lately. What has not been asked for since half of the bytes were filled is let go.
#[derive(Default)]
struct Kept {
    young: HashMap<PathBuf, Arc<[Picture]>>,
    old: HashMap<PathBuf, Arc<[Picture]>>,
    young_bytes: usize,
}

impl Kept {
    fn find(&mut self, path: &Path) -> Option<Arc<[Picture]>> {
        if let Some(frames) = self.young.get(path) {
            return Some(frames.clone());
        }
        let frames = self.old.remove(path)?;
        self.keep(path, frames.clone());
        Some(frames)
    }

    fn keep(&mut self, path: &Path, frames: Arc<[Picture]>) {
        self.young_bytes += frames.iter().map(|frame| frame.pixels().len()).sum::<usize>();
        self.young.insert(path.to_owned(), frames);
        if self.young_bytes > KEPT_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

impl Media {
    pub fn new(reader: Reader, sampling: FrameSampling) -> Media {
        Media { reader, sampling, kept: Mutex::default(), unreadable: Mutex::default() }
    }

    /// Which frames of videos are read.
    pub fn sampling(&self) -> FrameSampling {
        self.sampling
    }

    /// Adds a picture or video to a prompt.
    ///
    /// # Errors
    /// A file that is not there or not readable; a prompt that passes its limits.
    pub fn add(&self, prompt: &mut Prompt, medium: &Medium) -> Result<(), Error> {
        let frames = self.frames(medium)?;
        match medium {
            Medium::Video(_) => prompt.video(Video::new(frames.to_vec())?)?,
            Medium::Picture(_) | Medium::Drawn(_) => prompt.image(frames[0].clone())?,
        };
        Ok(())
    }

    /// The frames of a medium at the encoder's size; a picture is one.
    pub fn frames(&self, medium: &Medium) -> Result<Arc<[Picture]>, Error> {
        let (Medium::Picture(path) | Medium::Video(path)) = medium else { return self.resized(&self.read(medium)?) };
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frames) = kept().find(path) {
            return Ok(frames);
        }
        let frames = self.resized(&self.read(medium)?)?;
        kept().keep(path, frames.clone());
        Ok(frames)
    }

    /// Whether an example of this medium can be shown. Standard error tells of each that cannot, once.
    pub fn can_show(&self, medium: &Medium) -> bool {
        let (Medium::Picture(path) | Medium::Video(path)) = medium else { return true };
        let unreadable = || self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if unreadable().contains(path) {
            return false;
        }
        let Err(error) = self.frames(medium) else { return true };
        if unreadable().insert(path.clone()) {
            eprintln!("flamant: {error}; it is never shown");
        }
        false
    }

    /// The frames as they are.
    pub fn read(&self, medium: &Medium) -> Result<Vec<Picture>, Error> {
        let mut prompt = Prompt::new();
        match medium {
            Medium::Picture(path) => prompt.image_file(path)?,
            Medium::Video(path) => prompt.video_file(path, &self.sampling)?,
            Medium::Drawn(picture) => return Ok(vec![(**picture).clone()]),
        };
        let mut media = prompt.media();
        Ok(media.next().map(<[Picture]>::to_vec).unwrap_or_default())
    }

    fn resized(&self, frames: &[Picture]) -> Result<Arc<[Picture]>, Error> {
        let side = self.reader.config().vision.image_size as u32;
        let preprocessor = self.reader.preprocessor();
        frames.iter().map(|frame| Picture::from_rgb(side, side, preprocessor.rgb(frame))).collect()
    }
}

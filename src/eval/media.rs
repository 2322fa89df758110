//! Images and videos of a set, as prompts take them. They are kept at the encoder's size, at which a second resizing
//! changes nothing: an example is shown many times, and reading it costs more than all that follows. Images that are
//! cut into tiles are kept as they are, since their size decides how.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::data::Medium;
use super::progress::{Observer, Progress};
use crate::engine::Preparer;
use crate::error::{Error, Result};
use crate::image::{Crop, Image};
use crate::prompt::{Prompt, PromptLimits};
use crate::video::{FrameSampling, Video};

/// Bytes of frames that are kept.
const KEPT_BYTES: usize = 512 << 20;

/// Where images come from.
pub struct Media {
    preparer: Preparer,
    sampling: FrameSampling,
    limits: PromptLimits,
    kept: Mutex<Kept>,
    /// What could not be read and is therefore never shown.
    unreadable: Mutex<HashSet<PathBuf>>,
    /// Whether a note of an image has been told.
    noted: AtomicBool,
    observer: Observer,
}

/// What was read lately. What has not been asked for since half of the bytes were filled is let go.
#[derive(Default)]
struct Kept {
    young: HashMap<PathBuf, Arc<[Image]>>,
    old: HashMap<PathBuf, Arc<[Image]>>,
    young_bytes: usize,
}

impl Kept {
    fn find(&mut self, path: &Path) -> Option<Arc<[Image]>> {
        if let Some(frames) = self.young.get(path) {
            return Some(frames.clone());
        }
        let frames = self.old.remove(path)?;
        self.keep(path, frames.clone());
        Some(frames)
    }

    fn keep(&mut self, path: &Path, frames: Arc<[Image]>) {
        self.young_bytes += frames.iter().map(|frame| frame.pixels().len()).sum::<usize>();
        self.young.insert(path.to_owned(), frames);
        if self.young_bytes > KEPT_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

impl Media {
    pub fn new(preparer: Preparer, sampling: FrameSampling, limits: PromptLimits, observer: Observer) -> Media {
        let (kept, unreadable, noted) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Media { preparer, sampling, limits, kept, unreadable, noted, observer }
    }

    /// Which frames of videos are read.
    pub fn sampling(&self) -> FrameSampling {
        self.sampling
    }

    /// Adds an image or video to a prompt.
    ///
    /// # Errors
    /// A file that is not there or not readable; a prompt that passes its limits.
    pub fn add(&self, prompt: &mut Prompt, medium: &Medium) -> Result<()> {
        let frames = self.frames(medium)?;
        match medium {
            Medium::Video(_) => prompt.video(Video::new(frames.to_vec())?)?,
            Medium::Image(_) | Medium::Drawn(_) => prompt.image(frames[0].clone())?,
        };
        Ok(())
    }

    /// The frames of a medium at the size at which they are kept; an image is one.
    pub fn frames(&self, medium: &Medium) -> Result<Arc<[Image]>> {
        let (Medium::Image(path) | Medium::Video(path)) = medium else { return self.resized(&self.read(medium)?) };
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frames) = kept().find(path) {
            return Ok(frames);
        }
        let frames = self.resized(&self.read(medium)?)?;
        kept().keep(path, frames.clone());
        Ok(frames)
    }

    /// Whether an example of this medium can be shown. The observer is told of each that cannot, once.
    pub fn can_show(&self, medium: &Medium) -> bool {
        let (Medium::Image(path) | Medium::Video(path)) = medium else { return true };
        let unreadable = || self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if unreadable().contains(path) {
            return false;
        }
        let Err(error) = self.frames(medium) else { return true };
        if unreadable().insert(path.clone()) {
            (self.observer)(Progress::Note(&format!("{error}; it is never shown")));
        }
        false
    }

    /// The frames as they are.
    pub fn read(&self, medium: &Medium) -> Result<Vec<Image>> {
        let mut prompt = Prompt::with_limits(self.limits.clone());
        match medium {
            Medium::Image(path) => prompt.image_file(path)?,
            Medium::Video(path) => prompt.video_file(path, &self.sampling)?,
            Medium::Drawn(image) => return Ok(vec![(**image).clone()]),
        };
        // Of a set of such images one line says enough.
        if let Some(note) = prompt.notes().first()
            && !self.noted.swap(true, Ordering::Relaxed)
        {
            (self.observer)(Progress::Note(&format!("{note} (this is told of the first such image alone)")));
        }
        let mut media = prompt.media();
        Ok(media.next().map(<[Image]>::to_vec).unwrap_or_default())
    }

    fn resized(&self, frames: &[Image]) -> Result<Arc<[Image]>> {
        let side = self.preparer.config().vision.image_size as u32;
        let preprocessor = self.preparer.preprocessor();
        if matches!(preprocessor.crop, Crop::Tiles { .. }) {
            return Ok(frames.into());
        }
        let resize = || frames.iter().map(|frame| Image::from_rgb(side, side, preprocessor.rgb(frame))).collect();
        Error::catch("preparing images", resize)
    }
}

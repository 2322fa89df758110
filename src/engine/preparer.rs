//! Prepares requests: renders prompts, brings images to the encoder's size, checks what can be checked. Any thread
//! may do so while another runs the engine.

use std::collections::HashMap;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use blake3::Hash;
use serde_json::{Map, Value};

use super::request::{Request, Task as Asked, check_top_logprobs};
use super::scheduler::{PromptImage, Salt, SequenceKind, Tokens, hasher};
use super::tasks::{Classifying, Scoring, Searching, Surroundings, Task, Writing};
use crate::backend::Tiling;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::image::{Frames, Image, Preprocessor};
use crate::prompt::Prompt;
use crate::tokenizer::Tokenizer;

#[cfg(test)]
thread_local! {
    static PANICS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Lets preparation panic on this thread in the course of `work`.
#[cfg(test)]
pub(crate) fn panicking<T>(work: impl FnOnce() -> T) -> T {
    PANICS.set(true);
    let found = work();
    PANICS.set(false);
    found
}

/// Choices offered together, and bytes of all.
const CHOICES_MAX: usize = 1 << 16;
const CHOICE_BYTES_MAX: usize = 1 << 20;
/// Bytes of resized images that are kept for when they are seen again; an image of 224 by 224 has 150 kB.
const IMAGES_KEPT_BYTES: usize = 64 << 20;

/// Tokens that end an answer and tokens that are never written; settings of the folder.
pub(super) type Special = ([Vec<u32>; 2], Map<String, Value>);

/// What an open model has besides its device. Clones are one.
#[derive(Clone)]
pub struct Preparer {
    inner: Arc<Inner>,
}

struct Inner {
    config: ModelConfig,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    checkpoint: Arc<Checkpoint>,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    /// Tokens that are never written, ascending.
    suppressed: Vec<u32>,
    /// What the folder would have requests say, if they say nothing.
    defaults: Map<String, Value>,
    context_max: usize,
    /// Media pages of the device.
    media_pages: usize,
    kept: Mutex<Kept>,
}

/// An image or video as the device wants it: 8 bits until it is cut into patches.
pub(super) struct Pixels {
    /// What was in the image, whatever its size.
    pub content: Hash,
    /// (frames that are there, side, side, 3), 8 bits.
    pub rgb: Vec<u8>,
    /// How many the model takes, at least one.
    count: usize,
    /// How they are tiles of the image; those that `count` has more are absent.
    tiling: Option<Tiling>,
    /// Rows of keys and values that the model makes of them.
    rows: usize,
}

impl Pixels {
    /// So many frames, one after the other, of which the model makes `rows` rows of keys and values.
    pub fn new(content: Hash, rgb: Vec<u8>, count: usize, rows: usize) -> Pixels {
        Pixels { content, rgb, count, tiling: None, rows }
    }

    /// An image of such tiles for a model with room for `most`, which makes `rows` rows of each.
    fn of_tiles(content: Hash, rgb: Vec<u8>, tiling: Tiling, most: usize, rows: usize) -> Pixels {
        Pixels { content, rgb, count: most, tiling: Some(tiling), rows: tiling.tiles as usize * rows }
    }

    /// Bytes of its frames.
    pub fn bytes(&self) -> u64 {
        self.rgb.len() as u64
    }

    /// How many frames the model takes.
    pub fn frame_count(&self) -> usize {
        self.count
    }

    /// How they are tiles of an image, if they are.
    pub fn tiling(&self) -> Tiling {
        self.tiling.unwrap_or_default()
    }

    /// Each frame: (side, side, 3), or nothing for a tile that is absent.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let there = self.tiling.map_or(self.count, |tiling| tiling.tiles as usize);
        self.rgb.chunks_exact(self.rgb.len() / there).chain(iter::repeat_n(&[][..], self.count - there))
    }
}

/// Images resized lately. What has not been asked for since half of the bytes were filled is let go.
#[derive(Default)]
struct Kept {
    young: HashMap<Hash, Arc<Pixels>>,
    old: HashMap<Hash, Arc<Pixels>>,
    young_bytes: usize,
}

impl Kept {
    fn find(&mut self, content: &Hash) -> Option<Arc<Pixels>> {
        if let Some(pixels) = self.young.get(content) {
            return Some(pixels.clone());
        }
        let pixels = self.old.remove(content)?;
        self.keep(pixels.clone());
        Some(pixels)
    }

    fn keep(&mut self, pixels: Arc<Pixels>) {
        self.young_bytes += pixels.rgb.len();
        self.young.insert(pixels.content, pixels);
        if self.young_bytes > IMAGES_KEPT_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

/// A request that an engine of the same model can run.
pub struct PreparedRequest {
    pub(super) prompt: Tokens,
    pub(super) pixels: Vec<Arc<Pixels>>,
    pub(super) task: Task,
    pub(super) kind: SequenceKind,
    /// The first position whose logits are wanted.
    pub(super) wanted: usize,
    /// Most tokens that a sequence of it will have.
    pub(super) max_new_tokens: usize,
    /// Of which model.
    pub(super) preparer: Preparer,
}

impl PreparedRequest {
    /// Tokens of its prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.ids.len()
    }
}

impl Preparer {
    pub(super) fn new(
        config: ModelConfig,
        tokenizer: Tokenizer,
        preprocessor: Preprocessor,
        checkpoint: Arc<Checkpoint>,
        ([ends, suppressed], defaults): Special,
        context_max: usize,
        media_pages: usize,
    ) -> Self {
        let kept = Mutex::default();
        let inner = Inner {
            config,
            tokenizer,
            preprocessor,
            checkpoint,
            ends,
            suppressed,
            defaults,
            context_max,
            media_pages,
            kept,
        };
        Preparer { inner: Arc::new(inner) }
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.inner.config
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// What its images go through.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.inner.preprocessor
    }

    /// Its files.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.inner.checkpoint
    }

    /// Most tokens of a sequence, prompt and answer.
    pub fn context_max(&self) -> usize {
        self.inner.context_max
    }

    /// Settings of `generation_config.json` that requests make for themselves; none of them is applied here.
    pub fn defaults(&self) -> &Map<String, Value> {
        &self.inner.defaults
    }

    pub(super) fn surroundings(&self) -> Surroundings<'_> {
        let Inner { tokenizer, ends, suppressed, .. } = &*self.inner;
        Surroundings { tokenizer, ends, suppressed }
    }

    /// Whether both are of one model.
    pub(super) fn is_same(&self, other: &Preparer) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Renders the prompt, resizes its images, and checks the task.
    ///
    /// # Errors
    /// A prompt that cannot be rendered or does not fit the context; images of which one token sees more
    /// than there are media pages for; settings out of range; choices that are missing, empty, too long or hold an
    /// image marker.
    pub fn prepare(&self, request: Request) -> Result<PreparedRequest> {
        self.prepare_parts(&request.prompt, request.task, request.salt)
    }

    /// As [`Preparer::prepare`], of a prompt that stays the caller's.
    pub(crate) fn prepare_task(&self, prompt: &Prompt, task: Asked) -> Result<PreparedRequest> {
        self.prepare_parts(prompt, task, None)
    }

    fn prepare_parts(&self, prompt: &Prompt, task: Asked, salt: Option<Salt>) -> Result<PreparedRequest> {
        Error::catch("preparing a request", || self.read(prompt, task, salt))
    }

    fn read(&self, prompt: &Prompt, task: Asked, salt: Option<Salt>) -> Result<PreparedRequest> {
        #[cfg(test)]
        assert!(!PANICS.get(), "on purpose");
        match &task {
            Asked::Generate(generation) => generation.check()?,
            Asked::Score { top_logprobs, .. } => check_top_logprobs(*top_logprobs)?,
            Asked::Classify { .. } => {}
        }
        let rendered = prompt.render(self.tokenizer())?;
        self.check_length(rendered.ids.len())?;
        let length = rendered.ids.len();
        let around = self.surroundings();
        let (task, kind, wanted, max_new_tokens) = match task {
            Asked::Generate(generation) => {
                let max_new_tokens = generation.max_new_tokens.min(self.context_max() - length);
                let most = length + max_new_tokens;
                match generation.num_beams {
                    1 => {
                        (Task::Write(Writing::new(generation, max_new_tokens)), SequenceKind::Decode, length - 1, most)
                    }
                    _ => {
                        let task = Searching::new(generation, max_new_tokens.max(1), &around);
                        (Task::Search(task), SequenceKind::BeamSearch, length - 1, most)
                    }
                }
            }
            Asked::Classify { choices } => {
                let choices = self.choices(choices)?;
                let longest = choices.iter().map(|(_, ids)| ids.len()).max().unwrap_or_default();
                self.check_length(length + longest - 1)?;
                (Task::Classify(Classifying::new(choices)), SequenceKind::Prefill, length - 1, length + longest - 1)
            }
            Asked::Score { logits, top_logprobs } => {
                (Task::Score(Scoring::new(logits, top_logprobs)), SequenceKind::Prefill, 0, length)
            }
        };
        let has_video = prompt.media().any(|frames| frames.len() > 1);
        if has_video && self.config().resampler.is_none() {
            let found = "found one without: give it the frames as images";
            return Err(Error::argument(format!("video: expected a model whose resampler takes all frames; {found}")));
        }
        let pixels: Vec<Arc<Pixels>> = prompt.media().map(|frames| self.pixels(frames, salt.as_ref())).collect();
        let image = |pixels: &Arc<Pixels>| {
            let Pixels { content, count: frames, rows, .. } = **pixels;
            PromptImage { content, frames, rows }
        };
        let images = pixels.iter().map(image).collect();
        let prompt = Tokens::salted(rendered.ids, rendered.media, images, salt);
        self.check_media(prompt.media_pages())?;
        Ok(PreparedRequest { prompt, pixels, task, kind, wanted, max_new_tokens, preparer: self.clone() })
    }

    fn check_length(&self, tokens: usize) -> Result<()> {
        if tokens <= self.context_max() {
            return Ok(());
        }
        Err(Error::limit("tokens of a sequence", self.context_max() as u64, tokens as u64))
    }

    /// Whether the device has the media pages of all images that one token sees.
    fn check_media(&self, pages: usize) -> Result<()> {
        match pages <= self.inner.media_pages {
            true => Ok(()),
            false => Err(Error::limit("media pages of a request", self.inner.media_pages as u64, pages as u64)),
        }
    }

    /// Tokens of each choice.
    fn choices(&self, choices: Vec<String>) -> Result<Vec<(String, Vec<u32>)>> {
        if choices.is_empty() {
            return Err(Error::argument("choice: expected at least one, found none"));
        }
        if choices.len() > CHOICES_MAX {
            return Err(Error::limit("choices", CHOICES_MAX as u64, choices.len() as u64));
        }
        let bytes: usize = choices.iter().map(String::len).sum();
        if bytes > CHOICE_BYTES_MAX {
            return Err(Error::limit("bytes of all choices", CHOICE_BYTES_MAX as u64, bytes as u64));
        }
        let tokens_of = |choice: String| {
            let ids = self.tokenizer().encode_continuation(&choice)?;
            if ids.is_empty() || self.tokenizer().marker_ids().iter().any(|marker| ids.contains(marker)) {
                let expected = "choice: expected a text without image markers";
                return Err(Error::argument(format!("{expected}, found {choice:?}")));
            }
            Ok((choice, ids))
        };
        choices.into_iter().map(tokens_of).collect()
    }

    /// Images and videos whose features are wanted, at the encoder's size.
    ///
    /// # Errors
    /// A video without frames; a panic on the way.
    pub(super) fn media(&self, media: &[&[Image]]) -> Result<Vec<Arc<Pixels>>> {
        if media.iter().any(|frames| frames.is_empty()) {
            let expected = "features: expected images, or videos of at least one frame";
            return Err(Error::argument(format!("{expected}, found one of none")));
        }
        Error::catch("preparing images", || Ok(media.iter().map(|frames| self.pixels(frames, None)).collect()))
    }

    /// An image, or the frames of a video, at the encoder's size; what was made before for the same salt, if it is
    /// there.
    pub(super) fn pixels(&self, frames: &[Image], salt: Option<&Salt>) -> Arc<Pixels> {
        let content = match (frames, salt) {
            ([image], None) => image.content(),
            (frames, salt) => {
                let mut hasher = hasher(salt);
                for frame in frames {
                    hasher.update(frame.content().as_bytes());
                }
                hasher.finalize()
            }
        };
        let kept = || self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pixels) = kept().find(&content) {
            return pixels;
        }
        // Not under the lock: others may resize theirs meanwhile.
        let rows = self.config().media_tokens();
        let pixels = Arc::new(match (&self.config().vision.tiles, frames) {
            (Some(config), [image]) => {
                let Frames { rgb, tiles, ratio } = self.inner.preprocessor.frames(image);
                Pixels::of_tiles(content, rgb, Tiling { ratio, tiles: tiles as u32 }, config.most, rows)
            }
            (None, frames) => {
                let rgb = frames.iter().flat_map(|frame| self.inner.preprocessor.frames(frame).rgb).collect();
                Pixels::new(content, rgb, frames.len(), rows)
            }
            (Some(_), _) => unreachable!("a model without a resampler is given no videos"),
        });
        kept().keep(pixels.clone());
        pixels
    }
}

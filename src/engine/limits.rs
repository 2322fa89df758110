//! How an engine is opened, and what bounds it.

use crate::backend::{Capacity, Device, PageCount, THREADS_MAX};
use crate::checkpoint::Dtype;
use crate::checkpoint::Load;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::kv::{KvDtype, PAGE_TOKENS, media_pages};
use crate::setters::setters;

/// What an engine may use; checked when it is opened. Whatever would pass a limit waits or is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Requests that run at a time; the others wait.
    pub max_sequences: usize,
    /// Tokens of a step: bounds how long a step takes, and the memory of activations. None: by device, see
    /// [`Limits::on`].
    pub max_batched_tokens: Option<usize>,
    /// Images or frames of videos encoded in a step, likewise; a video that has more is encoded by itself.
    pub max_batched_images: Option<usize>,
    /// Pages of 16 tokens; none: as many as memory allows and are of use.
    pub text_pages: Option<usize>,
    /// Pages of 64 rows of an image; none: as many as memory allows, at most those of 256 images, or of one for each
    /// sequence if that is more.
    pub media_pages: Option<usize>,
    /// Requests that wait.
    pub queue: usize,
    /// Bytes of the tokens and resized images of all requests that are not finished.
    pub queue_bytes: u64,
    /// Whether the pages of prompts and images that were seen before are found again. It never changes an answer.
    pub prefix_caching: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_sequences: 64,
            max_batched_tokens: None,
            max_batched_images: None,
            text_pages: None,
            media_pages: None,
            queue: 1024,
            queue_bytes: 1 << 30,
            prefix_caching: true,
        }
    }
}

const SEQUENCES_MAX: usize = 1024;
const BATCHED_TOKENS_MAX: usize = 8192;
const BATCHED_IMAGES_MAX: usize = 64;
/// Images whose pages are asked for where memory decides.
const IMAGES_USUAL: usize = 256;
/// Tokens that there must be memory for, of a model made for more, if nothing is said.
const CONTEXT_USUAL: usize = 8192;
/// More pages than any memory holds.
const PAGES_MAX: usize = 1 << 28;

/// Whether a setting is in its range.
pub(super) fn within(name: &str, found: usize, least: usize, most: usize) -> Result<()> {
    match (least..=most).contains(&found) {
        true => Ok(()),
        false => Err(Error::argument(format!("{name}: expected {least} to {most}, found {found}"))),
    }
}

impl Limits {
    /// Whether every number is usable.
    fn check(&self) -> Result<()> {
        within("max-sequences", self.max_sequences, 1, SEQUENCES_MAX)?;
        let given = |name: &str, count: Option<usize>, most| count.map_or(Ok(()), |count| within(name, count, 1, most));
        given("max-batched-tokens", self.max_batched_tokens, BATCHED_TOKENS_MAX)?;
        given("max-batched-images", self.max_batched_images, BATCHED_IMAGES_MAX)?;
        given("text-pages", self.text_pages, PAGES_MAX)?;
        given("media-pages", self.media_pages, PAGES_MAX)?;
        within("queue", self.queue, 1, usize::MAX)
    }

    /// Fills in what depends on the device: steps of 2048 tokens and 32 images on a GPU, of 256 and 8 elsewhere. A
    /// GPU on which a model does not fit with so many takes half of them, a quarter, and so on down to 256 and 8:
    /// [`Engine::limits`](super::Engine::limits) says what it took.
    pub fn on(&self, device: Device) -> Limits {
        let capacity = self.steps(device.resolve().0.capacity());
        Limits { max_batched_tokens: Some(capacity.tokens), max_batched_images: Some(capacity.images), ..self.clone() }
    }

    /// What steps hold at most where what is not said is as in `usual`.
    pub(super) fn steps(&self, capacity: Capacity) -> Capacity {
        Capacity {
            images: self.max_batched_images.unwrap_or(capacity.images),
            tokens: self.max_batched_tokens.unwrap_or(capacity.tokens),
        }
    }

    /// Text pages and media pages of a model for sequences of `context` tokens.
    pub(super) fn pages(&self, context: Context, config: &ModelConfig) -> Result<[PageCount; 2]> {
        let image_pages = media_pages(config.media_tokens_max());
        // With one page more, a sequence of full length that forks can copy the page it writes.
        let pages = |context: usize| context.div_ceil(PAGE_TOKENS) + 1;
        let (least, most) = (pages(context.least), pages(context.most));
        let exactly = |name: &str, count: usize, least: usize| {
            within(name, count, least, PAGES_MAX)?;
            Ok(PageCount { least: count, most: count })
        };
        let text = match self.text_pages {
            Some(count) => exactly("text-pages", count, most)?,
            None => PageCount { least, most: self.max_sequences * most },
        };
        let media = match self.media_pages {
            Some(count) => exactly("media-pages", count, image_pages)?,
            None => PageCount {
                least: image_pages * (self.steps(Capacity::LEAST).images / config.vision.frames()).max(1),
                most: image_pages * IMAGES_USUAL.max(self.max_sequences),
            },
        };
        Ok([text, media])
    }
}

/// Tokens of a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Fewer will not do.
    pub least: usize,
    /// What the model can have.
    pub most: usize,
}

impl Context {
    /// How many there are with so many text pages.
    pub fn with(self, text_pages: usize) -> usize {
        self.most.min((text_pages - 1) * PAGE_TOKENS)
    }
}

/// How a model is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Where it runs.
    pub device: Device,
    /// How the device stores numbers. Kernels have bf16 or f16; none: f16 where all weights are, else bf16. The
    /// processor has f32; bf16 has it multiply weights in bf16 with activations rounded to bf16, which is faster.
    pub dtype: Option<Dtype>,
    /// How pages store keys and values, of text and of images. In 8 bits more of them fit, and answers are others
    /// within rounding: what was computed in one format is not gone on with in another.
    pub kv_dtype: KvDtype,
    /// Worker threads on the processor; 0: one for each core.
    pub threads: usize,
    /// Most tokens of a sequence, prompt and answer; none: what the model was made for, or fewer, but at least 8192,
    /// where memory is short.
    pub context_max: Option<usize>,
    /// What it may use.
    pub limits: Limits,
    /// Whether weights are mapped or read.
    pub load: Load,
    /// What the emulator does besides running kernels; `probe` sets it.
    #[cfg(feature = "emulated")]
    pub(crate) emulated: crate::backend::emulated::Settings,
}

impl Options {
    /// Whether every number is in its range, whatever the model; with the model, some ranges are smaller.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::Limit`] with the setting, what it may be and what it is.
    pub fn check(&self) -> Result<()> {
        if self.threads > THREADS_MAX {
            return Err(Error::limit("threads", THREADS_MAX as u64, self.threads as u64));
        }
        if self.context_max == Some(0) {
            return Err(Error::argument("context: expected at least 1 token, found 0"));
        }
        self.limits.check()
    }

    /// Most tokens of a sequence of this model: as many as are asked for, or what it was made for, as far as there is
    /// memory.
    pub(super) fn context(&self, config: &ModelConfig) -> Result<Context> {
        let made_for = config.decoder.positions_max;
        match self.context_max {
            None => Ok(Context { least: made_for.min(CONTEXT_USUAL), most: made_for }),
            Some(context) if (1..=made_for).contains(&context) => Ok(Context { least: context, most: context }),
            Some(context) => Err(Error::argument(format!("context: expected 1 to {made_for} tokens, found {context}"))),
        }
    }
}

setters!(Limits {
    max_sequences: usize,
    max_batched_tokens: Option<usize>,
    max_batched_images: Option<usize>,
    text_pages: Option<usize>,
    media_pages: Option<usize>,
    queue: usize,
    queue_bytes: u64,
    prefix_caching: bool,
});

setters!(Options {
    device: Device,
    dtype: Option<Dtype>,
    kv_dtype: KvDtype,
    threads: usize,
    context_max: Option<usize>,
    limits: Limits,
    load: Load,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_by_device() {
        let on = |limits: &Limits, device| {
            let limits = limits.on(device);
            (limits.max_batched_tokens, limits.max_batched_images)
        };
        let nothing = Limits::default();
        assert_eq!(on(&nothing, Device::Cuda(1)), (Some(2048), Some(32)));
        assert_eq!(on(&nothing, Device::Cpu), (Some(256), Some(8)));
        assert_eq!(on(&nothing, Device::Emulated), (Some(256), Some(8)));
        let said = Limits { max_batched_tokens: Some(300), ..nothing };
        assert_eq!(on(&said, Device::Cuda(0)), (Some(300), Some(32)));
        assert_eq!(said.on(Device::Cpu), said.on(Device::Cpu).on(Device::Cuda(0)));
    }
}

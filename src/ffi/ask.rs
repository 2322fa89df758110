//! From C's structs to what an engine is opened with and asked for, with the defaults of both.

use std::ptr;

use super::layout::*;
use super::memory::{array, string, text};
use crate::checkpoint::Load;
use crate::engine::{Generation, Limits, Options, Request, Task};
use crate::error::{Error, Result};
use crate::image::{self, Image};
use crate::prompt::{Prompt, PromptLimits};
use crate::sample::Sampling;
use crate::video::{FRAMES_MAX, Video};

/// Most choices, or stop texts, of a request.
const TEXTS_MAX: usize = 1 << 16;

/// What an engine is opened with if nothing is said.
pub(super) fn default_options() -> EngineOptions {
    let Options { threads, context_max, limits, .. } = Options::default();
    EngineOptions {
        struct_size: size_of::<EngineOptions>(),
        model: ptr::null(),
        device: ptr::null(),
        dtype: ptr::null(),
        kv_dtype: ptr::null(),
        threads,
        context_max: context_max.unwrap_or(0),
        max_sequences: limits.max_sequences,
        max_batched_tokens: limits.max_batched_tokens.unwrap_or(0),
        max_batched_images: limits.max_batched_images.unwrap_or(0),
        text_pages: limits.text_pages.unwrap_or(0),
        media_pages: limits.media_pages.unwrap_or(0),
        queue: limits.queue,
        queue_bytes: limits.queue_bytes,
        prefix_caching: limits.prefix_caching.into(),
        load: LOAD_MAP,
    }
}

/// What is asked for if nothing is said: an empty prompt, which an engine refuses.
pub(super) fn default_request() -> RequestOptions {
    let Generation { max_new_tokens, sampling, num_beams, length_penalty, ignore_eos, no_repeat_ngram_size, .. } =
        Generation::default();
    let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed } = sampling;
    RequestOptions {
        struct_size: size_of::<RequestOptions>(),
        parts: ptr::null(),
        part_count: 0,
        task: GENERATE,
        logits: 0,
        max_new_tokens,
        num_beams,
        length_penalty,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        ignore_eos: ignore_eos.into(),
        seed,
        stop: ptr::null(),
        stop_count: 0,
        choices: ptr::null(),
        choice_count: 0,
        max_pixels: 0,
        no_repeat_ngram_size,
    }
}

/// The folder of a model, if it is not the one in the program, and how to open it.
pub(super) fn options<'a>(asked: &EngineOptions) -> Result<(Option<&'a str>, Options)> {
    let given = |count: usize| (count > 0).then_some(count);
    let device = string("device", asked.device)?.map(str::parse).transpose()?;
    let dtype = string("dtype", asked.dtype)?.map(str::parse).transpose()?;
    let kv_dtype = string("kv_dtype", asked.kv_dtype)?.map(str::parse).transpose()?;
    let limits = Limits {
        max_sequences: asked.max_sequences,
        max_batched_tokens: given(asked.max_batched_tokens),
        max_batched_images: given(asked.max_batched_images),
        text_pages: given(asked.text_pages),
        media_pages: given(asked.media_pages),
        queue: asked.queue,
        queue_bytes: asked.queue_bytes,
        prefix_caching: flag("prefix_caching", asked.prefix_caching)?,
    };
    let options = Options {
        device: device.unwrap_or_default(),
        dtype,
        kv_dtype: kv_dtype.unwrap_or_default(),
        threads: asked.threads,
        context_max: given(asked.context_max),
        limits,
        load: match asked.load {
            LOAD_MAP => Load::Map,
            LOAD_READ => Load::Read,
            other => return Err(Error::argument(format!("load: expected FLAMANT_LOAD_MAP or _READ, found {other}"))),
        },
        ..Options::default()
    };
    Ok((string("model", asked.model)?, options))
}

/// What a request asks for.
pub(super) enum Asked {
    Request(Request),
    /// What images and videos are compared by.
    Features(Prompt),
}

/// A prompt and what to do with it.
pub(super) fn request(asked: &RequestOptions) -> Result<Asked> {
    let task = match asked.task {
        GENERATE => Task::Generate(generation(asked)?),
        CLASSIFY => Task::Classify { choices: texts("choices", "choice", asked.choices, asked.choice_count)? },
        SCORE => Task::score(flag("logits", asked.logits)?),
        FEATURES => return Ok(Asked::Features(prompt(asked, false)?)),
        other => return Err(Error::argument(format!("task: expected one of FLAMANT_GENERATE, ..., found {other}"))),
    };
    Ok(Asked::Request(Request::new(prompt(asked, true)?, task)))
}

fn prompt(asked: &RequestOptions, texts: bool) -> Result<Prompt> {
    let limits = PromptLimits::default().raise_pixels(asked.max_pixels);
    let parts = array("parts", asked.parts, asked.part_count, limits.parts_max)?;
    let mut prompt = Prompt::with_limits(limits.clone());
    for (index, part) in parts.iter().enumerate() {
        let name = format!("part {index}");
        if part.kind == PART_TEXT && !texts {
            return Err(Error::argument(format!("{name}: kind: expected an image or a video, which have features")));
        }
        add(&mut prompt, &limits, &name, part)?;
    }
    Ok(prompt)
}

fn generation(asked: &RequestOptions) -> Result<Generation> {
    Ok(Generation {
        max_new_tokens: asked.max_new_tokens,
        sampling: Sampling {
            temperature: asked.temperature,
            top_k: asked.top_k,
            top_p: asked.top_p,
            min_p: asked.min_p,
            repetition_penalty: asked.repetition_penalty,
            seed: asked.seed,
        },
        num_beams: asked.num_beams,
        length_penalty: asked.length_penalty,
        no_repeat_ngram_size: asked.no_repeat_ngram_size,
        stop: texts("stop texts", "stop", asked.stop, asked.stop_count)?,
        ignore_eos: flag("ignore_eos", asked.ignore_eos)?,
        ..Generation::default()
    })
}

fn texts(all: &str, one: &str, from: *const Text, count: usize) -> Result<Vec<String>> {
    let bytes_max = PromptLimits::default().text_bytes_max;
    let found = array(all, from, count, TEXTS_MAX)?.iter().enumerate();
    found.map(|(index, &from)| Ok(text(format!("{one} {index}"), from, bytes_max)?.to_owned())).collect()
}

fn flag(name: &str, value: u32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::argument(format!("{name}: expected 0 or 1, found {other}"))),
    }
}

fn must_be_zero(name: impl std::fmt::Display, value: usize) -> Result<()> {
    match value {
        0 => Ok(()),
        other => Err(Error::argument(format!("{name}: expected 0, found {other}"))),
    }
}

/// Adds a part to a prompt. Sizes are held to the limits before anything is copied.
fn add(prompt: &mut Prompt, limits: &PromptLimits, name: &str, part: &Part) -> Result<()> {
    check_unused(name, part)?;
    match part.kind {
        PART_TEXT => {
            let from = Text { data: part.data.cast(), length: part.length };
            prompt.text(text(name, from, limits.text_bytes_max)?)?
        }
        PART_IMAGE | PART_PIXELS => prompt.image(image(&limits.image, name, part)?)?,
        PART_VIDEO => {
            let parts: &[Part] = array(format!("frames of {name}"), part.data.cast(), part.length, FRAMES_MAX)?;
            let frames = parts.iter().enumerate().map(|(index, part)| {
                let name = format!("{name}: frame {index}");
                check_unused(&name, part)?;
                image(&limits.image, &name, part)
            });
            prompt.video(Video::gather(name, &limits.video, frames)?)?
        }
        other => {
            return Err(Error::argument(format!("{name}: kind: expected FLAMANT_PART_TEXT, ..., found {other}")));
        }
    };
    Ok(())
}

/// What only other kinds of parts have must be zero.
fn check_unused(name: &str, part: &Part) -> Result<()> {
    must_be_zero(format!("{name}: unused"), part.unused as usize)?;
    if part.kind != PART_PIXELS {
        must_be_zero(format!("{name}: width"), part.width as usize)?;
        must_be_zero(format!("{name}: height"), part.height as usize)?;
        must_be_zero(format!("{name}: stride"), part.stride)?;
    }
    Ok(())
}

/// An image, or a frame of a video.
fn image(limits: &image::Limits, name: &str, part: &Part) -> Result<Image> {
    match part.kind {
        PART_IMAGE => {
            let most = usize::try_from(limits.bytes_max).unwrap_or(usize::MAX);
            let bytes = array(format!("bytes of {name}"), part.data.cast(), part.length, most)?;
            let image = image::decode(bytes, name, limits)?;
            if let Some(note) = image.note() {
                crate::trace::event!(WARN, source = %name, "{note}");
            }
            Ok(image)
        }
        PART_PIXELS => pixels(limits, name, part),
        other => {
            let expected = "FLAMANT_PART_IMAGE or FLAMANT_PART_PIXELS";
            Err(Error::argument(format!("{name}: kind: expected {expected}, found {other}")))
        }
    }
}

/// An image from rows that may stand apart.
fn pixels(limits: &image::Limits, name: &str, part: &Part) -> Result<Image> {
    limits.check_sides(name, part.width, part.height)?;
    let (row, rows) = (part.width as usize * 3, part.height as usize);
    let stride = if part.stride == 0 { row } else { part.stride };
    if stride < row {
        let expected = format!("0, or at least the {row} bytes of a row");
        return Err(Error::argument(format!("{name}: stride: expected {expected}, found {stride}")));
    }
    let wanted = stride.checked_mul(rows.saturating_sub(1)).and_then(|bytes| bytes.checked_add(row));
    let Some(wanted) = wanted.filter(|&wanted| wanted <= part.length) else {
        let (width, height, found) = (part.width, part.height, part.length);
        let expected = format!("{height} rows of {width} pixels, {stride} bytes apart");
        return Err(Error::argument(format!("{name}: length: expected {expected}, found {found} bytes")));
    };
    let bytes: &[u8] = array(format!("bytes of {name}"), part.data.cast(), wanted, usize::MAX)?;
    let packed = if stride == row { bytes.to_vec() } else { gather(bytes, row, stride) };
    Image::from_rgb(part.width, part.height, packed)
}

fn gather(bytes: &[u8], row: usize, stride: usize) -> Vec<u8> {
    bytes.chunks(stride).flat_map(|line| &line[..row]).copied().collect()
}

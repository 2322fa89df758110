//! Prompts: what Python has for texts, images and videos, copied while the interpreter is held, and decoded without it.

use std::path::{Path, PathBuf};

use flamant::image::{self, Image};
use flamant::video::{FrameSampling, Video};
use flamant::{Chat, Prompt, PromptLimits, Role};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict as _, PyBytes, PyDict, PyString};

use crate::errors::{self, Doing};

/// Modes of Pillow that the engine has itself, beside RGB and RGBA: how an image is resized depends on its mode.
const OWN_MODES: [&str; 5] = ["1", "L", "LA", "P", "I;16"];
/// What a part of a prompt may be.
const EXPECTED: &str = "a str, an image, a Video or a dict";

/// A part as it was given, copied.
pub enum Given {
    Text(String),
    Media(Media),
    /// A part of a prompt file, as JSON.
    Json(String),
}

/// An image or a video.
pub enum Media {
    Image(Source),
    Frames(Vec<Source>, FrameSampling),
    VideoFile(PathBuf, FrameSampling),
}

/// An image.
pub enum Source {
    /// Rows of pixels of so many bytes.
    Pixels {
        width: u32,
        height: u32,
        channels: usize,
        pixels: Vec<u8>,
    },
    /// The content of a file.
    Bytes(Vec<u8>),
    Path(PathBuf),
}

/// A fault of a prompt; `place` says of which part.
fn wrong(place: &str, message: impl std::fmt::Display) -> PyErr {
    errors::raise("PromptError", &format!("{place}: {message}"), Some("prompt"))
}

/// A thing as errors call it.
fn type_of(thing: &Bound<'_, PyAny>) -> String {
    thing.get_type().fully_qualified_name().map_or_else(|_| "something else".to_owned(), |name| name.to_string())
}

/// A prompt: a text, or a sequence of parts.
pub fn parts(prompt: &Bound<'_, PyAny>, place: &str) -> PyResult<Vec<Given>> {
    if let Ok(text) = prompt.cast::<PyString>() {
        return Ok(vec![self::text(text, place)?]);
    }
    let is_one = prompt.cast::<PyDict>().is_ok() || is_image(prompt)?;
    let parts = if is_one { None } else { prompt.try_iter().ok() };
    let Some(parts) = parts else {
        let found = type_of(prompt);
        return Err(wrong(place, format_args!("expected a str or a sequence of parts, found {found}")));
    };
    parts.enumerate().map(|(number, part)| self::part(&part?, &format!("{place}: part {number}"))).collect()
}

fn part(part: &Bound<'_, PyAny>, place: &str) -> PyResult<Given> {
    if let Ok(text) = part.cast::<PyString>() {
        return self::text(text, place);
    }
    if let Ok(fields) = part.cast::<PyDict>() {
        return dict(fields, place);
    }
    if is_video(part)? {
        return video(part, place).map(Given::Media);
    }
    match source(part, place)? {
        Some(source) => Ok(Given::Media(Media::Image(source))),
        None => Err(wrong(place, format_args!("expected {EXPECTED}, found {}", type_of(part)))),
    }
}

/// A part of a prompt file, or of a conversation as OpenAI has it, whose images may also be those of Python.
fn dict(fields: &Bound<'_, PyDict>, place: &str) -> PyResult<Given> {
    let py = fields.py();
    let get = |key: &str| fields.get_item(key).map(|value| value.filter(|value| !value.is_none()));
    if let Some(url) = get("image_url")? {
        let url = url.cast::<PyDict>().ok().map_or(Ok(Some(url.clone())), |url| url.get_item("url"))?;
        let url = url.and_then(|url| url.extract::<String>().ok());
        let url = url.ok_or_else(|| wrong(place, "image_url: expected {\"url\": a data URI}"))?;
        if !url.trim_start().get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:")) {
            return Err(wrong(place, "image_url: expected a data URI, found another (nothing is fetched)"));
        }
        return json(&[("image", url)].into_py_dict(py)?, place);
    }
    if let Some(image) = get("image")?
        && let Some(source) = source(&image, place)?
    {
        return Ok(Given::Media(Media::Image(source)));
    }
    if let Some(given) = get("video")? {
        if is_video(&given)? {
            return video(&given, place).map(Given::Media);
        }
        if given.cast::<PyString>().is_err() && frames_are_objects(&given)? {
            let sampling = sampling(get("fps")?, get("frames")?)?;
            return Ok(Given::Media(Media::Frames(frames(&given, place)?, sampling)));
        }
    }
    let fields = fields.copy()?;
    if let Some(named) = get("type")?
        && fields.contains(&named)?
    {
        fields.del_item("type")?;
    }
    json(&fields, place)
}

/// Whether frames are something that JSON has not.
fn frames_are_objects(frames: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Ok(mut frames) = frames.try_iter() else { return Ok(true) };
    Ok(frames.next().transpose()?.is_some_and(|first| first.cast::<PyString>().is_err()))
}

fn json(fields: &Bound<'_, PyDict>, place: &str) -> PyResult<Given> {
    let text = fields.py().import("json")?.call_method1("dumps", (fields,));
    text.and_then(|text| text.extract()).map(Given::Json).map_err(|error| wrong(place, error))
}

/// Whether it is a `flamant.Video`.
fn is_video(part: &Bound<'_, PyAny>) -> PyResult<bool> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = part.py();
    let class = CLASS.get_or_try_init(py, || py.import("flamant._types")?.getattr("Video").map(Bound::unbind))?;
    part.is_instance(class.bind(py))
}

fn video(video: &Bound<'_, PyAny>, place: &str) -> PyResult<Media> {
    let sampling = sampling(Some(video.getattr("fps")?), Some(video.getattr("frames")?))?;
    let source = video.getattr("source")?;
    if let Ok(path) = source.extract::<PathBuf>() {
        return Ok(Media::VideoFile(path, sampling));
    }
    Ok(Media::Frames(frames(&source, place)?, sampling))
}

fn sampling(fps: Option<Bound<'_, PyAny>>, frames: Option<Bound<'_, PyAny>>) -> PyResult<FrameSampling> {
    let mut sampling = FrameSampling::default();
    if let Some(fps) = fps {
        sampling.per_second = fps.extract()?;
    }
    if let Some(frames) = frames {
        sampling.frames_max = frames.extract()?;
    }
    sampling.check().map_err(|error| errors::from(&error, Doing::Reading))?;
    Ok(sampling)
}

fn frames(frames: &Bound<'_, PyAny>, place: &str) -> PyResult<Vec<Source>> {
    let one = |(number, frame): (usize, PyResult<Bound<'_, PyAny>>)| {
        let (frame, place) = (frame?, format!("{place}: frame {number}"));
        let expected = || wrong(&place, format_args!("expected an image, found {}", type_of(&frame)));
        source(&frame, &place)?.ok_or_else(expected)
    };
    frames.try_iter()?.enumerate().map(one).collect()
}

/// Whether it is one image, which also is a sequence.
fn is_image(thing: &Bound<'_, PyAny>) -> PyResult<bool> {
    let file = thing.is_instance_of::<PyBytes>() || PyBuffer::<u8>::get(thing).is_ok();
    Ok(file || is_pillow(thing)? || is_video(thing)?)
}

/// Whether it is an image of Pillow; without having Pillow, it is none.
fn is_pillow(thing: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = thing.py();
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    let module = modules.cast::<PyDict>()?.get_item(intern!(py, "PIL.Image"))?;
    module.map_or(Ok(false), |module| thing.is_instance(&module.getattr(intern!(py, "Image"))?))
}

/// An image of whatever kind; none if it is none.
fn source(thing: &Bound<'_, PyAny>, place: &str) -> PyResult<Option<Source>> {
    if thing.is_instance_of::<PyString>() {
        return Ok(None);
    }
    if is_pillow(thing)? {
        return pillow(thing).map(Some);
    }
    if thing.hasattr(intern!(thing.py(), "__fspath__"))? {
        return Ok(Some(Source::Path(thing.extract()?)));
    }
    match PyBuffer::<u8>::get(thing) {
        Ok(buffer) => self::buffer(thing.py(), &buffer, place).map(Some),
        Err(error) if error.is_instance_of::<PyBufferError>(thing.py()) => {
            let kind = thing.getattr("dtype").map_or_else(|_| "another type".to_owned(), |kind| kind.to_string());
            Err(wrong(place, format_args!("expected an image of uint8, found {kind}")))
        }
        Err(_) => Ok(None),
    }
}

/// The content of a file, or rows of pixels: grey, RGB or RGBA.
fn buffer(py: Python<'_>, buffer: &PyBuffer<u8>, place: &str) -> PyResult<Source> {
    let (height, width, channels) = match *buffer.shape() {
        [_] => return Ok(Source::Bytes(buffer.to_vec(py)?)),
        [height, width] => (height, width, 1),
        [height, width, channels @ (3 | 4)] => (height, width, channels),
        ref shape => {
            let expected = "expected an image of the shape (height, width), (height, width, 3) or (height, width, 4)";
            return Err(wrong(place, format_args!("{expected}, found {shape:?}")));
        }
    };
    let side = |side: usize| u32::try_from(side).map_err(|_| wrong(place, format_args!("a side of {side} pixels")));
    Ok(Source::Pixels { width: side(width)?, height: side(height)?, channels, pixels: buffer.to_vec(py)? })
}

/// An image of Pillow, turned as its metadata say: the same as the file it came from.
fn pillow(image: &Bound<'_, PyAny>) -> PyResult<Source> {
    let py = image.py();
    let mut image = image.clone();
    let turned: u32 = image.call_method0("getexif")?.call_method1("get", (0x0112, 1))?.extract().unwrap_or(1);
    if turned != 1 {
        image = py.import("PIL.ImageOps")?.call_method1("exif_transpose", (image,))?;
    }
    let mode: String = image.getattr("mode")?.extract()?;
    if OWN_MODES.contains(&mode.as_str()) {
        let file = py.import("io")?.call_method0("BytesIO")?;
        let uncompressed = [("compress_level", 0)].into_py_dict(py)?;
        image.call_method("save", (&file, "png"), Some(&uncompressed))?;
        return Ok(Source::Bytes(file.call_method0("getvalue")?.extract()?));
    }
    let channels = if mode == "RGBA" { 4 } else { 3 };
    if !matches!(mode.as_str(), "RGB" | "RGBA") {
        image = image.call_method1("convert", ("RGB",))?;
    }
    let (width, height) = image.getattr("size")?.extract()?;
    Ok(Source::Pixels { width, height, channels, pixels: image.call_method0("tobytes")?.extract()? })
}

/// A text; Python also has some that are no UTF-8.
fn text(text: &Bound<'_, PyString>, place: &str) -> PyResult<Given> {
    match text.to_cow() {
        Ok(text) => Ok(Given::Text(text.into_owned())),
        Err(_) => Err(wrong(place, "expected text, found half a surrogate pair")),
    }
}

/// Reads and decodes a prompt; the interpreter is not needed.
pub fn prompt(parts: Vec<Given>, place: &str) -> flamant::Result<Prompt> {
    let mut prompt = Prompt::new();
    for (number, part) in parts.into_iter().enumerate() {
        add(&mut prompt, part, &format!("{place}: part {number}"))?;
    }
    Ok(prompt)
}

fn add(prompt: &mut Prompt, part: Given, place: &str) -> flamant::Result<()> {
    let limits = PromptLimits::default();
    match part {
        Given::Text(text) => prompt.text(text)?,
        Given::Media(Media::Image(source)) => prompt.image(decoded(source, place, &limits.image)?)?,
        Given::Media(Media::VideoFile(path, sampling)) => prompt.video_file(path, &sampling)?,
        Given::Media(Media::Frames(frames, sampling)) => {
            let decode = |source| decoded(source, place, &limits.image);
            let frames = sampling.thinned(frames).into_iter().map(decode).collect::<flamant::Result<_>>()?;
            prompt.video(Video::new(frames)?)?
        }
        Given::Json(part) => {
            let (source, key) = place.rsplit_once(": ").unwrap_or(("prompt", place));
            prompt.json(&part, source, key, Path::new(""))?
        }
    };
    Ok(())
}

/// An image for its features.
pub fn decoded(source: Source, place: &str, limits: &image::Limits) -> flamant::Result<Image> {
    match source {
        Source::Bytes(bytes) => image::decode(&bytes, place, limits),
        Source::Path(path) => {
            let bytes = flamant::files::read_input(&path, limits.bytes_max)?;
            image::decode(&bytes, &path.display().to_string(), limits)
        }
        Source::Pixels { width, height, channels: 4, pixels } => Image::from_rgba(width, height, pixels),
        Source::Pixels { width, height, channels: 1, pixels } => {
            Image::from_rgb(width, height, pixels.into_iter().flat_map(|level| [level; 3]).collect())
        }
        Source::Pixels { width, height, pixels, .. } => Image::from_rgb(width, height, pixels),
    }
}

/// Turns of a conversation.
pub fn turns(messages: &Bound<'_, PyAny>) -> PyResult<Vec<(Role, Vec<Given>)>> {
    let turn = |(number, message): (usize, PyResult<Bound<'_, PyAny>>)| {
        let (message, place) = (message?, format!("messages: turn {number}"));
        let get =
            |key: &str| message.get_item(key).map_err(|_| wrong(&place, format_args!("expected the key {key:?}")));
        let role: String = get("role")?.extract()?;
        let role = match role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let expected = "expected the role system, user or assistant";
                return Err(wrong(&place, format_args!("{expected}, found {other:?}")));
            }
        };
        Ok((role, parts(&get("content")?, &place)?))
    };
    messages.try_iter()?.enumerate().map(turn).collect()
}

/// The conversation of turns; the interpreter is not needed.
pub fn chat(turns: Vec<(Role, Vec<Given>)>) -> flamant::Result<Chat> {
    let mut chat = Chat::default();
    for (number, (role, parts)) in turns.into_iter().enumerate() {
        chat.turn(role, prompt(parts, &format!("messages: turn {number}"))?)?;
    }
    Ok(chat)
}

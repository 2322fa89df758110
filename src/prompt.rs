//! Interleaved text, images and videos, as users write them, and as the model reads them: tokens, and for each token
//! the image or video it sees.

mod data_uri;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::checkpoint::{kind, read_bounded};
use crate::error::{Error, Result};
use crate::family::Begin;
use crate::files;
use crate::image::{self, Image};
use crate::kv::MediaSeen;
use crate::parse;
use crate::setters::setters;
use crate::tokenizer::Tokenizer;
use crate::video::{self, FrameSampling, Video};
use data_uri::Quoted;

/// What a prompt may hold; passed limits are errors that name them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PromptLimits {
    /// Bytes of a prompt file, data URIs included.
    pub bytes_max: u64,
    /// Parts of a prompt.
    pub parts_max: usize,
    /// Images and videos of a prompt; a model reads at most 256.
    pub images_max: usize,
    /// Images and frames of videos together; Flamingo's 32 shots of 30 frames each and the one asked are 990.
    pub frames_max: usize,
    /// Pixels of all its images and frames together, which stay decoded until they are encoded.
    pub pixels_max: u64,
    /// Bytes of all its texts together.
    pub text_bytes_max: usize,
    /// What one image, or one frame of a video, may be.
    pub image: image::Limits,
    /// What one video may be.
    pub video: video::Limits,
}

impl Default for PromptLimits {
    fn default() -> Self {
        PromptLimits {
            bytes_max: 256 << 20,
            parts_max: 4096,
            images_max: IMAGES_MAX,
            frames_max: 2048,
            pixels_max: 256 << 20,
            text_bytes_max: 1 << 20,
            image: image::Limits::default(),
            video: video::Limits::default(),
        }
    }
}

setters!(PromptLimits {
    bytes_max: u64,
    parts_max: usize,
    images_max: usize,
    frames_max: usize,
    pixels_max: u64,
    text_bytes_max: usize,
    image: image::Limits,
    video: video::Limits,
});

impl PromptLimits {
    /// Raises the limits so that one image may have so many pixels, whatever its sides, and four bytes of file for
    /// each. Lowers nothing.
    pub fn raise_pixels(mut self, pixels: u64) -> Self {
        if pixels > self.image.pixels_max {
            let bytes = self.image.bytes_max.max(pixels.saturating_mul(4));
            self.image = self.image.pixels_max(pixels).side_max(u32::MAX).bytes_max(bytes);
            self.pixels_max = self.pixels_max.max(pixels);
            self.video.pixels_max = self.video.pixels_max.max(pixels);
            self.video.animation_bytes_max = self.video.animation_bytes_max.max(pixels.saturating_mul(16));
        }
        self
    }
}

/// Most images and videos that a model can read in one prompt.
pub(crate) const IMAGES_MAX: usize = 256;

/// Memory that a part of a prompt takes as JSON beside its texts.
const PART_BYTES_MAX: usize = 16 << 20;

/// One piece of a prompt.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Part {
    /// Text; it may hold control tokens of the family (`<|endofchunk|>`), never an image marker.
    Text(String),
    /// A decoded image.
    Image(Image),
    /// A video, which is one image to the text around it: one marker (paper 2.1).
    Video(Video),
}

impl Part {
    /// What the vision encoder reads of it: the frames of a video, the image as the only one, or none of a text.
    pub fn frames(&self) -> &[Image] {
        match self {
            Part::Text(_) => &[],
            Part::Image(image) => std::slice::from_ref(image),
            Part::Video(video) => video.frames(),
        }
    }

    /// Adds what it is to a hash, so that no other parts add the same.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        let length = match self {
            Part::Text(text) => text.len(),
            media => media.frames().len(),
        };
        hasher.update(&[u8::from(matches!(self, Part::Text(_)))]).update(&(length as u64).to_le_bytes());
        if let Part::Text(text) = self {
            hasher.update(text.as_bytes());
        }
        for frame in self.frames() {
            hasher.update(frame.content().as_bytes());
        }
    }
}

/// Text, images and videos in order.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    parts: Vec<Part>,
    images: usize,
    frames: usize,
    pixels: u64,
    text_bytes: usize,
    notes: Vec<String>,
    limits: PromptLimits,
}

impl Prompt {
    /// An empty prompt within the default limits.
    pub fn new() -> Self {
        Prompt::default()
    }

    /// An empty prompt within `limits`.
    pub fn with_limits(limits: PromptLimits) -> Self {
        Prompt { limits, ..Prompt::default() }
    }

    /// The parts so far.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What its images hold and the model will not see, a line each; see [`Image::note`].
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Names what stands before the last image or video: prompts of the same key begin alike, so whoever answers one of
    /// them has computed much of the others. Where nothing stands there, it names all of it.
    pub fn prefix_key(&self) -> String {
        let last = self.parts.iter().rposition(|part| !matches!(part, Part::Text(_))).filter(|&last| last > 0);
        let mut hasher = blake3::Hasher::new();
        self.parts[..last.unwrap_or(self.parts.len())].iter().for_each(|part| part.hash_into(&mut hasher));
        prefix_key(&hasher)
    }

    /// Adds text.
    pub fn text(&mut self, text: impl Into<String>) -> Result<&mut Self> {
        let text = text.into();
        let bytes = self.text_bytes.saturating_add(text.len());
        if bytes > self.limits.text_bytes_max {
            return Err(Error::limit("bytes of text of a prompt", self.limits.text_bytes_max as u64, bytes as u64));
        }
        self.text_bytes = bytes;
        self.push(Part::Text(text))
    }

    /// Adds a decoded image.
    pub fn image(&mut self, image: Image) -> Result<&mut Self> {
        self.push_media(Part::Image(image))
    }

    /// Adds the image in a file, or from a pipe.
    pub fn image_file(&mut self, path: impl AsRef<Path>) -> Result<&mut Self> {
        let (path, limits) = (path.as_ref(), &self.limits.image);
        let bytes = files::read_input(path, limits.bytes_max)?;
        let image = image::decode(&bytes, &path.display().to_string(), limits)?;
        self.note(&path.display(), std::slice::from_ref(&image));
        self.image(image)
    }

    /// Adds a video.
    pub fn video(&mut self, video: Video) -> Result<&mut Self> {
        self.push_media(Part::Video(video))
    }

    /// Adds frames of the folder, animation or video file at `path`; see [`Video::open`].
    pub fn video_file(&mut self, path: impl AsRef<Path>, sampling: &FrameSampling) -> Result<&mut Self> {
        let path = path.as_ref();
        let video = Video::open(path, sampling, &self.limits.video, &self.limits.image)?;
        self.note(&path.display(), video.frames());
        self.video(video)
    }

    /// Adds a part.
    pub(crate) fn part(&mut self, part: Part) -> Result<&mut Self> {
        match part {
            Part::Text(text) => self.text(text),
            media => self.push_media(media),
        }
    }

    /// Adds all parts of another prompt.
    pub(crate) fn append(&mut self, other: Prompt) -> Result<&mut Self> {
        for part in other.parts {
            self.part(part)?;
        }
        self.notes.extend(other.notes);
        Ok(self)
    }

    /// The same without parts.
    pub(crate) fn emptied(&self) -> Self {
        Prompt { limits: self.limits.clone(), notes: self.notes.clone(), ..Prompt::default() }
    }

    /// Its parts.
    pub(crate) fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    /// Keeps what is to be told of frames, once for all of them.
    fn note(&mut self, source: &dyn Display, frames: &[Image]) {
        if let Some(note) = frames.iter().find_map(Image::note) {
            crate::trace::event!(WARN, %source, "{note}");
            self.notes.push(format!("{source}: {note}"));
        }
    }

    fn push_media(&mut self, part: Part) -> Result<&mut Self> {
        if self.images == self.limits.images_max {
            let most = self.limits.images_max as u64;
            return Err(Error::limit("images of a prompt", most, most + 1));
        }
        let frames = self.frames + part.frames().len();
        if frames > self.limits.frames_max {
            let most = self.limits.frames_max as u64;
            return Err(Error::limit("images and frames of a prompt", most, frames as u64));
        }
        let pixels = self.pixels + part.frames().iter().map(Image::pixel_count).sum::<u64>();
        if pixels > self.limits.pixels_max {
            return Err(Error::limit("pixels of all images of a prompt", self.limits.pixels_max, pixels));
        }
        (self.images, self.frames, self.pixels) = (self.images + 1, frames, pixels);
        self.push(part)
    }

    fn push(&mut self, part: Part) -> Result<&mut Self> {
        if self.parts.len() == self.limits.parts_max {
            let most = self.limits.parts_max as u64;
            return Err(Error::limit("parts of a prompt", most, most + 1));
        }
        self.parts.push(part);
        Ok(self)
    }

    /// Reads a prompt file, or a pipe; see [`Prompt::from_json`]. Paths in it are relative to the file.
    pub fn from_file(path: impl AsRef<Path>, limits: PromptLimits) -> Result<Self> {
        read_file(path.as_ref(), limits, Self::from_json)
    }

    /// Parses `[{"text": "..."}, {"image": "a.png"}, {"video": "a.mp4"}, ...]`.
    ///
    /// An image is a path relative to `folder`, or a `data:image/...;base64,` URI, as forgiving as browsers read it. A
    /// video is the path of a folder, an animation or a video file (see [`Video::open`]), or an array of images, its frames; beside it may stand `"fps"`
    /// and `"frames"`: the [`FrameSampling`]. A key whose value is `null` is as if it were not there. `source` is named
    /// in errors.
    ///
    /// # Errors
    /// Anything else, with `source` and the number of the part, from 0.
    pub fn from_json(json: &str, source: &str, folder: &Path, limits: PromptLimits) -> Result<Self> {
        if json.len() as u64 > limits.bytes_max {
            return Err(Error::limit(format!("{source}: bytes of a prompt"), limits.bytes_max, json.len() as u64));
        }
        let text = parse::text(source, "prompt", json.as_bytes())?;
        let array = ["prompt", "an array of {\"text\"}, {\"image\"} and {\"video\"} parts"];
        // What is not text of a part is few values: the images of a video at most.
        let bytes_max = text.len() + PART_BYTES_MAX;
        let mut prompt = Prompt::with_limits(limits);
        parse::elements(source, array, text, bytes_max, |index, item| {
            prompt.json_part(item, &Place { source, folder, key: format!("part {index}") })
        })?;
        Ok(prompt)
    }

    /// Adds a part as [`Prompt::from_json`] reads it: `{"text": "..."}`, `{"image": "a.png"}` or `{"video": "a.mp4"}`.
    /// `source` and `key` are named in errors.
    ///
    /// # Errors
    /// Anything else.
    pub fn json(&mut self, part: &str, source: &str, key: &str, folder: &Path) -> Result<&mut Self> {
        let item = parse::tree(source, key, part, part.len() + PART_BYTES_MAX)?;
        self.json_part(item, &Place { source, folder, key: key.to_owned() })?;
        Ok(self)
    }

    pub(crate) fn json_part(&mut self, item: Value, place: &Place) -> Result<()> {
        let Value::Object(mut fields) = item else {
            return Err(place.wrong("", "{\"text\": ...}, {\"image\": ...} or {\"video\": ...}", kind(&item)));
        };
        // Tables whose parts have one set of keys are written with `null` for those that a part does not have.
        let keys = fields.len();
        fields.retain(|_, value| !value.is_null());
        if fields.is_empty() && keys > 0 {
            return Err(place.wrong("", "\"text\", \"image\" or \"video\"", "null"));
        }
        if let Some(video) = fields.remove("video") {
            let sampling = place.sampling(fields)?;
            match video {
                Value::String(path) => {
                    self.video_file(place.path(&path, "a path or an array of images")?, &sampling)?
                }
                Value::Array(images) => {
                    let images = sampling.thinned(images).into_iter();
                    let images = images.map(|image| place.image(image, "video", &self.limits.image));
                    let label = format!("{}: {}", place.source, place.key);
                    let video = Video::gather(&label, &self.limits.video, images)?;
                    self.note(&label, video.frames());
                    self.video(video)?
                }
                other => return Err(place.wrong(": video", "a string or an array of strings", kind(&other))),
            };
            return Ok(());
        }
        let mut fields = fields.into_iter();
        let (Some((name, value)), None) = (fields.next(), fields.next()) else {
            return Err(place.wrong("", "one key, \"text\", \"image\" or \"video\"", "another number of keys"));
        };
        match (name.as_str(), value) {
            ("text", Value::String(text)) => self.text(text)?,
            ("image", value) => {
                let image = place.image(value, "image", &self.limits.image)?;
                self.note(&format_args!("{}: {}", place.source, place.key), std::slice::from_ref(&image));
                self.image(image)?
            }
            ("text", other) => return Err(place.wrong(": text", "a string", kind(&other))),
            (other, _) => {
                let expected = "the key \"text\", \"image\" or \"video\"";
                return Err(place.wrong("", expected, &format!("\"{other}\"")));
            }
        };
        Ok(())
    }

    /// Writes the prompt as the family was trained on it, and marks which image each token sees.
    ///
    /// # Errors
    /// A text part that would forge an image; an empty prompt.
    pub fn render(&self, tokenizer: &Tokenizer) -> Result<Rendered> {
        let text = self.written(tokenizer);
        self.check_markers(tokenizer)?;
        let ids = tokenizer.encode(&text)?;
        if ids.is_empty() {
            return Err(Error::argument("prompt: expected at least one token, found none"));
        }
        let markers = ids.iter().filter(|id| tokenizer.media.contains(id)).count();
        if let [token, ..] = tokenizer.template().image_tokens
            && markers > self.images
        {
            let found = markers - self.images;
            let expected = format!("prompt: expected text without {token}, each of which stands for an image");
            return Err(Error::argument(format!("{expected}, found {found}")));
        }
        if markers != self.images {
            let expected = format!("prompt: expected {} image markers, one for each image", self.images);
            return Err(Error::argument(format!("{expected}, found {markers}")));
        }
        let media = tokenizer.template().media(&ids, &tokenizer.media, tokenizer.end);
        Ok(Rendered { text, ids, media })
    }

    /// The images and videos, in order: for each marker what the vision encoder reads, one frame if it is an image.
    pub fn media(&self) -> impl Iterator<Item = &[Image]> {
        self.parts.iter().map(Part::frames).filter(|frames| !frames.is_empty())
    }

    /// The text with all markers.
    fn written(&self, tokenizer: &Tokenizer) -> String {
        let template = tokenizer.template();
        let turn_end = template.turn_end.filter(|_| tokenizer.turn_end.is_some());
        let between_texts = turn_end.filter(|_| template.turn_end_between_texts);
        let begin = &tokenizer.begin[..];
        let has_begin = || self.parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains(begin)));
        let begins_at = match template.begin {
            Begin::Tokenizer => None,
            Begin::Text(_) => Some(0),
            Begin::BehindImages(_) if has_begin() => None,
            Begin::BehindImages(_) => Some(self.parts.iter().take_while(|part| !matches!(part, Part::Text(_))).count()),
        };
        let mut text = String::new();
        let mut previous: Option<&Part> = None;
        for (place, part) in self.parts.iter().enumerate() {
            text.extend(begins_at.filter(|&at| at == place).map(|_| begin));
            match part {
                Part::Text(part) => {
                    if matches!(previous, Some(Part::Text(_))) {
                        text.extend(between_texts);
                    }
                    text.push_str(if template.trims { part.trim_matches(' ') } else { part });
                }
                Part::Image(_) | Part::Video(_) => {
                    if !matches!(previous, Some(Part::Image(_) | Part::Video(_))) {
                        text.extend(template.fence);
                    }
                    text.push_str(template.image);
                    text.extend(template.fence);
                }
            }
            previous = Some(part);
        }
        text.extend(begins_at.filter(|&at| at == self.parts.len()).map(|_| begin));
        text
    }

    /// No run of text parts may spell a marker, alone or together.
    fn check_markers(&self, tokenizer: &Tokenizer) -> Result<()> {
        for run in self.parts.split(|part| !matches!(part, Part::Text(_))) {
            let join = |trim: bool| -> String {
                let texts = run.iter().map(|part| match part {
                    Part::Text(text) if trim => text.trim_matches(' '),
                    Part::Text(text) => text,
                    Part::Image(_) | Part::Video(_) => unreachable!("runs are cut at images"),
                });
                texts.collect()
            };
            let (joined, trimmed) = (join(false), join(true));
            if let Some(marker) =
                tokenizer.markers().find(|&marker| joined.contains(marker) || trimmed.contains(marker))
            {
                return Err(Error::argument(format!("prompt: expected text without image markers, found {marker}")));
            }
        }
        Ok(())
    }
}

/// A prompt as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rendered {
    /// The text with all markers, for people.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// For each token the images of the prompt that it sees, and at the end those that tokens after the prompt see.
    pub media: Vec<MediaSeen>,
}

/// Gives `read` the text of a file, or of a pipe, under its name, and the folder of what is relative to it.
pub(crate) fn read_file<T>(
    path: &Path,
    limits: PromptLimits,
    read: impl FnOnce(&str, &str, &Path, PromptLimits) -> Result<T>,
) -> Result<T> {
    let bytes = files::read_input(path, limits.bytes_max)?;
    let text = String::from_utf8(bytes).map_err(|reason| Error::malformed(path, "text", "UTF-8", reason))?;
    // A pipe may have a name, but no files beside it.
    let folder = path.parent().filter(|_| path.is_file()).unwrap_or(Path::new(""));
    read(&text, &path.display().to_string(), folder, limits)
}

/// A part of a prompt file: what is relative to it, and how errors name it.
pub(crate) struct Place<'a> {
    pub source: &'a str,
    pub folder: &'a Path,
    pub key: String,
}

impl Place<'_> {
    pub fn wrong(&self, below: &str, expected: &str, found: &str) -> Error {
        Error::invalid(self.source, format!("{}{below}", self.key), expected, found)
    }

    /// The path of a file, which is never fetched from elsewhere.
    fn path(&self, text: &str, expected: &str) -> Result<PathBuf> {
        if data_uri::is_one(text) {
            return Err(self.wrong("", expected, "a data URI"));
        }
        if text.contains("://") {
            return Err(self.wrong("", expected, "a URL (nothing is fetched)"));
        }
        let path = self.folder.join(text);
        if data_uri::is_bare(text) && !path.exists() {
            let found = format!("{}: write data:image/...;base64, before base64", Quoted(text));
            return Err(self.wrong("", expected, &found));
        }
        // No file has such a name, and a message that holds it would be of any length.
        if text.split('/').any(|name| name.len() > 255) || text.len() > 4096 {
            return Err(self.wrong("", expected, &Quoted(text).to_string()));
        }
        Ok(path)
    }

    /// The image that a path or a data URI under the key `name` stands for.
    fn image(&self, value: Value, name: &str, limits: &image::Limits) -> Result<Image> {
        let Value::String(text) = value else {
            return Err(self.wrong(&format!(": {name}"), "a string", kind(&value)));
        };
        if data_uri::is_one(&text) {
            let label = format!("{}: {}", self.source, self.key);
            return image::decode(&data_uri::bytes(&text, &label, name, limits.bytes_max)?, &label, limits);
        }
        image_file(&self.path(&text, "a path or a data URI")?, limits)
    }

    /// What stands beside a video.
    fn sampling(&self, fields: Map<String, Value>) -> Result<FrameSampling> {
        let mut sampling = FrameSampling::default();
        for (name, value) in fields {
            match (name.as_str(), value.as_f64(), value.as_u64()) {
                ("fps", Some(per_second), _) => sampling.per_second = per_second,
                ("frames", _, Some(most)) => sampling.frames_max = usize::try_from(most).unwrap_or(usize::MAX),
                ("fps", ..) => return Err(self.wrong(": fps", "a number", kind(&value))),
                ("frames", ..) => return Err(self.wrong(": frames", "a whole number", kind(&value))),
                _ => {
                    let expected = "\"fps\" or \"frames\" beside \"video\"";
                    return Err(self.wrong("", expected, &format!("\"{name}\"")));
                }
            }
        }
        match sampling.check() {
            Ok(()) => Ok(sampling),
            Err(error) => Err(Error::argument(format!("{}: {}: {error}", self.source, self.key))),
        }
    }
}

/// A key of what was hashed.
pub(crate) fn prefix_key(hasher: &blake3::Hasher) -> String {
    format!("b3:{}", &hasher.finalize().to_hex()[..32])
}

/// The bytes of a data URI under the key `name`, and of nothing else: no file is read and nothing is fetched.
pub(crate) fn uri_bytes(text: &str, source: &str, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
    if data_uri::is_one(text) {
        return data_uri::bytes(text, source, name, bytes_max);
    }
    let found = match text {
        _ if text.contains("://") => "a URL (nothing is fetched)",
        _ if data_uri::is_bare(text) => "base64 without data:image/...;base64, before it",
        _ => "another text (no file is read)",
    };
    Err(Error::invalid(source, name, "a data URI", found))
}

/// The image in a data URI; see [`uri_bytes`].
pub(crate) fn uri_image(text: &str, source: &str, name: &str, limits: &image::Limits) -> Result<Image> {
    image::decode(&uri_bytes(text, source, name, limits.bytes_max)?, source, limits)
}

fn image_file(path: &Path, limits: &image::Limits) -> Result<Image> {
    image::decode(&read_bounded(path, limits.bytes_max)?, &path.display().to_string(), limits)
}

//! What an evaluation found, as `results.json` holds it and as the page shows it.
//!
//! Every number stands in the unit of its metric, as papers print it: CIDEr and accuracies times 100. Nothing is
//! computed here; all scores are finite, for JSON has no word for others.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::image::Image;

/// Longest side of a [`Thumbnail`], in pixels.
pub const THUMBNAIL_SIDE_MAX: u32 = 160;
/// Names of missing media that are kept; the others are counted.
pub const MISSING_NAMES_MAX: usize = 100;

/// An evaluation of one model on one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Results {
    /// What was measured, in a few words: the page's title.
    pub title: String,
    /// The benchmark's name, by which published numbers are found ([`published`](super::published::published)): "coco",
    /// "vqav2".
    pub benchmark: String,
    /// What was evaluated.
    pub model: Model,
    /// What it ran on.
    pub device: String,
    /// The day, as the caller writes it: "2026-11-28".
    pub date: String,
    /// What the scores are.
    pub metric: Metric,
    /// What else decides them.
    pub settings: Settings,
    /// The curves, in the order in which they are shown.
    pub series: Vec<Series>,
    /// What must be known of the scores, in a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Images and videos that could not be found.
    pub missing: Missing,
    /// Some of the prompts with what came of them.
    pub samples: Vec<Sample>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Model {
    /// Its name.
    pub name: String,
    /// A few words on it, such as its layout and size; empty if there is nothing to say.
    pub description: String,
}

/// What scores are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metric {
    /// Its name: "CIDEr-D", "VQA accuracy".
    pub name: String,
    /// Its unit, such as "%"; empty for a bare number.
    pub unit: String,
    /// The score of an answer that is right; none if a score has no such end, as CIDEr.
    pub best: Option<f64>,
}

/// What decides the numbers besides model and data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// Of all that is drawn at random.
    pub seed: u64,
    /// Examples that were asked.
    pub queries: usize,
    /// Examples that the shown ones were chosen from.
    pub support: usize,
    /// Beams of the search; none where names are ranked.
    pub beams: Option<usize>,
    /// The form of prompts: "openflamingo", "idefics", or the name of a template's file.
    pub template: String,
    /// Everything else, by name.
    pub others: BTreeMap<String, String>,
}

/// Scores against shots: one curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Series {
    /// Tells it from the others: "random", "5 ways, RICES".
    pub label: String,
    /// By shots, rising.
    pub points: Vec<Point>,
    /// What guessing gives.
    pub chance: Option<f64>,
}

/// The score at one number of shots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Point {
    /// Support examples before the one asked.
    pub shots: usize,
    /// The score of all examples.
    pub score: f64,
    /// The lower end of its 95 % interval over examples: Wilson's for shares and accuracies, Newcombe's for areas under
    /// the curve, the bootstrap's for CIDEr.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Queries, those that failed included.
    pub examples: usize,
    /// Those of them that failed. They count as the worst answer.
    pub errors: usize,
}

/// Images and videos that could not be found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Missing {
    /// How many.
    pub count: usize,
    /// The first [`MISSING_NAMES_MAX`] names.
    pub names: Vec<String>,
}

impl Missing {
    /// Counts one, which the caller has not named before.
    pub fn add(&mut self, name: impl Into<String>) {
        self.count += 1;
        if self.names.len() < MISSING_NAMES_MAX {
            self.names.push(name.into());
        }
    }
}

/// One prompt and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sample {
    /// The label of its [`Series`].
    pub series: String,
    /// Support examples.
    pub shots: usize,
    /// The example asked, as its set names it.
    pub id: String,
    /// The prompt, in order.
    pub prompt: Vec<Part>,
    /// What the model said, or the likeliest name.
    pub answer: String,
    /// What people said.
    pub expected: Vec<String>,
    /// What the answer is worth.
    pub outcome: Outcome,
    /// The likeliest names with their odds, for classification: best first, shares of 1.
    pub odds: Vec<(String, f64)>,
}

/// What an answer is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its score; right if it is [`Metric::best`], wrong if it is 0.
    Score(f64),
    /// Why there is no answer.
    Error(String),
}

/// A part of a prompt, small enough to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Text between images.
    Text(String),
    /// An image.
    Image(Thumbnail),
    /// A video.
    Video {
        /// Its first frame.
        first: Thumbnail,
        /// How many frames the model saw.
        frames: usize,
    },
}

/// A small image in a file of its own kind: PNG, or JPEG where that is smaller, as it is for photographs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Thumbnail {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What the bytes are.
    pub format: Format,
    /// The file's bytes in base64.
    pub base64: String,
}

/// A format of images that every browser reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
}

impl Thumbnail {
    /// An image over white, as large as it is or with its longest side at [`THUMBNAIL_SIDE_MAX`].
    pub fn of(image: &Image) -> Self {
        let (width, height) = (image.width(), image.height());
        let pixels = image::RgbImage::from_raw(width, height, image.over_white().into_owned())
            .expect("an image has as many pixels as its sides say");
        let longest = width.max(height);
        let pixels = if longest <= THUMBNAIL_SIDE_MAX {
            pixels
        } else {
            let shrink =
                |side: u32| (u64::from(side) * u64::from(THUMBNAIL_SIDE_MAX) / u64::from(longest)).max(1) as u32;
            image::imageops::thumbnail(&pixels, shrink(width), shrink(height))
        };
        let (png, jpeg) = (png(&pixels), jpeg(&pixels));
        let (format, bytes) = if jpeg.len() < png.len() { (Format::Jpeg, jpeg) } else { (Format::Png, png) };
        let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
        Thumbnail { width: pixels.width(), height: pixels.height(), format, base64 }
    }
}

fn png(pixels: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, pixels.width(), pixels.height());
    encoder.set_color(png::ColorType::Rgb);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels));
    written.expect("a small image is written to memory");
    bytes
}

fn jpeg(pixels: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85);
    pixels.write_with_encoder(encoder).expect("a small image is written to memory");
    bytes
}

impl Results {
    /// Writes `results.json`, or replaces it as a whole.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|reason| Error::file(path, reason))?;
        files::write(path, |file| file.write_all(&json))
    }
}

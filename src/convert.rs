//! Joins the three sources of an OpenFlamingo model into one folder that stands alone.
//!
//! OpenFlamingo releases only what it trained: `checkpoint.pt` holds the resampler, the gated blocks and the
//! embedding. The frozen language model and CLIP's vision tower come from their own releases. Everything is checked
//! before the first byte is written, tensors go from map to file one at a time, and `config.json` comes last: a
//! folder that has one is whole.

mod flamingo;
mod language;
mod tokenizer;
mod vision;

use crate::checkpoint::{Checkpoint, Dtype, Folder, safetensors};
use crate::error::{Error, Result};
use crate::family::{CONFIG_BYTES_MAX, open_flamingo::FAMILY};
use crate::image::{CLIP_MEAN, CLIP_STD};
use crate::inspect::Inspection;
use flamingo::Trained;
use language::Language;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tokenizer::Tokenizer;
use vision::Vision;

pub use vision::vision_heads;

/// Bytes written between two reports of progress.
const CHUNK_BYTES: usize = 8 << 20;

/// Where the parts of a model are, and where the whole shall go.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// `checkpoint.pt` as OpenFlamingo releases it or as training leaves it, or the same tensors as safetensors.
    pub checkpoint: PathBuf,
    /// The folder of the language model: `config.json`, weights, `tokenizer.json`.
    pub language_model: PathBuf,
    /// CLIP's weights with open_clip or transformers names: a file, or a folder that holds it.
    pub vision_model: PathBuf,
    /// Every how many layers a gated block stands. The checkpoint says so itself; a value given here must agree with
    /// it.
    pub cross_attn_every: Option<usize>,
    /// The folder to write. It may exist if it is empty.
    pub output: PathBuf,
}

/// Joins the three sources. `progress` hears of the bytes written so far and of all there are to write.
pub fn convert(options: &ConvertOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let checkpoint = Checkpoint::open(&options.checkpoint)?;
    let language = Language::open(&options.language_model)?;
    let vision = Vision::open(&options.vision_model)?;
    let trained = Trained::sort(&checkpoint, &language)?;
    let tokenizer = Tokenizer::extend(&options.language_model, trained.embedding_rows())?;
    let every = trained.cross_attn_every(options.cross_attn_every)?;
    let generation_config = generation_config(&options.language_model, &tokenizer)?;

    let mut plan = Plan::default();
    trained.plan_resampler(vision.width, &mut plan)?;
    trained.plan_gated_blocks(vision.width, &mut plan)?;
    trained.plan_language(tokenizer.length, &mut plan)?;
    vision.plan(&mut plan)?;

    let mut output = Output::create(&options.output)?;
    output.write("model.safetensors", |file, path| plan.write(file, path, progress))?;
    output.write_json("tokenizer.json", &tokenizer.json)?;
    output.write_json("tokenizer_config.json", &tokenizer.config)?;
    output.write_json("preprocessor_config.json", &preprocessor_config(vision.image_size))?;
    if let Some(config) = generation_config {
        output.write_json("generation_config.json", &config)?;
    }
    output.write_json("config.json", &model_config(every, &tokenizer, &vision, &language))?;
    // A folder that is kept is a folder that opens.
    Inspection::of(&options.output)?;
    output.keep();
    Ok(())
}

/// The language model's, if it has one, but that an answer ends as OpenFlamingo's own `generate` ends it.
fn generation_config(language_model: &Path, tokenizer: &Tokenizer) -> Result<Option<Value>> {
    let mut config = Folder::Disk(language_model).object_if_there("generation_config.json", CONFIG_BYTES_MAX)?;
    if config.is_empty() {
        return Ok(None);
    }
    config.insert("eos_token_id".to_owned(), tokenizer.end_of_chunk.into());
    Ok(Some(Value::Object(config)))
}

fn model_config(every: usize, tokenizer: &Tokenizer, vision: &Vision, language: &Language) -> Value {
    json!({
        "model_type": FAMILY.model_type,
        "cross_attn_every_n_layers": every,
        "eoc_token_id": tokenizer.end_of_chunk,
        "media_token_id": tokenizer.media,
        "vocab_size": tokenizer.length,
        "vision_config": vision.config(),
        "text_config": language.config,
    })
}

/// CLIP's preprocessing, as transformers writes it.
fn preprocessor_config(image_size: usize) -> Value {
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true,
        "size": {"shortest_edge": image_size},
        "do_center_crop": true,
        "crop_size": {"height": image_size, "width": image_size},
        "resample": 3,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "do_convert_rgb": true,
    })
}

/// The tensors of the output, each with the place it comes from.
#[derive(Default)]
struct Plan<'a> {
    items: Vec<Item<'a>>,
}

struct Item<'a> {
    name: String,
    source: &'a Checkpoint,
    /// The tensor's name in the source.
    key: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Item<'_> {
    fn length(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

impl<'a> Plan<'a> {
    /// A tensor that goes into the output as it is.
    fn add(&mut self, name: String, source: &'a Checkpoint, key: &str) -> Result<()> {
        self.add_rows(name, source, key, usize::MAX)
    }

    /// A tensor of which no more than the first `rows_max` rows go into the output.
    fn add_rows(&mut self, name: String, source: &'a Checkpoint, key: &str, rows_max: usize) -> Result<()> {
        let (dtype, mut shape) = (source.format(key)?, source.shape(key).unwrap_or_default().to_vec());
        if let Some(rows) = shape.first_mut() {
            *rows = rows_max.min(*rows);
        }
        self.items.push(Item { name, source, key: key.to_owned(), dtype, shape });
        Ok(())
    }

    /// Writes all tensors, those of the widest format first so that every one is aligned.
    fn write(&mut self, file: &mut dyn Write, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let failed = |reason: std::io::Error| Error::file(path, reason);
        self.items.sort_by(|a, b| (Reverse(a.dtype.size()), &a.name).cmp(&(Reverse(b.dtype.size()), &b.name)));
        let headers = self.items.iter().map(|item| (item.name.as_str(), item.dtype, item.shape.as_slice()));
        safetensors::write_header(file, headers).map_err(failed)?;
        let total = self.items.iter().map(|item| item.length() as u64).sum();
        let mut done = 0;
        for item in &self.items {
            let tensor = item.source.tensor(&item.key)?;
            for chunk in tensor.bytes[..item.length()].chunks(CHUNK_BYTES) {
                file.write_all(chunk).map_err(failed)?;
                done += chunk.len() as u64;
                progress(done, total);
            }
        }
        Ok(())
    }
}

/// The folder that is written. Unless it is kept, it is taken away again.
struct Output {
    folder: PathBuf,
    /// Whether the folder itself is ours.
    created: bool,
    files: Vec<PathBuf>,
}

impl Output {
    /// A folder must be new or empty: an earlier model is never mixed with this one, nor lost to it.
    fn create(folder: &Path) -> Result<Self> {
        let created = !folder.exists();
        fs::create_dir_all(folder).map_err(|reason| Error::file(folder, reason))?;
        let output = Output { folder: folder.to_owned(), created, files: Vec::new() };
        match fs::read_dir(folder).map_err(|reason| Error::file(folder, reason))?.next() {
            None => Ok(output),
            Some(entry) => {
                let found =
                    entry.map_or_else(|reason| reason.to_string(), |entry| entry.file_name().display().to_string());
                Err(Error::invalid(folder, "output", "a new or empty folder", found))
            }
        }
    }

    /// Writes a file under a temporary name and gives it its own when it is complete.
    fn write(&mut self, name: &str, write: impl FnOnce(&mut dyn Write, &Path) -> Result<()>) -> Result<()> {
        let (path, partial) = (self.folder.join(name), self.folder.join(format!("{name}.partial")));
        let failed = |reason: std::io::Error| Error::file(&path, reason);
        self.files.extend([partial.clone(), path.clone()]);
        let mut file = BufWriter::new(File::create_new(&partial).map_err(failed)?);
        write(&mut file, &path)?;
        file.flush().map_err(failed)?;
        fs::rename(&partial, &path).map_err(failed)
    }

    fn write_json(&mut self, name: &str, value: &Value) -> Result<()> {
        self.write(name, |file, path| writeln!(file, "{value:#}").map_err(|reason| Error::file(path, reason)))
    }

    fn keep(mut self) {
        self.files.clear();
        self.created = false;
    }
}

impl Drop for Output {
    /// A file that cannot be removed stays: the error that led here is the one to report.
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if self.created {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

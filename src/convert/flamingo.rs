//! The trained part of a model: what stands in OpenFlamingo's `checkpoint.pt`, under any of the names it has had.

use super::Plan;
use super::language::{Language, layer_and_rest};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::family::open_flamingo::HEAD_WIDTH;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

const LANGUAGE: &str = "lang_encoder.";
const RESAMPLER: &str = "perceiver.";
/// Frozen weights and second names of trained ones, which some checkpoints hold.
const IGNORED: [&str; 2] = ["vision_encoder.", "lang_encoder.old_decoder_blocks."];
/// A second name of the gated blocks, where the layer is counted directly.
const GATED_ALIAS: &str = "lang_encoder.gated_cross_attn_layers.";
const GATED: &str = "gated_cross_attn_layer.";
/// The part of a name that the wrapped language model puts into those of its own tensors.
const WRAPPED: &str = "decoder_layer";

/// The tensors of a checkpoint, sorted by what they belong to; the values are their names in the file.
pub struct Trained<'a> {
    checkpoint: &'a Checkpoint,
    language: &'a Language,
    /// By name without `perceiver.`.
    resampler: BTreeMap<&'a str, &'a str>,
    /// By layer, then by name in the block.
    gated: BTreeMap<usize, BTreeMap<&'a str, &'a str>>,
    /// Trained tensors of the language model by its own names.
    language_tensors: BTreeMap<String, &'a str>,
}

impl<'a> Trained<'a> {
    /// Sorts the tensors of a checkpoint. A tensor that belongs to nothing is an error.
    pub fn sort(checkpoint: &'a Checkpoint, language: &'a Language) -> Result<Self> {
        let (resampler, gated, language_tensors) = Default::default();
        let mut trained = Trained { checkpoint, language, resampler, gated, language_tensors };
        for key in checkpoint.names() {
            trained.place(key)?;
        }
        Ok(trained)
    }

    fn place(&mut self, key: &'a str) -> Result<()> {
        let name = key.strip_prefix("module.").unwrap_or(key);
        if IGNORED.iter().any(|prefix| name.starts_with(prefix)) {
            return Ok(());
        }
        if let Some(rest) = name.strip_prefix(RESAMPLER) {
            self.resampler.insert(rest, key);
        } else if let Some((layer, rest)) = name.strip_prefix(GATED_ALIAS).and_then(layer_and_rest) {
            self.gated.entry(layer).or_default().entry(rest).or_insert(key);
        } else if let Some(rest) = name.strip_prefix(LANGUAGE) {
            self.place_language(rest, key)?;
        } else {
            let expected = "a tensor under perceiver., lang_encoder. or vision_encoder.";
            return Err(Error::invalid(self.checkpoint.file_of(key), key, expected, "another name"));
        }
        Ok(())
    }

    fn place_language(&mut self, name: &'a str, key: &'a str) -> Result<()> {
        let in_layer =
            name.strip_prefix(self.language.family.layers).and_then(|rest| layer_and_rest(rest.strip_prefix('.')?));
        if let Some((layer, rest)) = in_layer
            && let Some(rest) = rest.strip_prefix(GATED)
        {
            self.gated.entry(layer).or_default().insert(rest, key);
            return Ok(());
        }
        let name = name.split('.').filter(|part| *part != WRAPPED).collect::<Vec<_>>().join(".");
        if self.language.is_ignored(&name) {
            return Ok(());
        }
        if !self.language.has(&name) {
            let expected = format!("a tensor that {} has", self.language.weights.path().display());
            return Err(Error::invalid(self.checkpoint.file_of(key), key, expected, "none"));
        }
        match self.language_tensors.entry(name) {
            Entry::Vacant(place) => drop(place.insert(key)),
            Entry::Occupied(place) => {
                let expected = format!("one tensor for {} of the language model", place.key());
                return Err(Error::invalid(
                    self.checkpoint.file_of(key),
                    key,
                    expected,
                    format!("also {}", place.get()),
                ));
            }
        }
        Ok(())
    }

    /// Rows of the trained embedding, if it was trained.
    pub fn embedding_rows(&self) -> Option<usize> {
        let key = self.language_tensors.get(&self.language.embedding)?;
        self.checkpoint.shape(key)?.first().copied()
    }

    /// Every how many layers there is a gated block: the layers k-1, 2k-1, ... and no others own one.
    pub fn cross_attn_every(&self, wanted: Option<usize>) -> Result<usize> {
        let file = self.checkpoint.path();
        let found: BTreeSet<usize> = self.gated.keys().copied().collect();
        let Some(first) = found.first() else {
            return Err(Error::invalid(file, GATED.trim_end_matches('.'), "gated blocks", "none"));
        };
        let every = first + 1;
        let expected: BTreeSet<usize> = (*first..self.language.layers).step_by(every).collect();
        if found != expected {
            let key = format!("{LANGUAGE}{}.*.{GATED}*", self.language.family.layers);
            let expected = format!("blocks in layers {expected:?} of {}", self.language.layers);
            return Err(Error::invalid(file, key, expected, format!("{found:?}")));
        }
        match wanted {
            Some(wanted) if wanted != every => {
                let found = format!("blocks in layers {found:?}, which is every {every}");
                Err(Error::invalid(
                    file,
                    "cross-attention interval",
                    format!("every {wanted} layers as asked for"),
                    found,
                ))
            }
            _ => Ok(every),
        }
    }

    /// Adds the resampler, whose width is that of the vision tower.
    pub fn plan_resampler(&self, width: usize, plan: &mut Plan<'a>) -> Result<()> {
        let block = Block { trained: self, tensors: &self.resampler, prefix: RESAMPLER.to_owned() };
        let layers = self
            .resampler
            .keys()
            .filter_map(|name| layer_and_rest(name.strip_prefix("layers.")?))
            .map(|(layer, _)| layer + 1);
        let depth = layers.max().unwrap_or(0);
        let mut shapes = vec![("latents".to_owned(), vec![block.length("latents", 0)?, width])];
        shapes.extend(norm("norm", width));
        for layer in 0..depth {
            let name = |rest: &str| format!("layers.{layer}.{rest}");
            let inner = block.inner(&name("0.to_q.weight"))?;
            let hidden = block.length(&name("1.1.weight"), 0)?;
            shapes.extend(norm(&name("0.norm_media"), width).into_iter().chain(norm(&name("0.norm_latents"), width)));
            shapes.extend([
                (name("0.to_q.weight"), vec![inner, width]),
                (name("0.to_kv.weight"), vec![2 * inner, width]),
                (name("0.to_out.weight"), vec![width, inner]),
                (name("1.1.weight"), vec![hidden, width]),
                (name("1.3.weight"), vec![width, hidden]),
            ]);
            shapes.extend(norm(&name("1.0"), width));
        }
        for (name, middle) in [("frame_embs", None), ("media_time_embs", Some(1))] {
            if self.resampler.contains_key(name) {
                shapes.push((
                    name.to_owned(),
                    [block.length(name, 0)?].into_iter().chain(middle).chain([width]).collect(),
                ));
            }
        }
        block.plan(&shapes, plan)
    }

    /// Adds the language model: trained tensors where there are any, else its own.
    pub fn plan_language(&self, vocabulary: usize, plan: &mut Plan<'a>) -> Result<()> {
        self.language.plan(&self.language_tensors, self.checkpoint, vocabulary, plan)
    }

    /// Adds the gated blocks, between a language model and a resampler of width `media_width`.
    pub fn plan_gated_blocks(&self, media_width: usize, plan: &mut Plan<'a>) -> Result<()> {
        let width = self.language.width;
        for (layer, tensors) in &self.gated {
            let prefix = format!("{LANGUAGE}{}.{layer}.{GATED}", self.language.family.layers);
            let block = Block { trained: self, tensors, prefix };
            let inner = block.inner("attn.to_q.weight")?;
            let hidden = block.length("ff.1.weight", 0)?;
            let mut shapes: Vec<(String, Vec<usize>)> = [
                ("attn_gate", vec![1]),
                ("ff_gate", vec![1]),
                ("attn.to_q.weight", vec![inner, width]),
                ("attn.to_kv.weight", vec![2 * inner, media_width]),
                ("attn.to_out.weight", vec![width, inner]),
                ("ff.1.weight", vec![hidden, width]),
                ("ff.3.weight", vec![width, hidden]),
            ]
            .map(|(name, shape)| (name.to_owned(), shape))
            .into();
            shapes.extend(norm("attn.norm", width).into_iter().chain(norm("ff.0", width)));
            block.plan(&shapes, plan)?;
        }
        Ok(())
    }
}

/// A group of trained tensors that must be complete.
struct Block<'t, 'a> {
    trained: &'t Trained<'a>,
    /// Names in the group and in the file.
    tensors: &'t BTreeMap<&'a str, &'a str>,
    /// What stands before the names in the usual checkpoint.
    prefix: String,
}

impl<'a> Block<'_, 'a> {
    fn key(&self, name: &str) -> Result<&'a str> {
        let missing = || {
            let key = format!("{}{name}", self.prefix);
            Error::invalid(self.trained.checkpoint.path(), key, "a tensor of this name", "none")
        };
        self.tensors.get(name).copied().ok_or_else(missing)
    }

    /// One dimension of a tensor.
    fn length(&self, name: &str, dimension: usize) -> Result<usize> {
        let key = self.key(name)?;
        let shape = self.trained.checkpoint.shape(key).unwrap_or_default();
        match shape.get(dimension) {
            // Nothing is empty here, so no dimension is larger than the file.
            Some(&length) if !shape.contains(&0) => Ok(length),
            _ => Err(Error::invalid(self.trained.checkpoint.file_of(key), key, "a matrix", format!("shape {shape:?}"))),
        }
    }

    /// The width of all heads of an attention, which the rows of its query projection tell.
    fn inner(&self, query: &str) -> Result<usize> {
        let inner = self.length(query, 0)?;
        if !inner.is_multiple_of(HEAD_WIDTH) {
            let (key, expected) = (self.key(query)?, format!("rows for heads of width {HEAD_WIDTH}"));
            return Err(Error::invalid(self.trained.checkpoint.file_of(key), key, expected, inner));
        }
        Ok(inner)
    }

    /// Adds the tensors of these names and shapes, which must be all there are.
    fn plan(&self, shapes: &[(String, Vec<usize>)], plan: &mut Plan<'a>) -> Result<()> {
        let checkpoint = self.trained.checkpoint;
        let known: BTreeSet<&str> = shapes.iter().map(|(name, _)| name.as_str()).collect();
        if let Some((_, key)) = self.tensors.iter().find(|(name, _)| !known.contains(*name)) {
            return Err(Error::invalid(
                checkpoint.file_of(key),
                key,
                "only tensors of the architecture",
                "another one",
            ));
        }
        for (name, shape) in shapes {
            let key = self.key(name)?;
            checkpoint.check(key, shape)?;
            plan.add(format!("{}{name}", self.prefix), checkpoint, key)?;
        }
        Ok(())
    }
}

/// The weight and bias of a layer norm.
fn norm(name: &str, width: usize) -> [(String, Vec<usize>); 2] {
    ["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![width]))
}

//! What decides an engine's answers besides the requests: what was answered with one belongs to an engine of the same.
//!
//! A model is what is in its files, wherever they are: the numbers of its weights, all of them, however they are spread
//! over files, and the bytes of the others. Reading 20 GB of weights takes a few seconds on one core's time of hashing;
//! they are read for the first answer anyway.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::Engine;
use super::built_in::MODEL;
use crate::backend::Device;
use crate::checkpoint::{Checkpoint, Folder, read_bounded};
use crate::error::{Error, Result};
use crate::kv::KvDtype;

/// The files that decide, beside the weights; some may be missing.
const FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];
/// Largest of them; they were read within limits of their own when the model was opened.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Longest line that holds an identity and settings beside it; one has about a kilobyte.
pub const LINE_BYTES_MAX: usize = 1 << 16;

/// By name: in words, or digests of 64 bits.
pub type Identity = BTreeMap<String, String>;

impl Engine {
    /// What decides its answers.
    ///
    /// # Errors
    /// Files that cannot be read any more.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let folder = self.folder().map_or(MODEL, Folder::Disk);
        let mut identity = Identity::new();
        for name in FILES.into_iter().filter(|name| folder.has(name)) {
            let bytes = match folder {
                Folder::Disk(_) => read_bounded(&folder.path(name), FILE_BYTES_MAX)?,
                Folder::Embedded(files) => {
                    files.iter().find(|(file, _)| *file == name).map_or(Vec::new(), |(_, bytes)| bytes.to_vec())
                }
            };
            identity.insert(name.to_owned(), short(blake3::hash(&bytes)));
        }
        identity.insert("weights".to_owned(), weights(self.preparer().checkpoint())?);
        // One of several alike gives the answers of another.
        let device = match self.device() {
            Device::Cuda(_) => "cuda".to_owned(),
            other => other.to_string(),
        };
        identity.insert("device".to_owned(), device);
        let dtype = self.dtype().map_or("default".to_owned(), |dtype| dtype.to_string());
        identity.insert("dtype".to_owned(), dtype);
        if self.kv_dtype() != KvDtype::Auto {
            identity.insert("kv_dtype".to_owned(), self.kv_dtype().to_string());
        }
        Ok(identity)
    }
}

/// Whether what was answered under one identity may be gone on with under another; `file` holds the answers, which are
/// those of `what`.
///
/// # Errors
/// The first name that differs.
pub fn check(file: &Path, what: &str, found: &Identity, wanted: &Identity) -> Result<()> {
    // What people look for first says most.
    let first = ["weights"].into_iter().chain(wanted.keys().chain(found.keys()).map(String::as_str));
    for key in first {
        let of = |identity: &Identity| identity.get(key).map_or("nothing".to_owned(), String::clone);
        let (found, wanted) = (of(found), of(wanted));
        if found != wanted {
            let found = format!("{found} (choose another --output)");
            return Err(Error::invalid(file, format!("{key} of its {what}"), wanted, found));
        }
    }
    Ok(())
}

/// Of all numbers that an engine may read, and how they are stored.
fn weights(checkpoint: &Checkpoint) -> Result<String> {
    let is_read = |name: &&str| checkpoint.kept(name).is_ok();
    let names: Vec<&str> = checkpoint.names().filter(is_read).collect();
    let digests = names.into_par_iter().map(|name| {
        let mut hasher = blake3::Hasher::new();
        if checkpoint.kept(name)?.is_quantised() {
            for raw in checkpoint.raw(name) {
                hasher.update(format!("{:?} {} {:?};", raw.name, raw.element, raw.shape).as_bytes()).update(raw.bytes);
            }
            return Ok(hasher.finalize());
        }
        let tensor = checkpoint.tensor(name)?;
        hasher.update(format!("{name:?} {} {:?};", tensor.dtype, tensor.shape).as_bytes()).update(&tensor.bytes);
        Ok(hasher.finalize())
    });
    let mut hasher = blake3::Hasher::new();
    for digest in digests.collect::<Result<Vec<_>>>()? {
        hasher.update(digest.as_bytes());
    }
    Ok(short(hasher.finalize()))
}

/// The digits of a digest that tell a file from others.
pub fn short(hash: blake3::Hash) -> String {
    hash.to_hex()[..16].to_owned()
}

//! A model folder, on disk or compiled into the program.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::{Checkpoint, Load, foreign, is_there, kind, parse_json, read_bounded, read_json};
use crate::error::{Error, Result};

/// Largest configuration file that is read.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 << 20;
const CONFIG: &str = "config.json";

/// Where the files of a model are.
#[derive(Debug, Clone, Copy)]
pub enum Folder<'a> {
    /// A folder on disk.
    Disk(&'a Path),
    /// Names and contents that are part of the program.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Folder<'_> {
    /// What errors call a file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Folder::Disk(folder) => folder.join(name),
            Folder::Embedded(_) => Path::new("<embedded>").join(name),
        }
    }

    /// Whether the folder has a file, or a link that leads nowhere: only what is not there counts as absent.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Folder::Disk(folder) => is_there(&folder.join(name)),
            Folder::Embedded(_) => self.embedded(name).is_some(),
        }
    }

    /// The bytes of a file of at most `bytes_max`.
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Cow<'static, [u8]>> {
        match self {
            Folder::Disk(_) => read_bounded(&self.path(name), bytes_max).map(Cow::Owned),
            Folder::Embedded(_) => self.expect(name).map(Cow::Borrowed),
        }
    }

    /// A JSON file of at most `bytes_max` bytes; see [`read_json`].
    pub fn json(&self, name: &str, bytes_max: u64) -> Result<serde_json::Value> {
        let path = self.path(name);
        match self {
            Folder::Disk(_) => read_json(&path, bytes_max),
            Folder::Embedded(_) => parse_json(&path, self.expect(name)?),
        }
    }

    /// A JSON object that may be missing, and is then empty.
    pub fn object_if_there(&self, name: &str, bytes_max: u64) -> Result<serde_json::Map<String, serde_json::Value>> {
        if !self.has(name) {
            return Ok(serde_json::Map::new());
        }
        match self.json(name, bytes_max)? {
            serde_json::Value::Object(map) => Ok(map),
            other => Err(Error::invalid(self.path(name), "the whole file", "a JSON object", kind(&other))),
        }
    }

    /// The weights, mapped; see [`Checkpoint::open`].
    ///
    /// # Errors
    /// As for [`Folder::load`].
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        self.load(Load::Map)
    }

    /// The weights, mapped or read; see [`Checkpoint::load`].
    ///
    /// # Errors
    /// As for [`Checkpoint::load`]; a file in the place of the folder; weights of an adapter; weights that are
    /// quantised in a format that is not read, or do not fit each other.
    pub fn load(&self, load: Load) -> Result<Checkpoint> {
        match self {
            Folder::Disk(folder) => {
                let quantisation = self.quantisation()?;
                foreign::refuse_beside(folder, quantisation.is_some())?;
                let mut checkpoint = Checkpoint::load(folder, load)?;
                if checkpoint.path() == *folder {
                    let expected = "the folder of a model";
                    return Err(Error::invalid(folder, "model", expected, "a file: name the folder that it is in"));
                }
                if let Some(quantisation) = quantisation {
                    checkpoint.join(&self.path(CONFIG), &quantisation)?;
                }
                Ok(checkpoint)
            }
            Folder::Embedded(_) => {
                let name = "model.safetensors";
                Checkpoint::embedded(&self.path(name), self.expect(name)?)
            }
        }
    }

    /// What `config.json` says of how weights were quantised.
    fn quantisation(&self) -> Result<Option<serde_json::Value>> {
        let mut config = match self.has(CONFIG) {
            true => self.json(CONFIG, CONFIG_BYTES_MAX)?,
            false => return Ok(None),
        };
        let found = config.get_mut("quantization_config").map(serde_json::Value::take);
        Ok(found.filter(|found| !found.is_null()))
    }

    fn embedded(&self, name: &str) -> Option<&'static [u8]> {
        match self {
            Folder::Disk(_) => None,
            Folder::Embedded(files) => files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes),
        }
    }

    fn expect(&self, name: &str) -> Result<&'static [u8]> {
        self.embedded(name).ok_or_else(|| Error::file(self.path(name), "no such file in the program"))
    }
}

//! A model file in memory: mapped, read or part of the program; and whether the file is still what was opened.

#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use memmap2::Mmap;

use super::open_regular;
use crate::error::{Error, Result};

/// How weights come from files to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Load {
    /// Files are mapped: a model opens at once, its pages are read when they are used, and processes share them. The
    /// files must stay as they are. One that is written to or cut is found out before an answer is handed out, but to
    /// read behind the end of a file that was cut ends the process, on Unix by the signal SIGBUS.
    #[default]
    Map,
    /// Files are read into memory of the process's own when the model is opened. What becomes of them later is no
    /// matter.
    Read,
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Load::Map => "map",
            Load::Read => "read",
        })
    }
}

impl FromStr for Load {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "map" => Ok(Load::Map),
            "read" => Ok(Load::Read),
            other => Err(Error::argument(format!("load: expected map or read, found {other:?}"))),
        }
    }
}

/// A model file.
#[derive(Debug)]
pub(super) struct ModelFile {
    path: PathBuf,
    bytes: Bytes,
}

/// What a file's bytes are borrowed from.
#[derive(Debug)]
enum Bytes {
    /// The map, the file, and how that was when it was mapped.
    Map(Mmap, File, Stamp),
    Own(Vec<u8>),
    Embedded(&'static [u8]),
}

/// What changes when a file is written to or cut. A name that is given to another file changes nothing: the one that is
/// mapped lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &File, path: &Path) -> Result<Stamp> {
        let metadata = file.metadata().map_err(|reason| Error::file(path, reason))?;
        Ok(Stamp { length: metadata.len(), modified: metadata.modified().ok() })
    }

    /// That a file is as it was.
    fn check(self, file: &File, path: &Path) -> Result<()> {
        let now = Stamp::of(file, path)?;
        if now == self {
            return Ok(());
        }
        let found = match now.length == self.length {
            true => "one that was written to".to_owned(),
            false => format!("{} bytes, {} when it was opened", now.length, self.length),
        };
        Err(Error::invalid(path, "file", "one that stays as it is while it is in use", found))
    }
}

impl ModelFile {
    pub fn open(path: &Path, load: Load) -> Result<Self> {
        let file = open_regular(path)?;
        let stamp = Stamp::of(&file, path)?;
        // A map of nothing is an error of its own kind on each system, so it is named here.
        if stamp.length == 0 {
            return Err(Error::invalid(path, "length", "a safetensors file or a PyTorch archive", "an empty file"));
        }
        let bytes = match load {
            Load::Map => {
                // SAFETY: a map is sound as long as nobody writes to the file or cuts it while it is mapped. We assume
                // that of model files, as every engine that maps them does. A file that is cut all the same ends the
                // process with SIGBUS; one that is overwritten changes weights and nothing else, because all offsets
                // were copied out of the map and checked at opening against the map's own length.
                let map = unsafe { Mmap::map(&file) }.map_err(|reason| Error::file(path, reason))?;
                Bytes::Map(map, file, stamp)
            }
            Load::Read => {
                let bytes = read(&file, path, stamp.length)?;
                stamp.check(&file, path)?;
                Bytes::Own(bytes)
            }
        };
        Ok(ModelFile { path: path.to_owned(), bytes })
    }

    /// A file that is part of the program.
    pub fn embedded(path: &Path, bytes: &'static [u8]) -> Self {
        ModelFile { path: path.to_owned(), bytes: Bytes::Embedded(bytes) }
    }

    /// What it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// That it still is what was mapped.
    pub fn check_unchanged(&self) -> Result<()> {
        match &self.bytes {
            Bytes::Map(_, file, stamp) => stamp.check(file, &self.path),
            Bytes::Own(_) | Bytes::Embedded(_) => Ok(()),
        }
    }
}

impl Deref for ModelFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Map(map, ..) => map,
            Bytes::Own(bytes) => bytes,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

/// All of a file, whose memory is asked for first: one that does not fit is an error.
fn read(mut file: &File, path: &Path, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = usize::try_from(length).ok().and_then(|length| bytes.try_reserve_exact(length).ok());
    if reserved.is_none() {
        return Err(Error::file(path, format!("no memory for its {length} bytes")));
    }
    (&mut file).take(length).read_to_end(&mut bytes).map_err(|reason| Error::file(path, reason))?;
    Ok(bytes)
}

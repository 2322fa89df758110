//! The folder that a conversion writes: whole in the end, or gone, or, where the program was killed, known for what it
//! is at the next start.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::is_there;
use crate::error::{Error, Result};

/// Stands in the folder as long as it is written. What was left with it is a conversion that did not end.
const MARKER: &str = "convert.partial";
const MARKER_TEXT: &str = "`flamant convert` is writing this folder, or was ended before it was done.\n";
/// Files of a model that stand beside its weights and its configuration.
pub(crate) const BESIDE: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
];

/// All that a conversion writes, the configuration last.
fn files() -> impl Iterator<Item = &'static str> {
    ["model.safetensors"].into_iter().chain(BESIDE).chain(["config.json"])
}

/// The folder. Unless it is kept, it is taken away again.
pub(crate) struct Output {
    folder: PathBuf,
    /// Whether the folder itself is ours.
    created: bool,
    /// Locked while the folder is written.
    _marker: File,
}

impl Output {
    /// A folder must be new or empty, or hold a conversion that did not end, which is removed: an earlier model is
    /// never mixed with this one, nor lost to it.
    pub fn create(folder: &Path) -> Result<Self> {
        let created = !is_there(folder);
        fs::create_dir_all(folder).map_err(|reason| Error::file(folder, reason))?;
        let marker = folder.join(MARKER);
        if !fs::symlink_metadata(&marker).is_ok_and(|marker| marker.is_file()) {
            hold_nothing_but(folder, |_| false)?;
        }
        let failed = |reason: io::Error| Error::file(&marker, reason);
        let mut file = File::options().create(true).append(true).open(&marker).map_err(failed)?;
        // A file system without locks is no reason to stop.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::file(folder, "another conversion is writing it"));
        }
        // The marker is gone if another conversion kept the folder just now.
        let marked = is_there(&marker);
        hold_nothing_but(folder, |name| marked && (name == MARKER || ours().any(|ours| name == ours)))?;
        let output = Output { folder: folder.to_owned(), created, _marker: file.try_clone().map_err(failed)? };
        output.clear(failed)?;
        file.write_all(MARKER_TEXT.as_bytes()).map_err(failed)?;
        Ok(output)
    }

    /// Writes a file under a temporary name and gives it its own when it is complete.
    pub fn write(&self, name: &str, write: impl FnOnce(&mut dyn Write, &Path) -> Result<()>) -> Result<()> {
        assert!(files().any(|file| file == name), "what is left of a conversion is known by its names");
        let (path, partial) = (self.folder.join(name), self.folder.join(partial(name)));
        let failed = |reason: io::Error| Error::file(&path, reason);
        let mut file = BufWriter::new(File::create_new(&partial).map_err(failed)?);
        write(&mut file, &path)?;
        let file = file.into_inner().map_err(|reason| failed(reason.into_error()))?;
        // A name that outlives a power failure stands for a file that does.
        file.sync_all().map_err(failed)?;
        fs::rename(&partial, &path).map_err(failed)
    }

    pub fn write_json(&self, name: &str, value: &Value) -> Result<()> {
        self.write(name, |file, path| writeln!(file, "{value:#}").map_err(|reason| Error::file(path, reason)))
    }

    /// The folder is whole.
    pub fn keep(mut self) -> Result<()> {
        let marker = self.folder.join(MARKER);
        fs::remove_file(&marker).map_err(|reason| Error::file(&marker, reason))?;
        // Nothing is to be taken away any more.
        self.folder = PathBuf::new();
        Ok(())
    }

    /// Removes all that a conversion writes.
    fn clear(&self, failed: impl Fn(io::Error) -> Error) -> Result<()> {
        for name in ours() {
            match fs::remove_file(self.folder.join(name)) {
                Err(reason) if reason.kind() != io::ErrorKind::NotFound => return Err(failed(reason)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Output {
    /// What cannot be removed stays: the error that led here is the one to report. The marker goes last.
    fn drop(&mut self) {
        if self.folder.as_os_str().is_empty() {
            return;
        }
        let cleared = self.clear(|reason| Error::file(&self.folder, reason));
        if cleared.is_ok() && fs::remove_file(self.folder.join(MARKER)).is_ok() && self.created {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// That all entries of a folder have known names.
fn hold_nothing_but(folder: &Path, known: impl Fn(&str) -> bool) -> Result<()> {
    let failed = |reason| Error::file(folder, reason);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !name.to_str().is_some_and(&known) {
            return Err(Error::invalid(folder, "output", "a new or empty folder", name.display()));
        }
    }
    Ok(())
}

fn ours() -> impl Iterator<Item = String> {
    files().flat_map(|name| [partial(name), name.to_owned()])
}

fn partial(name: &str) -> String {
    format!("{name}.partial")
}

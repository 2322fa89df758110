//! Files that are whole or not there: written under another name beside their place, then renamed to it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a file, or replaces it. Whoever opens `path` finds all of what was there before or all of what `write` wrote.
///
/// # Errors
/// Of the file system; what was there before is left alone then.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let failed = |reason| Error::file(path, reason);
    let Some(name) = path.file_name() else {
        return Err(Error::file(path, "not the name of a file"));
    };
    let mut partial = name.to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(partial);
    let written = File::create(&partial).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.flush()?;
        // A name must not reach the disk before the bytes that it promises.
        file.get_ref().sync_all()?;
        fs::rename(&partial, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.map_err(failed)
}

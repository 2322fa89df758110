//! What a person names to be read: a file, or a pipe or device, which is read once.
//!
//! What a file names (an image in a prompt, a shard in an index) is no matter of this: a pipe there would let the
//! writer of that file hold up the reader.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::error::{Error, Result};

/// Opens what is no folder. A pipe waits for whoever writes to it.
pub fn open_input(path: &Path) -> Result<File> {
    let failed = |reason| Error::file(path, reason);
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(Error::file(path, "expected a file, found a folder"));
    }
    File::open(path).map_err(failed)
}

/// The whole of it, of at most `bytes_max` bytes.
pub fn read_input(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let failed = |reason| Error::file(path, reason);
    let file = open_input(path)?;
    let too_large = |bytes| Error::limit(format!("{}: bytes", path.display()), bytes_max, bytes);
    // Of a pipe no length is known.
    let length = file.metadata().map_err(failed)?.len();
    if length > bytes_max {
        return Err(too_large(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        length if length > bytes_max => Err(too_large(length)),
        _ => Ok(bytes),
    }
}

//! What a person names to be read: a file, or a pipe or device, which is read once.
//!
//! What a file names (an image in a prompt, a shard in an index) is no matter of this: a pipe there would let the
//! writer of that file hold up the reader.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

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
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(length as usize).is_err() {
        return Err(Error::file(path, format!("no memory for its {length} bytes")));
    }
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        length if length > bytes_max => Err(too_large(length)),
        _ => Ok(bytes),
    }
}

/// A file with a digest of its content, to tell later whether it is still the same.
pub struct Unchanged {
    path: PathBuf,
    digest: blake3::Hash,
}

impl Unchanged {
    /// Reads the file once.
    ///
    /// # Errors
    /// Of the file system.
    pub fn of(path: &Path) -> Result<Unchanged> {
        let digest = digest(path).map_err(|reason| Error::file(path, reason))?;
        Ok(Unchanged { path: path.to_owned(), digest })
    }

    /// Reads it again.
    ///
    /// # Errors
    /// A file that is not there any more, or has another content.
    pub fn check(&self) -> Result<()> {
        match digest(&self.path) {
            Ok(digest) if digest == self.digest => Ok(()),
            _ => Err(Error::file(&self.path, "it was replaced, removed or changed while it was being read")),
        }
    }
}

fn digest(path: &Path) -> io::Result<blake3::Hash> {
    // A pipe in its place would be waited for.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("expected a file, found something else"));
    }
    let mut hasher = blake3::Hasher::new();
    let (mut file, mut piece) = (File::open(path)?, vec![0; 1 << 16]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&piece[..count]),
        };
    }
}

//! What is written as a whole. A file is written under another name beside its place, and gets its name when it is
//! whole: whoever opens it finds all of what was there before, or all of what was written. A link is followed. What is
//! no file, as a pipe or a device, is written as it is, and never replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Error as IoError, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Links that are followed one after the other, as on Linux.
const LINKS_MAX: usize = 40;

/// What is being written; nothing is left of a file that is not finished.
pub struct Output {
    /// As errors call it.
    path: PathBuf,
    writer: BufWriter<File>,
    /// Of a file: what it is called until it is whole, and where it belongs.
    names: Option<[PathBuf; 2]>,
}

/// Writes all of an output.
///
/// # Errors
/// Of the file system; a file that was there before is left alone then.
pub fn write(path: &Path, write: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<()> {
    let mut output = Output::create(path)?;
    write(&mut output).map_err(|reason| Error::file(path, reason))?;
    output.finish()
}

impl Output {
    /// Opens an output.
    ///
    /// # Errors
    /// A folder, a file that may not be written, or no place for it.
    pub fn create(path: &Path) -> Result<Output> {
        Self::open(path).map_err(|reason| Error::file(path, reason))
    }

    fn open(path: &Path) -> io::Result<Output> {
        let (path, write) = (path.to_owned(), OpenOptions::new().write(true).clone());
        let Some(target) = file_at(&path)? else {
            return Ok(Output { writer: BufWriter::new(write.open(&path)?), path, names: None });
        };
        let there = match write.open(&target) {
            Ok(file) => Some(file.metadata()?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (partial, file) = partial(&target)?;
        let output = Output { path, writer: BufWriter::new(file), names: Some([partial, target]) };
        if let Some(there) = there {
            output.writer.get_ref().set_permissions(there.permissions())?;
        }
        Ok(output)
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// Of the file system.
    pub fn finish(mut self) -> Result<()> {
        let finished = self.writer.flush().and_then(|()| match &self.names {
            None => Ok(()),
            Some([partial, target]) => {
                // A name must not reach the disk before the bytes that it promises.
                self.writer.get_ref().sync_all()?;
                fs::rename(partial, target)
            }
        });
        if finished.is_ok() {
            self.names = None;
        }
        finished.map_err(|reason| Error::file(&self.path, reason))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some([partial, _]) = &self.names {
            let _ = fs::remove_file(partial);
        }
    }
}

/// The file that a path leads to, whether it is there or not; none if it leads to something else than a file.
///
/// # Errors
/// A folder; links without an end.
pub fn file_at(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => return Err(IoError::new(ErrorKind::IsADirectory, "Is a directory")),
        Ok(there) if !there.is_file() => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // An open file of a process, such as /dev/stdout: its link does not say where it is.
        if fs::canonicalize(folder).is_ok_and(|folder| folder.starts_with("/proc")) {
            return Ok(None);
        }
        match fs::read_link(&path) {
            Ok(next) => path = folder.join(next),
            Err(_) => return Ok(Some(path)),
        }
    }
    Err(IoError::other("too many links"))
}

/// Makes a file beside another one, under a name that nothing has.
fn partial(target: &Path) -> io::Result<(PathBuf, File)> {
    if target.file_name().is_none() {
        return Err(IoError::new(ErrorKind::InvalidInput, "not the name of a file"));
    }
    for number in 0.. {
        let path = target.with_file_name(format!("flamant.{}.{number}.partial", std::process::id()));
        match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (path, file)),
        }
    }
    unreachable!("there are more numbers than files")
}

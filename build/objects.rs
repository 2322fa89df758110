//! Runs compilers side by side, and only for what changed: an object is kept under a name made from all that went into
//! it, the text of the source and of the headers it includes, the command, and the compiler's version.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process, thread};

/// One call of a compiler: `program arguments.. -o object source`.
pub struct Job {
    /// Name of the object, unlike all others, and its extension.
    pub name: (String, &'static str),
    pub source: PathBuf,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// The program's version.
    pub version: String,
}

/// What a compiler made.
pub struct Object {
    pub path: PathBuf,
    /// What it said meanwhile.
    pub messages: String,
}

/// The objects of all jobs, in their order. Older objects of the same names are removed from `folder`.
///
/// # Errors
/// The first compiler that fails, with all it said.
pub fn compile(jobs: &[Job], folder: &Path) -> Result<Vec<Object>, String> {
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    let workers = env::var("NUM_JOBS").ok().and_then(|count| count.parse().ok());
    let workers = workers.or(thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<Result<Object, String>>> = jobs.iter().map(|_| OnceLock::new()).collect();
    thread::scope(|scope| {
        for _ in 0..workers.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < jobs.len()) {
                    results[index].get_or_init(|| jobs[index].object(folder));
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().expect("every job has run")).collect()
}

impl Job {
    /// The object from an earlier build, or a new one.
    fn object(&self, folder: &Path) -> Result<Object, String> {
        let (name, extension) = &self.name;
        let key = self.key()?;
        let path = folder.join(format!("{name}-{key:016x}.{extension}"));
        let log = path.with_extension(format!("{extension}.txt"));
        if let (true, Ok(messages)) = (path.exists(), fs::read_to_string(&log)) {
            return Ok(Object { path, messages });
        }
        remove_older(folder, name, extension);

        // Whoever finds the object finds it whole.
        let unfinished = path.with_extension(format!("{}.{extension}", process::id()));
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("-o").arg(&unfinished).arg(&self.source);
        let messages = run(&mut command)?;
        fs::write(&log, &messages).map_err(|error| failed(&log, &error))?;
        fs::rename(&unfinished, &path).map_err(|error| failed(&path, &error))?;
        Ok(Object { path, messages })
    }

    fn key(&self) -> Result<u64, String> {
        let mut hasher = DefaultHasher::new();
        (&self.program, &self.arguments, &self.version).hash(&mut hasher);
        for path in with_headers(&self.source)? {
            let text = fs::read(&path).map_err(|error| failed(&path, &error))?;
            (path.file_name(), text).hash(&mut hasher);
        }
        Ok(hasher.finish())
    }
}

/// Runs a command to its end; what it said.
pub fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().display().to_string();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(said) } else { Err(format!("{program}: {}\n{said}", output.status)) }
}

/// A source, and all headers beside it that it includes, directly or not.
fn with_headers(source: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let mut found = BTreeSet::new();
    let mut open = vec![source.to_path_buf()];
    while let Some(path) = open.pop() {
        if found.contains(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
        let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("#include \"")?.split('"').next());
        open.extend(names.map(|name| path.with_file_name(name)).filter(|header| header.exists()));
        found.insert(path);
    }
    Ok(found)
}

fn remove_older(folder: &Path, name: &str, extension: &str) {
    for path in fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
        let older = path.file_name().and_then(|file| file.to_str()).is_some_and(|file| {
            let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            rest.and_then(|rest| rest.get(16..)).is_some_and(|rest| rest.starts_with(&format!(".{extension}")))
        });
        if older {
            // Another build may have been faster.
            fs::remove_file(path).ok();
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

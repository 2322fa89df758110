//! The output of a batch: what it belongs to, then a line an answer.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::engine::identity::{self, Identity};
use crate::error::{Error, Result};
use crate::files::Lines;
use crate::parse;

/// How the first line of the output begins.
const HEAD: &str = "{\"batch\":";
/// How every other line begins.
const BEGIN: &str = "{\"line\":";

/// Which lines of the input are answered, and the digest of each. An error is no answer: it is asked again.
#[derive(Clone, Default)]
pub struct Answered(Arc<Vec<(u64, u64)>>);

impl Answered {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The digest of a line that is answered.
    pub fn digest(&self, line: u64) -> Option<u64> {
        let place = self.0.binary_search_by_key(&line, |(line, _)| *line).ok()?;
        Some(self.0[place].1)
    }

    /// The first line answered after this one.
    pub fn first_after(&self, line: u64) -> Option<u64> {
        self.0.get(self.0.partition_point(|(answered, _)| *answered <= line)).map(|(answered, _)| *answered)
    }
}

/// The first line: what decides the answers besides the requests.
#[derive(Deserialize)]
struct Head {
    batch: Identity,
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Line {
    line: u64,
    request: String,
    error: Option<IgnoredAny>,
}

/// The output, open for more.
pub struct Answers {
    /// As errors call it.
    name: String,
    to: To,
    /// What is there belongs to it.
    head: Option<Identity>,
}

/// Where answers go.
enum To {
    Lines(Lines),
    /// What cannot be read again: a pipe, a device, standard output.
    Stream(Box<dyn Write + Send>),
}

impl Answers {
    /// Opens the file or makes it, and reads what is there; nothing is changed yet.
    ///
    /// # Errors
    /// Those of [`Lines::open`]; two answers to one line.
    pub fn open(path: &Path) -> Result<(Answers, Answered)> {
        let name = path.display().to_string();
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
            let stream =
                std::fs::OpenOptions::new().write(true).open(path).map_err(|error| Error::file(path, error))?;
            return Ok((Self::stream(Box::new(stream), name), Answered::default()));
        }
        let (mut head, mut answered) = (None, Vec::new());
        let begin = |number: u64| if number == 1 { HEAD } else { BEGIN };
        let lines = Lines::open(path, "an answer of flamant batch", begin, |number, text| {
            if number == 1 {
                if text.len() > identity::LINE_BYTES_MAX {
                    return Err(format!("{} bytes", text.len()));
                }
                let Head { batch } = parse::line(text)?;
                head = Some(batch);
                return Ok(true);
            }
            let line: Line = parse::line(text)?;
            let digest = u64::from_str_radix(&line.request, 16).map_err(|_| "no request")?;
            if line.line == 0 {
                return Err("one to line 0".to_owned());
            }
            if line.error.is_none() {
                answered.push((line.line, digest));
            }
            Ok(line.error.is_none())
        })?;
        answered.sort_unstable();
        if let Some(pair) = answered.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let key = format!("answers to line {}", pair[0].0);
            return Err(Error::invalid(path, key, "one", "more"));
        }
        Ok((Answers { name, to: To::Lines(lines), head }, Answered(Arc::new(answered))))
    }

    /// Something that is open.
    pub fn stream(stream: Box<dyn Write + Send>, name: String) -> Answers {
        Answers { name, to: To::Stream(stream), head: None }
    }

    /// Makes it ready for answers of an engine. The first line is written with the first answer, so that what fails
    /// before binds nobody.
    ///
    /// # Errors
    /// Answers of another engine's, which are left alone.
    pub fn begin(self, engine: Identity) -> Result<Begun> {
        let Answers { name, to, head } = self;
        if let Some(head) = &head {
            identity::check(name.as_ref(), "batch", head, &engine)?;
        }
        let to = match to {
            To::Lines(lines) => To::Lines(lines.begin()?),
            stream => stream,
        };
        Ok(Begun { name, to, head: head.is_none().then_some(engine) })
    }
}

/// What follows the labels of an answer: notes, the fields of the report, and the object's end.
pub fn rest(notes: &[String], report: &Value) -> String {
    let report = report.to_string();
    let fields = report.strip_prefix('{').expect("reports are objects with fields");
    if notes.is_empty() { fields.to_owned() } else { format!("\"notes\":{},{fields}", json!(notes)) }
}

/// An output that answers are written to.
pub struct Begun {
    name: String,
    to: To,
    /// The first line, if it is not written.
    head: Option<Identity>,
}

impl Begun {
    /// Appends an answer, in one write.
    pub fn add(&mut self, line: u64, digest: u64, id: Option<&Value>, notes: &[String], report: &Value) -> Result<()> {
        if let Some(head) = self.head.take() {
            self.write(&json!({ "batch": head }).to_string())?;
        }
        let (id, rest) = (id.unwrap_or(&Value::Null), rest(notes, report));
        self.write(&format!("{BEGIN}{line},\"id\":{id},\"request\":\"{digest:016x}\",{rest}"))
    }

    fn write(&mut self, line: &str) -> Result<()> {
        match &mut self.to {
            To::Lines(lines) => lines.add(line),
            To::Stream(stream) => {
                let written = stream.write_all(format!("{line}\n").as_bytes()).and_then(|()| stream.flush());
                written.map_err(|error: io::Error| Error::file(&self.name, error))
            }
        }
    }

    /// Whether all that was added is where it was asked for.
    ///
    /// # Errors
    /// Those of [`Lines::finish`].
    pub fn finish(&self) -> Result<()> {
        match &self.to {
            To::Lines(lines) => lines.finish(),
            To::Stream(_) => Ok(()),
        }
    }
}

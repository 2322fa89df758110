//! The input of `flamant batch`: lines, and the requests in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flamant::{Error, Generation, Prompt, PromptLimits, Request, Task};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::answers::Answered;
use crate::cli::lines::{End, read_line};

/// Keys of a request, beside those of one task.
const KEYS: &str = "id, prompt, task";
/// Keys of a request that writes.
const GENERATE_KEYS: &str = "max_new_tokens, num_beams, length_penalty, temperature, top_k, top_p, min_p, \
                             repetition_penalty, seed, stop, ignore_eos";

/// The requests that are not answered yet.
pub struct Requests {
    /// The input's name in errors.
    source: String,
    /// What paths of images are relative to.
    folder: PathBuf,
    reader: Box<dyn BufRead + Send>,
    /// Lines read.
    line: u64,
    answered: Answered,
    output: PathBuf,
}

/// One line of the input.
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    /// Tells it from other lines.
    pub digest: u64,
    source: String,
    folder: PathBuf,
    text: Vec<u8>,
}

/// The fields of a request that are not read yet.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

impl Requests {
    /// Opens a file, or standard input for `-`. `answered` are the lines that `output` answers.
    pub fn open(input: &Path, output: &Path, answered: Answered) -> Result<Requests, Error> {
        let (mut source, mut folder) = ("standard input".to_owned(), PathBuf::new());
        let reader: Box<dyn BufRead + Send> = match input.as_os_str() == "-" {
            true => Box::new(BufReader::new(std::io::stdin())),
            false => {
                let file = File::open(input).map_err(|error| Error::file(input, error))?;
                source = input.display().to_string();
                // A pipe may have a name, but no files beside it.
                if file.metadata().is_ok_and(|input| input.is_file()) {
                    folder = input.parent().unwrap_or(Path::new("")).to_owned();
                }
                Box::new(BufReader::new(file))
            }
        };
        Ok(Requests { source, folder, reader, line: 0, answered, output: output.to_owned() })
    }

    /// Reads on to the end; the number of lines that hold a request.
    pub fn count(mut self) -> Result<u64, Error> {
        let answered = self.answered.len() as u64;
        let mut count = 0;
        while self.next()?.is_some() {
            count += 1;
        }
        Ok(answered + count)
    }

    /// The next line that is not answered; empty lines are passed over.
    ///
    /// # Errors
    /// An input that cannot be read; an answer that belongs to another input.
    pub fn next(&mut self) -> Result<Option<Line>, Error> {
        loop {
            let mut text = Vec::new();
            let most = PromptLimits::default().bytes_max;
            let read =
                read_line(&mut self.reader, most, &mut text).map_err(|error| Error::file(&self.source, error))?;
            if read == End::Nothing {
                return match self.answered.first_after(self.line) {
                    None => Ok(None),
                    Some(line) => {
                        let expected = format!("an answer to one of the {} lines of {}", self.line, self.source);
                        Err(Error::invalid(&self.output, "line", expected, line))
                    }
                };
            }
            self.line += 1;
            let number = self.line;
            let digest = digest(&text);
            match self.answered.digest(number) {
                Some(found) if found == digest => {}
                Some(_) => {
                    let expected = format!("an answer to line {number} of {} as it is now", self.source);
                    let key = format!("answer to line {number}");
                    return Err(Error::invalid(&self.output, key, expected, "one to another request"));
                }
                None if text.trim_ascii().is_empty() => {}
                None => {
                    let (source, folder) = (self.source.clone(), self.folder.clone());
                    return Ok(Some(Line { number, digest, source, folder, text }));
                }
            }
        }
    }
}

impl Line {
    /// Reads the request, with its images. `id`, and whether choices are ranked by their `mean`, are set as soon as
    /// they are known, so that errors can be told with them.
    pub fn request(&self, id: &mut Option<String>, mean: &mut bool) -> Result<Request, Error> {
        let limits = PromptLimits::default();
        if self.text.len() as u64 > limits.bytes_max {
            let what = format!("{}: bytes of a request", self.place());
            return Err(Error::limit(what, limits.bytes_max, self.text.len() as u64));
        }
        let mut fields: Fields =
            serde_json::from_slice(&self.text).map_err(|error| self.invalid("request", "a JSON object", error))?;
        *id = self.take(&mut fields, "id", "a string")?;
        let task = self.take::<String>(&mut fields, "task", "a string")?;
        let task = match task.as_deref().unwrap_or("generate") {
            "generate" => Task::Generate(self.generation(&mut fields)?),
            "classify" => {
                *mean = self.take(&mut fields, "mean", "true or false")?.unwrap_or(false);
                let choices = self.take(&mut fields, "choices", "an array of strings")?;
                Task::Classify { choices: choices.ok_or_else(|| self.invalid("choices", "choices", "none"))? }
            }
            "score" => Task::Score { logits: false },
            other => return Err(self.invalid("task", "generate, classify or score", format!("{other:?}"))),
        };
        let prompt = fields.remove("prompt").ok_or_else(|| self.invalid("prompt", "a prompt", "none"))?;
        if let Some(key) = fields.keys().next() {
            let expected = match &task {
                Task::Generate(_) => format!("{KEYS}, {GENERATE_KEYS}"),
                Task::Classify { .. } => format!("{KEYS}, choices, mean"),
                _ => KEYS.to_owned(),
            };
            return Err(self.invalid("key", expected, format!("{key:?}")));
        }
        let prompt = Prompt::from_json(prompt.get(), &self.place(), &self.folder, limits)?;
        Ok(Request { prompt, task })
    }

    /// The settings of `flamant generate`, under the names of its flags.
    fn generation(&self, fields: &mut Fields) -> Result<Generation, Error> {
        let mut generation = Generation::default();
        let sampling = &mut generation.sampling;
        let (count, number) = ("a whole number", "a number");
        self.set(fields, "max_new_tokens", count, &mut generation.max_new_tokens)?;
        self.set(fields, "num_beams", count, &mut generation.num_beams)?;
        self.set(fields, "length_penalty", number, &mut generation.length_penalty)?;
        self.set(fields, "temperature", number, &mut sampling.temperature)?;
        self.set(fields, "top_k", count, &mut sampling.top_k)?;
        self.set(fields, "top_p", number, &mut sampling.top_p)?;
        self.set(fields, "min_p", number, &mut sampling.min_p)?;
        self.set(fields, "repetition_penalty", number, &mut sampling.repetition_penalty)?;
        self.set(fields, "seed", count, &mut sampling.seed)?;
        self.set(fields, "stop", "an array of strings", &mut generation.stop)?;
        self.set(fields, "ignore_eos", "true or false", &mut generation.ignore_eos)?;
        Ok(generation)
    }

    /// Reads a field, if it is there, in place of a default.
    fn set<T: DeserializeOwned>(
        &self,
        fields: &mut Fields,
        key: &str,
        expected: &str,
        value: &mut T,
    ) -> Result<(), Error> {
        if let Some(found) = self.take(fields, key, expected)? {
            *value = found;
        }
        Ok(())
    }

    fn take<T: DeserializeOwned>(&self, fields: &mut Fields, key: &str, expected: &str) -> Result<Option<T>, Error> {
        let Some(value) = fields.remove(key) else { return Ok(None) };
        serde_json::from_str(value.get()).map(Some).map_err(|_| self.invalid(key, expected, value))
    }

    fn place(&self) -> String {
        format!("{}: line {}", self.source, self.number)
    }

    fn invalid(&self, key: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::invalid(self.place(), key, expected, found)
    }
}

/// A number that tells a request from others.
fn digest(text: &[u8]) -> u64 {
    let hash = blake3::hash(text.trim_ascii());
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

//! How examples become a prompt: the words around images, questions and answers. A form is built in, or read from a
//! small JSON file:
//!
//! ```json
//! {"begin": "", "support": "{image}Q: {question} A: {answer}", "query": "{image}Q: {question} A:", "between": "\n",
//!  "choice": "{answer}", "stop": ["Q:"]}
//! ```
//!
//! `support` and `query` must be there; see [`Template`]. `{{` and `}}` stand for braces.

mod built_in;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::data::{Example, Medium};
use crate::engine::Generation;
use crate::error::{Error, Result};
use crate::files;
use crate::parse::{self, kind};
use crate::prompt::Prompt;

/// Largest file of a form.
const BYTES_MAX: u64 = 1 << 20;

/// What an example is about, for templates that are [built in](Template::named).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image and its caption.
    Caption,
    /// A question about an image and its answer.
    Question,
    /// An image and the name of its class.
    Classify,
    /// An image with the text written on it: is it hateful?
    Memes,
}

/// What is left of the support examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shots {
    /// Everything.
    Whole,
    /// Their words, without their images: how the family counts as zero shots (Flamingo, appendix B.1.5).
    TextOnly,
    /// As [`Shots::TextOnly`], but the image of the first example shown stands where that of the asked one belongs.
    /// A slip of OpenFlamingo 2.0.1 (`evaluate.py`, `evaluate_classification`) that its published numbers at zero shots
    /// for Hateful Memes contain.
    FirstImage,
}

/// The words of a prompt: `begin`, then each example shown as `support` has it, with `between` after it, then the asked
/// one as `query` has it. `choice` is how a name to choose from is weighed, `stop` are texts that end an answer, which
/// repeats no run of `no_repeat_ngram_size` tokens. What a file leaves out is empty; `choice` is then the name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    begin: String,
    support: Vec<Piece>,
    between: String,
    queries: Vec<Piece>,
    choice: Vec<Piece>,
    stop: Vec<String>,
    no_repeat_ngram_size: usize,
}

/// A piece of what is written for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Image,
    Question,
    Answer,
}

impl Template {
    /// The names of the forms that are built in: `openflamingo` as OpenFlamingo 2.0.1 evaluates; `idefics` and
    /// `idefics-instruct`, in the manner of IDEFICS's model card, because the authors' own evaluation forms are not
    /// public; `otter`, `mmgpt`, `med-flamingo` and `flamingo-mini` in that of their demonstrations; `mllama` and
    /// `mllama-instruct`, for Llama 3.2 Vision, in the manner of those of IDEFICS; `demo` as the
    /// model in the box was trained.
    pub const NAMES: [&str; 10] = [
        "openflamingo",
        "idefics",
        "idefics-instruct",
        "otter",
        "mmgpt",
        "med-flamingo",
        "flamingo-mini",
        "mllama",
        "mllama-instruct",
        "demo",
    ];

    /// The template of a name in [`Template::NAMES`], or else the one in a file.
    ///
    /// # Errors
    /// A file that is not there, cannot be read, or says something other than a form does.
    pub fn open(name_or_file: impl AsRef<Path>, kind: Kind) -> Result<Template> {
        let file = name_or_file.as_ref();
        match file.to_str().and_then(|name| Template::named(name, kind)) {
            Some(template) => Ok(template),
            None if file.symlink_metadata().is_ok() => Template::read(file),
            None => {
                let names = Template::NAMES.join(", ");
                Err(Error::argument(format!("template: expected {names} or a file, found {file:?}")))
            }
        }
    }

    /// Reads a form from a file.
    ///
    /// # Errors
    /// As [`Template::open`].
    pub fn read(file: &Path) -> Result<Template> {
        let bytes = files::read_input(file, BYTES_MAX)?;
        let root = parse::tree(file, "text", parse::text(file, "text", &bytes)?, parse::TREE_BYTES_MAX)?;
        let Value::Object(fields) = root else {
            return Err(Error::invalid(file, "template", "an object", kind(&root)));
        };
        let mut fields = Fields { file, fields: fields.into_iter().collect() };
        let stop = fields.texts("stop")?;
        if stop.iter().any(String::is_empty) {
            return Err(Error::invalid(file, "stop", "texts that end an answer", "an empty one"));
        }
        if let Err(error) = Generation::default().stop(stop.clone()).check() {
            return Err(Error::argument(format!("{}: stop: {error}", file.display())));
        }
        let template = Template {
            begin: fields.text("begin")?.unwrap_or_default(),
            support: fields.template("support", [Count::One, Count::Any, Count::One])?,
            between: fields.text("between")?.unwrap_or_default(),
            queries: fields.template("query", [Count::One, Count::Any, Count::None])?,
            choice: match fields.fields.contains_key("choice") {
                true => fields.template("choice", [Count::None, Count::None, Count::One])?,
                false => vec![Piece::Answer],
            },
            stop,
            no_repeat_ngram_size: fields.count("no_repeat_ngram_size")?,
        };
        match fields.fields.pop_first() {
            None => Ok(template),
            Some((key, _)) => {
                let expected = "begin, support, between, query, choice, stop, no_repeat_ngram_size";
                Err(Error::invalid(file, "key", expected, format!("{key:?}")))
            }
        }
    }

    /// Texts that end an answer, besides the family's own tokens.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// See [`Generation::no_repeat_ngram_size`](crate::Generation::no_repeat_ngram_size).
    pub fn no_repeat_ngram_size(&self) -> usize {
        self.no_repeat_ngram_size
    }

    /// The same with another [`Template::no_repeat_ngram_size`].
    #[must_use]
    pub fn with_no_repeat_ngram_size(self, no_repeat_ngram_size: usize) -> Template {
        Template { no_repeat_ngram_size, ..self }
    }

    /// What is weighed for a name to choose from.
    pub fn choice(&self, name: &str) -> String {
        self.choice.iter().map(|piece| if let Piece::Text(text) = piece { text } else { name }).collect()
    }

    /// A prompt of the examples `support`, in order, and the one that is asked. `load` adds what an example shows to
    /// the prompt.
    ///
    /// # Panics
    /// With [`Shots::FirstImage`] and no example shown.
    ///
    /// # Errors
    /// Those of `load`; a prompt that passes its limits.
    pub fn prompt(
        &self,
        support: &[&Example],
        queries: &Example,
        shots: Shots,
        load: &mut dyn FnMut(&mut Prompt, &Medium) -> Result<()>,
    ) -> Result<Prompt> {
        let mut writer = Writer { prompt: Prompt::new(), text: self.begin.clone(), load };
        for example in support {
            let medium = (shots == Shots::Whole).then_some(&example.medium);
            writer.write(&self.support, example, medium)?;
            writer.text.push_str(&self.between);
        }
        let medium = if shots == Shots::FirstImage { &support[0].medium } else { &queries.medium };
        writer.write(&self.queries, queries, Some(medium))?;
        writer.flush()?;
        Ok(writer.prompt)
    }
}

/// A prompt that grows. Text waits until an image follows, so that what stands together is one part: between two parts
/// of text, tokenizers of IDEFICS-instruct would end a turn.
struct Writer<'a> {
    prompt: Prompt,
    text: String,
    load: &'a mut dyn FnMut(&mut Prompt, &Medium) -> Result<()>,
}

impl Writer<'_> {
    fn write(&mut self, pieces: &[Piece], example: &Example, medium: Option<&Medium>) -> Result<()> {
        for piece in pieces {
            match (piece, medium) {
                (Piece::Text(text), _) => self.text.push_str(text),
                (Piece::Question, _) => self.text.push_str(&example.question),
                (Piece::Answer, _) => self.text.push_str(&example.answers[0]),
                (Piece::Image, None) => {}
                (Piece::Image, Some(medium)) => {
                    self.flush()?;
                    (self.load)(&mut self.prompt, medium)?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.text.is_empty() {
            self.prompt.text(std::mem::take(&mut self.text))?;
        }
        Ok(())
    }
}

/// How often a placeholder may stand in a template.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    None,
    One,
    Any,
}

/// What is not read yet of a form's file.
struct Fields<'a> {
    file: &'a Path,
    fields: BTreeMap<String, Value>,
}

impl Fields<'_> {
    fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.fields.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Error::invalid(self.file, key, "a string", kind(&other))),
        }
    }

    fn count(&mut self, key: &str) -> Result<usize> {
        let Some(value) = self.fields.remove(key) else { return Ok(0) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| Error::invalid(self.file, key, "a whole number", value))
    }

    fn texts(&mut self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.fields.remove(key) else { return Ok(Vec::new()) };
        let found = kind(&value);
        serde_json::from_value(value).map_err(|_| Error::invalid(self.file, key, "an array of strings", found))
    }

    /// A template, with how often an image, a question and an answer may stand in it.
    fn template(&mut self, key: &str, counts: [Count; 3]) -> Result<Vec<Piece>> {
        let file = self.file;
        let invalid = |expected: &str, found: &str| Error::invalid(file, key, expected, found);
        let text = self.text(key)?.ok_or_else(|| invalid("a template", "none"))?;
        let pieces = pieces(&text).map_err(|(expected, found)| invalid(expected, found))?;
        let placeholders = [(Piece::Image, "{image}"), (Piece::Question, "{question}"), (Piece::Answer, "{answer}")];
        for ((placeholder, name), count) in placeholders.into_iter().zip(counts) {
            let found = pieces.iter().filter(|&piece| *piece == placeholder).count();
            let (right, expected) = match count {
                Count::None => (found == 0, "no"),
                Count::One => (found == 1, "one"),
                Count::Any => (true, ""),
            };
            if !right {
                return Err(invalid(&format!("{expected} {name}"), &found.to_string()));
            }
        }
        Ok(pieces)
    }
}

/// The pieces of a template, or what was expected and found where it has none.
fn pieces(template: &str) -> std::result::Result<Vec<Piece>, (&'static str, &str)> {
    let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), template);
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            text.push_str(&rest[..1]);
            rest = &rest[2..];
            continue;
        }
        let end = rest.find('}').filter(|&end| end > 0);
        let (placeholder, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        let piece = match placeholder {
            "{image}" => Piece::Image,
            "{question}" => Piece::Question,
            "{answer}" => Piece::Answer,
            other => return Err(("{image}, {question}, {answer}, or {{ or }} for a brace", other)),
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(piece);
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

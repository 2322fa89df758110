//! The sets that numbers are published for, and how each is evaluated: its layout, its form, how much is written, and
//! what counts. Lengths, beams and cuts are those of OpenFlamingo 2.0.1 (`eval/evaluate.py`); the sets of videos, which
//! it lacks, are evaluated as sets of images of their kind are, with the metric of the Flamingo paper (table 6).

use super::data::{self, Dataset, Format, Source, Task, vqa::Naming};
use super::metrics::answers;
use super::template::{Kind, Template};
use crate::engine::Generation;
use crate::error::{Error, Result};

/// What answers are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// CIDEr-D of captions.
    Cider,
    /// Accuracy among people, ten as a rule.
    Vqa,
    /// The same after stemming.
    OkVqa,
    /// Whether the answer is one of the expected ones.
    Exact,
    /// Accuracy among five people.
    Ivqa,
    /// Whether the likeliest class is the right one.
    Accuracy,
    /// The area under the curve, for two classes of which the last one is looked for.
    RocAuc,
}

impl Metric {
    /// What a score is called.
    pub fn title(self) -> &'static str {
        match self {
            Metric::Cider => "CIDEr",
            Metric::Vqa | Metric::OkVqa => "VQA accuracy",
            Metric::Exact => "exact answers",
            Metric::Ivqa => "iVQA accuracy",
            Metric::Accuracy => "top-1 accuracy",
            Metric::RocAuc => "ROC-AUC",
        }
    }

    /// The unit of a score times 100, as papers print it; CIDEr has none.
    pub fn unit(self) -> &'static str {
        if self == Metric::Cider { "" } else { "%" }
    }

    /// The answer in what a model wrote, as it is judged.
    pub fn answer(self, generation: &str) -> String {
        match self {
            Metric::Cider => answers::caption(generation),
            _ => answers::short_answer(generation).to_owned(),
        }
    }
}

/// How a set is evaluated. Classes are weighed by the mean log-probability of their tokens, as the form writes them,
/// without a space before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Benchmark {
    /// As the command line takes it.
    pub name: &'static str,
    /// As a page tells it.
    pub title: &'static str,
    /// The layout of its files.
    pub format: Format,
    /// What is asked.
    pub task: Task,
    /// Which of the built-in forms fits.
    pub kind: Kind,
    /// What counts.
    pub metric: Metric,
    /// Most tokens of an answer that is written.
    pub max_new_tokens: usize,
}

/// The name for one's own data, in our own format.
pub const OWN: &str = "jsonl";

/// The published sets.
pub const PUBLISHED: [Benchmark; 11] = [
    captions("coco", "COCO captions", Format::Karpathy),
    captions("flickr30k", "Flickr30k", Format::Karpathy),
    questions("vqav2", "VQAv2", Format::Vqa(Naming::Coco), Metric::Vqa),
    questions("ok-vqa", "OK-VQA", Format::Vqa(Naming::Coco), Metric::OkVqa),
    Benchmark { max_new_tokens: 10, ..questions("textvqa", "TextVQA", Format::Vqa(Naming::Jpeg), Metric::Vqa) },
    questions("vizwiz", "VizWiz", Format::Vqa(Naming::Whole), Metric::Vqa),
    Benchmark {
        kind: Kind::Memes,
        metric: Metric::RocAuc,
        ..classes("hateful-memes", "Hateful Memes", Format::HatefulMemes)
    },
    classes("imagenet", "ImageNet", Format::ImageNet),
    questions("msvd-qa", "MSVD-QA", Format::VideoQuestions, Metric::Exact),
    questions("msrvtt-qa", "MSRVTT-QA", Format::VideoQuestions, Metric::Exact),
    captions("vatex", "VATEX", Format::VideoCaptions),
];

const fn captions(name: &'static str, title: &'static str, format: Format) -> Benchmark {
    let (task, kind, metric) = (Task::Caption, Kind::Caption, Metric::Cider);
    Benchmark { name, title, format, task, kind, metric, max_new_tokens: 20 }
}

const fn questions(name: &'static str, title: &'static str, format: Format, metric: Metric) -> Benchmark {
    let (task, kind) = (Task::Question, Kind::Question);
    Benchmark { name, title, format, task, kind, metric, max_new_tokens: 5 }
}

const fn classes(name: &'static str, title: &'static str, format: Format) -> Benchmark {
    let (task, kind, metric) = (Task::Classify, Kind::Classify, Metric::Accuracy);
    Benchmark { name, title, format, task, kind, metric, max_new_tokens: 0 }
}

impl Benchmark {
    /// A benchmark by its name, with the examples to ask about. For one's own data, `task` says what is asked; without
    /// it, the lines do.
    ///
    /// # Errors
    /// A name that is not known; a task other than that of a published set; those of [`data::read`].
    pub fn open(name: &str, task: Option<Task>, queries: &Source) -> Result<(Benchmark, Dataset)> {
        if name == OWN {
            let dataset = data::read(Format::Jsonl(task), queries)?;
            return Ok((Benchmark::own(&dataset), dataset));
        }
        let Some(benchmark) = PUBLISHED.into_iter().find(|benchmark| benchmark.name == name) else {
            let names = PUBLISHED.map(|benchmark| benchmark.name).join(", ");
            return Err(Error::argument(format!("benchmark: expected {names} or {OWN}, found {name:?}")));
        };
        if let Some(task) = task.filter(|&task| task != benchmark.task) {
            let expected = benchmark.task;
            return Err(Error::argument(format!("task: expected {expected:?}, as {name} asks, found {task:?}")));
        }
        let dataset = benchmark.read(queries, benchmark.format.splits().map(|splits| splits.queries))?;
        Ok((benchmark, dataset))
    }

    /// The examples to show.
    ///
    /// # Errors
    /// Those of [`data::read`].
    pub fn support(&self, source: &Source) -> Result<Dataset> {
        self.read(source, self.format.splits().map(|splits| splits.support))
    }

    fn read(&self, source: &Source, split: Option<&str>) -> Result<Dataset> {
        let split = source.split.clone().or_else(|| split.map(str::to_owned));
        data::read(self.format, &Source { split, ..source.clone() })
    }

    /// How one's own data are evaluated: captions as COCO's; classes as ImageNet's, with the form of a question if they
    /// are asked for with one; questions as VQAv2's or iVQA's if all have ten answers or five, else by exact answers.
    fn own(dataset: &Dataset) -> Benchmark {
        let format = Format::Jsonl(Some(dataset.task));
        let title = "own data";
        let asks = dataset.examples.iter().any(|example| !example.question.is_empty());
        let people = |count| dataset.examples.iter().all(|example| example.answers.len() == count);
        match dataset.task {
            Task::Caption => captions(OWN, title, format),
            Task::Question if people(10) => questions(OWN, title, format, Metric::Vqa),
            Task::Question if people(5) => questions(OWN, title, format, Metric::Ivqa),
            Task::Question => questions(OWN, title, format, Metric::Exact),
            Task::Classify if asks => Benchmark { kind: Kind::Question, ..classes(OWN, title, format) },
            Task::Classify => classes(OWN, title, format),
        }
    }

    /// How an answer is written: beam search with 3 beams, whose sums are not divided by a length.
    pub fn generation(&self, template: &Template) -> Generation {
        let (max_new_tokens, stop) = (self.max_new_tokens, template.stop().to_vec());
        let no_repeat_ngram_size = template.no_repeat_ngram_size();
        let beams = Generation { num_beams: 3, length_penalty: 0.0, ..Generation::default() };
        Generation { max_new_tokens, stop, no_repeat_ngram_size, ..beams }
    }
}

//! `flamant eval`: a benchmark over numbers of shots, resumable; its results as JSON and as a page.

mod demo;
mod findings;
mod media;
mod plan;
mod records;
mod run;
mod similar;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use flamant::config::Family;
use flamant::eval::benchmark::{Benchmark, Metric};
use flamant::eval::data::{self, Dataset, Example, Medium, Source, Task};
use flamant::eval::judge::Judge;
use flamant::eval::metrics::okvqa::Stemmer;
use flamant::eval::page;
use flamant::eval::results::Missing;
use flamant::eval::shots::{Selection, Support, shuffled};
use flamant::eval::template::Template;
use flamant::{Engine, Error};

use super::Outcome;
use super::input::{DeviceArguments, LimitArguments, VideoArguments};
use media::Media;
use plan::{Plan, Series, Set};
use records::Records;

/// Evaluate a model on a benchmark, few-shot; started again, it goes on where it was stopped
#[derive(Args)]
#[command(
    override_usage = "flamant eval <MODEL> --benchmark <NAME> --data <FILE>... --output <DIR> [OPTIONS]\n       \
        flamant eval --demo --output <DIR> [OPTIONS]",
    after_help = "\
Benchmarks and their --data (and --support) files:
  coco, flickr30k     dataset_NAME.json of Karpathy's splits
  vqav2, ok-vqa       QUESTIONS.json ANNOTATIONS.json
  textvqa, vizwiz     the same, or the one file of their authors
  hateful-memes       FILE.jsonl
  imagenet            none, or a file of class names; --media is the folder of the classes
  msvd-qa, msrvtt-qa  FILE.json, or FILE.json MAPPING.txt with lines of a video's name and number
  vatex               FILE.json
  jsonl               one's own examples, one a line, such as
                      {\"image\": \"a.png\", \"question\": \"What is it?\", \"answer\": \"a fox\"};
                      \"video\" may stand for \"image\", \"answers\": [...] for \"answer\", and as one
                      likes there are \"question\", \"choices\": [...], \"id\" and \"group\". Questions
                      that all have 10 answers are scored as VQAv2's, 5 as iVQA's, others as exact
A file for --template:
  {\"support\": \"{image}Q: {question} A: {answer}\", \"query\": \"{image}Q: {question} A:\"},
  and as one likes \"begin\", \"between\", \"choice\" and \"stop\": [...]
With 0 shots, two examples are shown without their images, as in the papers. An example whose
image cannot be read counts as answered in the worst way, and is never shown.
Output: answers.jsonl, results.json and index.html. An evaluation goes on from answers.jsonl, a line
an answer; errors are asked again."
)]
pub struct Eval {
    /// Model folder: IDEFICS as published, or OpenFlamingo from `flamant convert`
    #[arg(required_unless_present = "demo")]
    model: Option<PathBuf>,
    /// Evaluate the model in the box on its own task: names of symbols from alphabets it has never seen
    #[arg(long, conflicts_with_all = ["model", "benchmark", "data", "support", "media", "support_media", "split",
        "support_split", "task", "template", "support_max", "permutations", "reference_slip", "nltk"])]
    demo: bool,
    /// What is evaluated; see below
    #[arg(long, value_name = "NAME", required_unless_present = "demo")]
    benchmark: Option<String>,
    /// Files of the examples to ask
    #[arg(long, value_name = "FILE", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Folder of their images; that of the first file, if not given
    #[arg(long, value_name = "DIR")]
    media: Option<PathBuf>,
    /// Files of the examples to show; if not given, those of --data, without the image that is asked
    #[arg(long, value_name = "FILE", num_args = 1..)]
    support: Vec<PathBuf>,
    /// Folder of their images; that of --media, if not given
    #[arg(long, value_name = "DIR")]
    support_media: Option<PathBuf>,
    /// Part of --data that is asked, where a file holds several; test, if not given
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Part of the support that is shown; train, if not given
    #[arg(long, value_name = "NAME")]
    support_split: Option<String>,
    /// What jsonl asks; if not given, what it looks like
    #[arg(long, value_enum)]
    task: Option<TaskName>,
    /// How examples become a prompt: openflamingo, idefics, idefics-instruct, or a file; by the model, if not given
    #[arg(long, value_name = "NAME|FILE")]
    template: Option<String>,
    /// Numbers of support examples; 0,4,8,16,32, if not given, of the demo 0,1,2,4,8,16
    #[arg(long, value_name = "N,N...", value_delimiter = ',', value_parser = shots_in_range)]
    shots: Vec<usize>,
    /// How they are chosen, several ways: at random, the same random ones for all, or the most similar; random, if not
    /// given, of the demo random,rices
    #[arg(long, value_name = "random,fixed,rices", value_enum, value_delimiter = ',', hide_possible_values = true)]
    selection: Vec<SelectionName>,
    /// Seed of all random choices
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Queries, drawn at random; all, if not given, of the demo 200 at each number of names
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    queries: Option<u64>,
    /// Examples that random ones are drawn from, drawn at random; 0 for all. RICES always looks at all
    #[arg(long, value_name = "N", default_value_t = 2048)]
    support_max: usize,
    /// Random orders of the support examples whose log-likelihoods are averaged, for classification
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    permutations: u64,
    /// Repeat a slip of OpenFlamingo's classification with 0 shots: the first shown image stands for the asked one
    #[arg(long)]
    reference_slip: bool,
    /// NLTK's data folder, for the stems of ok-vqa
    #[arg(long, value_name = "DIR")]
    nltk: Option<PathBuf>,
    /// Prompts of each point that the page shows
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=100))]
    samples: u64,
    /// Folder of answers.jsonl, results.json and index.html
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    video: VideoArguments,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    limits: LimitArguments,
}

/// What a file of one's own asks.
#[derive(Clone, Copy, ValueEnum)]
enum TaskName {
    Caption,
    Question,
    Classify,
}

/// See [`Selection`].
#[derive(Clone, Copy, ValueEnum)]
enum SelectionName {
    Random,
    Fixed,
    Rices,
}

/// Most support examples.
const SHOTS_MAX: usize = 255;

fn shots_in_range(text: &str) -> Result<usize, String> {
    let shots = text.parse().ok().filter(|shots| *shots <= SHOTS_MAX);
    shots.ok_or_else(|| format!("expected 0 to {SHOTS_MAX}"))
}

impl Eval {
    pub fn run(self) -> Outcome {
        self.video.sampling().check()?;
        let plan = Arc::new(if self.demo { demo::plan(&self)? } else { self.plan()? });
        plan.check()?;
        if let Some(first) = plan.missing.names.first() {
            eprintln!("flamant: {} images or videos are missing, the first is {first}", plan.missing.count);
        }
        let mut engine = self.device.engine(&self.limits, |options| match &self.model {
            Some(folder) => Engine::open(folder, options),
            None => Engine::demo(options),
        })?;
        let name = self.template(&engine);
        let template = Arc::new(Template::open(name, plan.benchmark.kind)?);
        std::fs::create_dir_all(&self.output).map_err(|error| Error::file(&self.output, error))?;
        let evaluation = records::evaluation(&plan, &template, &engine, &self.device.storage())?;
        let mut records = Records::open(&self.output, &plan, evaluation)?;
        let media = Arc::new(Media::new(engine.preparer().clone(), plan.frames));
        if records.left(&plan) > 0 {
            let similar = similar::find(&plan, &mut engine, &media, &self.output)?;
            run::run(&plan, &template, similar, &mut engine, &media, &mut records)?;
        }
        let results = findings::results(&plan, (name, &template), &records, &engine, &media, self.samples as usize)?;
        results.write(&self.output.join("results.json"))?;
        let page = self.output.join("index.html");
        page::write(&results, &page)?;
        findings::print(&results, &records, &plan, &page)
    }

    /// What is to be asked of whom.
    fn plan(&self) -> Result<Plan, Error> {
        let name = self.benchmark.as_deref().unwrap_or_default();
        let task = self.task.map(|task| match task {
            TaskName::Caption => Task::Caption,
            TaskName::Question => Task::Question,
            TaskName::Classify => Task::Classify,
        });
        let source = Source { files: self.data.clone(), media: self.media.clone(), split: self.split.clone() };
        let (benchmark, mut queries) = Benchmark::open(name, task, &source)?;
        self.check_flags(&benchmark)?;
        let apart = !self.support.is_empty() || self.support_media.is_some() || self.support_split.is_some();
        let support = match apart || benchmark.format.splits().is_some() {
            false => queries.clone(),
            true => {
                let files = if self.support.is_empty() { source.files } else { self.support.clone() };
                // Under two names of one folder, an example would not know its own image.
                let real = |folder: &PathBuf| folder.canonicalize().ok();
                let queries = source.media.as_ref().and_then(real);
                let same = queries.is_some() && queries == self.support_media.as_ref().and_then(real);
                let media = self.support_media.clone().filter(|_| !same).or(source.media);
                benchmark.support(&Source { files, media, split: self.support_split.clone() })?
            }
        };
        let mut missing = Missing::default();
        let mut named = HashSet::new();
        for path in data::missing(&queries).into_iter().chain(data::missing(&support)) {
            if named.insert(path.to_owned()) {
                missing.add(path.display().to_string());
            }
        }
        if let Some(most) = self.queries.map(|most| most as usize).filter(|most| *most < queries.examples.len()) {
            let mut picked: Vec<usize> = shuffled(queries.examples.len(), self.seed, 0).take(most).collect();
            picked.sort_unstable();
            queries.examples = picked.into_iter().map(|place| queries.examples[place].clone()).collect();
        }
        let is_there = |example: &Example| match &example.medium {
            Medium::Image(path) | Medium::Video(path) => !named.contains(path),
            Medium::Drawn(_) => true,
        };
        if !queries.examples.iter().any(is_there) {
            let (count, first) = (queries.examples.len(), &missing.names[0]);
            let expected = "expected the images or videos of --data";
            return Err(Error::argument(format!("media: {expected}, found none of {count}, the first is {first}")));
        }
        let most = if self.support_max == 0 { usize::MAX } else { self.support_max };
        let drawn = Support::new(&support, is_there, most, self.seed);
        let all = Support::new(&support, is_there, usize::MAX, self.seed);
        let stemmer = self.nltk.as_ref().map(Stemmer::open).transpose()?.map(Arc::new);
        let chance = (benchmark.metric == Metric::Accuracy).then(|| chance(&queries));
        let series = self.selections(&[Selection::Random]).into_iter().map(|selection| Series {
            label: selection.name().to_owned(),
            set: 0,
            selection,
            chance: match benchmark.metric {
                Metric::RocAuc => Some(50.0),
                _ => chance,
            },
        });
        Ok(Plan {
            title: format!("{}, few-shot", benchmark.title),
            model: self.model.clone(),
            series: series.collect(),
            sets: vec![Set { queries, support, drawn, all }],
            shots: self.shots(&[0, 4, 8, 16, 32]),
            seed: self.seed,
            permutations: self.permutations as usize,
            reference_slip: self.reference_slip,
            judge: Judge::new(benchmark.metric, stemmer, self.seed),
            missing,
            frames: self.video.sampling(),
            benchmark,
        })
    }

    /// Whether flags are of use for the benchmark.
    fn check_flags(&self, benchmark: &Benchmark) -> Result<(), Error> {
        let classifies = benchmark.task == Task::Classify;
        let flags = [
            ("permutations", self.permutations > 1, classifies, "classification"),
            ("reference-slip", self.reference_slip, classifies, "classification"),
            ("nltk", self.nltk.is_some(), benchmark.metric == Metric::OkVqa, "ok-vqa"),
        ];
        match flags.into_iter().find(|(_, given, fits, _)| *given && !fits) {
            None => Ok(()),
            Some((flag, _, _, of)) => {
                Err(Error::argument(format!("{flag}: expected with {of} alone, found with {}", benchmark.name)))
            }
        }
    }

    /// Rising, each once.
    fn shots(&self, usual: &[usize]) -> Vec<usize> {
        let mut shots = if self.shots.is_empty() { usual.to_vec() } else { self.shots.clone() };
        shots.sort_unstable();
        shots.dedup();
        shots
    }

    /// Each once.
    fn selections(&self, usual: &[Selection]) -> Vec<Selection> {
        let mut selections: Vec<Selection> = Vec::new();
        for name in &self.selection {
            let selection = match name {
                SelectionName::Random => Selection::Random,
                SelectionName::Fixed => Selection::Fixed,
                SelectionName::Rices => Selection::Rices,
            };
            if !selections.contains(&selection) {
                selections.push(selection);
            }
        }
        if selections.is_empty() { usual.to_vec() } else { selections }
    }

    /// The name or file of the words of prompts: what was asked for, or what fits the model.
    fn template(&self, engine: &Engine) -> &str {
        let usual = match engine.config().family {
            _ if self.demo => "demo",
            Family::OpenFlamingo => "openflamingo",
            Family::Idefics if engine.tokenizer().end_of_utterance.is_some() => "idefics-instruct",
            Family::Idefics => "idefics",
        };
        self.template.as_deref().unwrap_or(usual)
    }
}

/// What guessing gives, in per cent: the mean over examples of one among their names.
fn chance(queries: &Dataset) -> f64 {
    let odds = queries.examples.iter().map(|example| {
        let choices = queries.choices_of(example);
        let right = choices.iter().filter(|choice| example.answers.contains(choice)).count();
        100.0 * right as f64 / choices.len() as f64
    });
    odds.sum::<f64>() / queries.examples.len() as f64
}

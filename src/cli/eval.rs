//! `flamant eval`: a benchmark over numbers of shots, resumable; its results as JSON and as a page.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::eval::benchmark::{OWN, PUBLISHED};
use crate::eval::data::{Source, Task};
use crate::eval::results::{Point, Results};
use crate::eval::shots::Selection;
use crate::eval::{Evaluation, PERMUTATIONS_MAX, Progress, Report, SHOTS_MAX, Settings, Subject};
use crate::{Error, Stats};
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::input::{DeviceArguments, LimitArguments, ModelOrDemo, PixelArguments, VideoArguments};
use super::{Failure, Outcome, Run, output, progress, say};

/// Evaluate a model on a benchmark, few-shot; started again, it goes on where it was stopped
#[derive(Args)]
#[command(
    next_help_heading = "Evaluation",
    mut_arg("demo", |demo| demo.conflicts_with_all(["benchmark", "data", "support", "media", "support_media", "split",
        "support_split", "task", "template", "support_max", "permutations", "reference_slip", "nltk"])),
    override_usage = "flamant eval <MODEL> --benchmark <NAME> --data <FILE>... --output <DIR> [OPTIONS]\n       \
        flamant eval --demo --output <DIR> [OPTIONS]",
    after_help = "\
Examples:
  flamant eval MODEL --benchmark vqav2 --data QUESTIONS.json ANNOTATIONS.json -o vqav2 --shots 0,4,8
  flamant eval MODEL --benchmark jsonl --data mine.jsonl -o mine --selection random,rices
  flamant eval --demo -o symbols

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
    #[command(flatten)]
    model: ModelOrDemo,
    /// What is evaluated; see below
    #[arg(long, value_name = "NAME", required_unless_present = "demo", value_parser = benchmarks(),
        hide_possible_values = true)]
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
    /// How examples become a prompt: openflamingo, idefics, idefics-instruct, otter, mmgpt, med-flamingo,
    /// flamingo-mini, or a file; by the model, if not given
    #[arg(long, alias = "form", value_name = "NAME|FILE")]
    template: Option<PathBuf>,
    /// Let no run of N tokens occur twice in prompt and answer; as the template says (otter: 3), if not given
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(0..=1024))]
    no_repeat_ngram_size: Option<usize>,
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
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=PERMUTATIONS_MAX as u64))]
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
    #[arg(short, long, value_name = "DIR", help_heading = "Output")]
    output: PathBuf,
    #[command(flatten)]
    video: VideoArguments,
    #[command(flatten)]
    pixels: PixelArguments,
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

impl TaskName {
    fn task(self) -> Task {
        match self {
            TaskName::Caption => Task::Caption,
            TaskName::Question => Task::Question,
            TaskName::Classify => Task::Classify,
        }
    }
}

impl SelectionName {
    fn selection(self) -> Selection {
        match self {
            SelectionName::Random => Selection::Random,
            SelectionName::Fixed => Selection::Fixed,
            SelectionName::Rices => Selection::Rices,
        }
    }
}

fn benchmarks() -> PossibleValuesParser {
    PossibleValuesParser::new(PUBLISHED.map(|benchmark| benchmark.name).into_iter().chain([OWN]))
}

fn shots_in_range(text: &str) -> Result<usize, String> {
    let shots = text.parse().ok().filter(|shots| *shots <= SHOTS_MAX);
    shots.ok_or_else(|| format!("expected 0 to {SHOTS_MAX}"))
}

impl Run for Eval {
    fn check(&self) -> Result<(), Error> {
        self.video.sampling().check()?;
        self.device.check(self.limits.limits())
    }

    fn run(self) -> Outcome {
        let evaluation = Evaluation::open(self.settings())?;
        let missing = evaluation.missing();
        if let Some(first) = missing.names.first() {
            say(format_args!("{} images or videos are missing, the first is {first}", missing.count));
        }
        let mut engine = self.model.engine(&self.device, &self.limits)?;
        let terminal = Arc::new(Terminal::default());
        let told = terminal.clone();
        let report = evaluation.run(&mut engine, &self.output, move |progress| told.tell(progress));
        terminal.clear();
        let report = report?;
        if report.answers > 0 {
            summary(&report, &engine.stats());
        }
        self.print(&report)
    }
}

impl Eval {
    /// As the library takes them.
    fn settings(&self) -> Settings {
        let source = |files: &[PathBuf], media: &Option<PathBuf>, split: &Option<String>| {
            Source::new(files.to_vec()).media(media.clone()).split(split.clone())
        };
        let mut settings = match &self.benchmark {
            Some(name) => Settings::benchmark(name, source(&self.data, &self.media, &self.split)),
            None => Settings::symbols(),
        };
        if let Subject::Benchmark { task, support, .. } = &mut settings.subject {
            *task = self.task.map(TaskName::task);
            *support = source(&self.support, &self.support_media, &self.support_split);
        }
        settings.template = self.template.clone();
        settings.no_repeat_ngram_size = self.no_repeat_ngram_size;
        settings.shots = self.shots.clone();
        settings.selections = self.selection.iter().map(|name| name.selection()).collect();
        settings.seed = self.seed;
        settings.queries = self.queries.map(|queries| queries as usize);
        settings.support_max = self.support_max;
        settings.permutations = self.permutations as usize;
        settings.reference_slip = self.reference_slip;
        settings.nltk = self.nltk.clone();
        settings.samples = self.samples as usize;
        settings.frames = self.video.sampling();
        settings.prompt_limits = self.pixels.limits();
        settings
    }

    /// The scores as a table, and where the page is.
    fn print(&self, report: &Report) -> Outcome {
        let Results { model, metric, series, .. } = &report.results;
        let mut out = output()?;
        let shots: Vec<usize> =
            series.first().map_or(Vec::new(), |series| series.points.iter().map(|point| point.shots).collect());
        let width = series.iter().map(|series| series.label.chars().count()).max().unwrap_or(0).max(5);
        writeln!(out, "{} of {}", metric.name, model.name)?;
        let heads: String = shots.iter().map(|shots| format!("{shots:>8}")).collect();
        writeln!(out, "{:width$}{heads}", "shots")?;
        for series in series {
            let scores: String = series.points.iter().map(|point| format!("{:>8.1}", point.score)).collect();
            writeln!(out, "{:width$}{scores}", series.label)?;
        }
        for note in &report.results.notes {
            writeln!(out, "{note}")?;
        }
        let errors: usize = series.iter().flat_map(|series| &series.points).map(|point| point.errors).sum();
        if let Some(first) = &report.first_error {
            writeln!(out, "{errors} answers failed, which count as the worst; {first}")?;
        }
        writeln!(out, "The page is {}", self.output.join("index.html").display())?;
        // A score that nothing was answered for is none.
        let failed = |point: &&Point| point.errors == point.examples;
        let unanswered = series.iter().find_map(|series| Some((series, series.points.iter().find(failed)?)));
        match (unanswered, &report.first_error) {
            (Some((series, point)), Some(first)) => Err(Failure::Error(Error::argument(format!(
                "all {} answers of {} at {} shots failed; the first error is {first}",
                point.errors, series.label, point.shots
            )))),
            _ => Ok(()),
        }
    }
}

/// What is told while it runs: bars of progress, if standard error is a terminal, and notes.
#[derive(Default)]
struct Terminal {
    /// The bar that is shown, and whether it is that of answers.
    bar: Mutex<Option<(bool, ProgressBar)>>,
}

impl Terminal {
    fn tell(&self, told: Progress) {
        match told {
            Progress::Features { done, total } => {
                self.advance(false, done, total, "features {bar:40} {pos}/{len} images, {eta} left");
            }
            Progress::Answers { done, total } => {
                self.advance(true, done, total, "{bar:40} {pos}/{len} answers, {eta} left");
            }
            Progress::Note(note) => say(note),
        }
    }

    fn advance(&self, answers: bool, done: usize, total: usize, template: &str) {
        let mut support = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = support.as_ref().is_some_and(|(kind, _)| *kind == answers);
        if !begun && let Some((_, bar)) = support.take() {
            bar.finish_and_clear();
        }
        let (_, bar) = support.get_or_insert_with(|| (answers, progress(total as u64, template)));
        bar.set_position(done as u64);
        if !begun {
            bar.reset_eta();
        }
        if done == total {
            bar.finish_and_clear();
            *support = None;
        }
    }

    fn clear(&self) {
        if let Some((_, bar)) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

/// What was done, for people.
fn summary(report: &Report, stats: &Stats) {
    let percent = |part: u64, rest: u64| 100.0 * part as f64 / (part + rest).max(1) as f64;
    let Report { answers, seconds, .. } = report;
    say(format_args!(
        "{answers} answers in {seconds:.1} s; {:.0} % of prompt tokens and {:.0} % of images were there already",
        percent(stats.tokens_cached, stats.tokens_computed),
        percent(stats.images_cached, stats.images_encoded),
    ));
}

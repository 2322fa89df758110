//! A whole evaluation: from settings to a file of answers, results and a page.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::findings;
use super::media::Media;
use super::open;
use super::page;
use super::plan::Plan;
use super::progress::{Observer, Progress};
use super::records::{self, Records};
use super::results::{Missing, Results};
use super::run;
use super::settings::{Settings, Subject};
use super::similar;
use super::template::Template;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// An evaluation whose data are read.
///
/// ```no_run
/// use flamant::eval::data::Source;
/// use flamant::eval::{Evaluation, Settings};
/// use flamant::{Engine, Options};
///
/// # fn main() -> flamant::Result<()> {
/// let mut source = Source::default();
/// source.files = vec!["dataset_coco.json".into()];
/// let mut settings = Settings::benchmark("coco", source);
/// settings.shots = vec![0, 4];
/// let evaluation = Evaluation::open(settings)?;
/// let mut engine = Engine::open("idefics-9b", &Options::default())?;
/// let report = evaluation.run(&mut engine, "coco", |progress| println!("{progress:?}"))?;
/// for point in &report.results.series[0].points {
///     println!("{} shots: {:.1}", point.shots, point.score);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Evaluation {
    settings: Settings,
    plan: Arc<Plan>,
}

/// What came of an evaluation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Scores, and prompts as samples; the same is in `results.json`.
    pub results: Results,
    /// Answers that were made now, not in an earlier start.
    pub answers: usize,
    /// Seconds that making them took.
    pub seconds: f64,
    /// Why the first answer that failed did; such answers count as the worst.
    pub first_error: Option<String>,
}

impl Evaluation {
    /// Reads the data, and draws what is drawn at random.
    ///
    /// # Errors
    /// Settings out of range or of no use for the subject; files that cannot be read; too few examples.
    pub fn open(settings: Settings) -> Result<Evaluation> {
        let plan = Arc::new(open::plan(&settings)?);
        Ok(Evaluation { settings, plan })
    }

    /// Images and videos that are not there.
    pub fn missing(&self) -> &Missing {
        &self.plan.missing
    }

    /// Asks what is not answered yet in the folder `output`, which is made if it is not there: `answers.jsonl` has a
    /// line an answer, `results.json` and `index.html` what came of them. An evaluation that was stopped, or killed,
    /// goes on from these lines, and ends in the very bytes it would have ended in. `observer` is told of progress, on
    /// any thread.
    ///
    /// # Errors
    /// Files that cannot be read or written; an output of another evaluation; a device that has failed. What fails for
    /// one example is its answer.
    pub fn run(
        &self,
        engine: &mut Engine,
        output: impl AsRef<Path>,
        observer: impl Fn(Progress<'_>) + Send + Sync + 'static,
    ) -> Result<Report> {
        let (plan, output) = (&self.plan, output.as_ref());
        let observer: Observer = Arc::new(observer);
        let name = self.template(engine);
        let template = Template::open(&name, plan.benchmark.kind)?;
        let size = self.settings.no_repeat_ngram_size.unwrap_or(template.no_repeat_ngram_size());
        let template = Arc::new(template.with_no_repeat_ngram_size(size));
        std::fs::create_dir_all(output).map_err(|error| Error::file(output, error))?;
        let mut records = Records::open(output, plan, records::evaluation(plan, &template, engine)?)?;
        let limits = self.settings.prompt_limits.clone();
        let media = Arc::new(Media::new(engine.preparer().clone(), plan.frames, limits, observer.clone()));
        let answers = records.left(plan);
        let mut seconds = 0.0;
        if answers > 0 {
            let similar = similar::find(plan, engine, &media, output, &observer)?;
            let begun = Instant::now();
            run::run(plan, &template, similar, engine, &media, &mut records, &observer)?;
            seconds = begun.elapsed().as_secs_f64();
            records.finish()?;
        }
        let results = findings::results(
            plan,
            (&name.display().to_string(), &template),
            &records,
            engine,
            &media,
            self.settings.samples,
        )?;
        results.write(&output.join("results.json"))?;
        page::write(&results, &output.join("index.html"))?;
        Ok(Report { results, answers, seconds, first_error: findings::first_error(plan, &records) })
    }

    /// The name or file of the words of prompts: what was asked for, or what fits the model.
    fn template(&self, engine: &Engine) -> PathBuf {
        let usual = match &self.settings.subject {
            Subject::Symbols => "demo",
            _ => engine.tokenizer().evaluation(),
        };
        self.settings.template.clone().unwrap_or_else(|| usual.into())
    }
}

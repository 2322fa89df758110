//! Serves many requests at once: each step is put together by the scheduler, run by the executor, and taken apart by
//! the tasks. Synchronous and on one thread; whoever wants threads puts it on one.
//!
//! A row never depends on its batch, so how a request is scheduled never changes its answer.

mod limits;
mod reader;
mod request;
pub mod scheduler;
mod stats;
mod tasks;

pub use limits::{Builder, Limits, Options};
#[cfg(test)]
pub(crate) use reader::panicking;
pub use reader::{Prepared, Reader};
pub use request::{
    Answer, Choice, Classification, Event, EventKind, Finish, Generation, Request, RequestId, Score, Task, Timings,
    Usage,
};
pub use stats::{PagesNow, Stats};

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use blake3::Hash;

use crate::backend::{Batch, Device, Opening, Usual};
use crate::checkpoint::Folder;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::executor::{Executor, RowResult};
use crate::family;
use crate::image::Picture;
use crate::preprocessor;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use reader::Pixels;
use scheduler::{Bounds, Job, Pace, Rows, Scheduler, Step};
use tasks::{Ending, Place};

/// An open model that serves many requests.
///
/// ```no_run
/// use flamant::{Engine, EventKind, Generation, Prompt, Request};
///
/// # fn main() -> flamant::Result<()> {
/// let mut engine = Engine::builder().sequences(16).open("idefics-9b-instruct")?;
/// for file in ["a.png", "b.png"] {
///     let mut prompt = Prompt::new();
///     prompt.image_file(file)?.text("A picture of")?;
///     engine.submit(Request::generate(prompt, Generation::default()))?;
/// }
/// while !engine.is_idle() {
///     for event in engine.step() {
///         if let EventKind::Written(answer) = event.kind {
///             println!("{}: {}", event.id, answer.text);
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Engine {
    reader: Reader,
    executor: Executor,
    device: Device,
    fallback: Option<String>,
    limits: Limits,
    scheduler: Scheduler<Ticket>,
    /// Events that happened between steps.
    events: Vec<Event>,
    /// Pictures of requests that are not finished, and how many of these have each.
    pictures: HashMap<Hash, usize>,
    /// Bytes of all requests that are not finished.
    bytes: u64,
    stats: Stats,
    /// The step under way; kept for its memory.
    step: Step,
    pixels: Vec<f32>,
}

/// What the engine keeps of a request beside its numbers.
struct Ticket {
    task: tasks::Task,
    pixels: Vec<Arc<Pixels>>,
    submitted: Instant,
    /// When its first token ran, and when its prompt was read.
    begun: Option<Instant>,
    read: Option<Instant>,
    media_seconds: f64,
}

impl Engine {
    /// An engine with settings of one's own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Opens a model folder: IDEFICS as transformers saves it, or OpenFlamingo as `flamant convert` writes it. Weights
    /// stay mapped.
    ///
    /// # Errors
    /// A file that is missing or malformed, a weight that is missing or misshapen, a device that is not there or has
    /// too little memory, limits out of range.
    pub fn open(folder: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::open_files(Folder::Disk(folder.as_ref()), options)
    }

    /// Opens the model that is part of the program: small, and made to learn names of drawn symbols from a prompt.
    ///
    /// # Errors
    /// As for [`Engine::open`].
    pub fn demo(options: &Options) -> Result<Self> {
        Self::open_files(crate::demo::MODEL, options)
    }

    fn open_files(folder: Folder, options: &Options) -> Result<Self> {
        let mut limits = options.limits.clone();
        limits.check()?;
        let checkpoint = Arc::new(folder.checkpoint()?);
        let config = ModelConfig::from_checkpoint(folder, &checkpoint)?;
        let tokenizer = Tokenizer::open(folder, config.family, config.decoder.vocabulary)?;
        let preprocessor = preprocessor::open(folder, &config)?;
        let names = family::names(&config, &checkpoint);
        let weights = Weights::new(checkpoint.clone(), names);
        let context_max = options.context(&config)?;
        let pages = limits.pages(context_max)?;
        let (device, fallback) = options.device.resolve();
        let opening = Opening {
            device,
            threads: options.threads,
            precision: options.precision,
            usual: limits.steps(device.usual()),
            usual_least: limits.steps(Usual::LEAST),
            #[cfg(feature = "emulated")]
            emulated: options.emulated.clone(),
        };
        let executor = Executor::open(&config, weights, &opening, pages)?;
        let (text_pages, media_pages) = executor.pages();
        let Usual { images, tokens } = executor.usual();
        (limits.text_pages, limits.media_pages) = (Some(text_pages), Some(media_pages));
        (limits.tokens_per_step, limits.pictures_per_step) = (Some(tokens), Some(images));
        let bounds = Bounds { jobs: limits.sequences, tokens, frames: images, sharing: limits.sharing };
        Ok(Engine {
            reader: Reader::new(config, tokenizer, preprocessor, checkpoint, context_max),
            executor,
            device,
            fallback,
            limits,
            scheduler: Scheduler::new(bounds, text_pages, media_pages),
            events: Vec::new(),
            pictures: HashMap::new(),
            bytes: 0,
            stats: Stats::default(),
            step: Step::default(),
            pixels: Vec::new(),
        })
    }

    /// Where it runs; for [`Device::Auto`], what was found.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Why [`Device::Auto`] took the processor though there is a GPU's driver, in a line.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// What bounds it, with the pages there are and what a step holds at most.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What prepares its requests, on any thread; also what the model has besides its device.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        self.reader.config()
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.reader.tokenizer()
    }

    /// Floating-point operations of the matrix products of a prompt: encoding its pictures, and reading its tokens.
    pub fn flops(&self, pictures: usize, tokens: usize) -> [u64; 2] {
        self.executor.flops(pictures, tokens)
    }

    /// What the model's own vision tower compares pictures by (paper, appendix B.2): the class token after the tower's
    /// last norm, projected where the checkpoint has CLIP's projection; of a video the mean of its frames. Each is a
    /// unit vector, so that the dot product of two is how alike they are.
    ///
    /// # Errors
    /// A checkpoint without the tower's last norm; a video without frames; a device that is lost or full.
    pub fn features(&mut self, media: &[&[Picture]]) -> Result<Vec<Vec<f32>>> {
        if !self.executor.has_features() {
            let file = self.reader.checkpoint().file_of("vision.norm_post");
            return Err(Error::invalid(file, "vision tower", "its last norm, for features", "none"));
        }
        if media.iter().any(|frames| frames.is_empty()) {
            return Err(Error::argument(
                "features: expected pictures, or videos of at least one frame, found one of none",
            ));
        }
        let pixels: Vec<Arc<Pixels>> = media.iter().map(|frames| self.reader.pixels(frames)).collect();
        let frames: Vec<&[u8]> = pixels.iter().flat_map(|pixels| pixels.frames()).collect();
        let mut values = Vec::new();
        // No more frames at a time than any step encodes.
        for frames in frames.chunks(self.executor.usual().images) {
            self.pixels.clear();
            frames.iter().for_each(|frame| self.reader.preprocessor().normalise(frame, &mut self.pixels));
            self.executor.features(&self.pixels, &mut values)?;
        }
        let width = values.len() / frames.len().max(1);
        let mut frames = values.chunks_exact_mut(width.max(1));
        let mean = |pixels: &Arc<Pixels>| {
            let mut sum = Vec::new();
            for frame in frames.by_ref().take(pixels.frames().len()) {
                unit(frame);
                sum.resize(frame.len(), 0.0);
                sum.iter_mut().zip(frame).for_each(|(sum, value)| *sum += *value);
            }
            unit(&mut sum);
            sum
        };
        Ok(pixels.iter().map(mean).collect())
    }

    /// Takes a request; its events come with the next steps.
    ///
    /// # Errors
    /// As for [`Reader::prepare`] and [`Engine::submit_prepared`].
    pub fn submit(&mut self, request: Request) -> Result<RequestId> {
        self.submit_prepared(self.reader.prepare(request)?)
    }

    /// Takes a request that was prepared by this engine's [`Reader`].
    ///
    /// # Errors
    /// [`Error::Limit`] when too many requests wait or hold too much; a request that another model prepared.
    pub fn submit_prepared(&mut self, prepared: Prepared) -> Result<RequestId> {
        if !prepared.reader.is_same(&self.reader) {
            return Err(Error::argument("request: expected one prepared by this engine's reader, found another's"));
        }
        self.bytes = self.bytes_with(&prepared)?;
        prepared.pixels.iter().for_each(|pixels| *self.pictures.entry(pixels.content).or_default() += 1);
        let id = RequestId::next();
        let Prepared { prompt, pixels, task, pace, wanted, tokens_max, .. } = prepared;
        let ticket = Ticket { task, pixels, submitted: Instant::now(), begun: None, read: None, media_seconds: 0.0 };
        let nothing_to_write = pace != Pace::Reads && tokens_max == prompt.ids.len();
        let job = Job::new(id.number(), prompt, pace, wanted, tokens_max, ticket);
        if nothing_to_write {
            self.release(&job);
            let ending = Ending::Written { text: String::new(), ids: vec![], logprobs: vec![], finish: Finish::Length };
            let kind = self.finish(job, ending);
            self.events.push(Event { id, kind });
        } else {
            self.scheduler.add(job);
        }
        Ok(id)
    }

    /// Whether there is room for a request now: whether [`Engine::submit_prepared`] would not refuse it for a limit.
    pub fn has_room(&self, prepared: &Prepared) -> bool {
        self.bytes_with(prepared).is_ok()
    }

    /// Ends a request early; its last event, [`EventKind::Cancelled`], comes with the next step. False if there is no
    /// such request, or not any more.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let Some(job) = self.scheduler.remove(id.number()) else { return false };
        self.release(&job);
        self.stats.requests_cancelled += 1;
        self.events.push(Event { id, kind: EventKind::Cancelled });
        true
    }

    /// Whether no request waits or runs, and no event is due.
    pub fn is_idle(&self) -> bool {
        self.scheduler.waiting.is_empty() && self.scheduler.running.is_empty() && self.events.is_empty()
    }

    /// Counts since the engine was opened, and what it holds now.
    pub fn stats(&self) -> Stats {
        let Scheduler { text, media, waiting, running, preemptions, .. } = &self.scheduler;
        Stats {
            requests_waiting: waiting.len(),
            requests_running: running.len(),
            preemptions: *preemptions,
            text_pages: PagesNow::of(text),
            media_pages: PagesNow::of(media),
            bytes_fetched: self.executor.bytes_fetched(),
            ..self.stats
        }
    }

    /// Runs one step of all that run; what has happened since the last one. If the device fails, so do the requests of
    /// the step, and nothing else; what is wrong with one request's logits ends that request alone.
    pub fn step(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        let begun = Instant::now();
        let mut step = std::mem::take(&mut self.step);
        self.scheduler.schedule(&mut step);
        self.stats.schedule_seconds += begun.elapsed().as_secs_f64();
        if !step.ids.is_empty() {
            self.stats.steps += 1;
            match self.run(&step, begun) {
                Ok(rows) => {
                    let run = Instant::now();
                    self.commit(&step, rows, &mut events);
                    self.stats.commit_seconds += run.elapsed().as_secs_f64();
                }
                Err(error) => self.fail(&step, &error, &mut events),
            }
        }
        self.step = step;
        events
    }

    /// Copies pages, encodes pictures, runs tokens; what came of each row that was wanted.
    fn run(&mut self, step: &Step, begun: Instant) -> Result<Vec<RowResult>> {
        for copy in &step.copies {
            self.executor.copy_text_page(*copy)?;
        }
        let encoding = Instant::now();
        self.encode(step)?;
        let media_seconds = if step.encode.is_empty() { 0.0 } else { encoding.elapsed().as_secs_f64() };
        self.stats.media_seconds += media_seconds;
        for encode in &step.encode {
            self.running(encode.job).work.media_seconds += media_seconds / step.encode.len() as f64;
        }
        let running = &self.scheduler.running;
        let tables: Vec<&[u32]> = step.rows.iter().map(|rows| running[rows.job].lines[rows.line].pages()).collect();
        let (mut outputs, mut requests) = (Vec::new(), Vec::new());
        for rows in &step.rows {
            let Job { prompt, lines, work: ticket, .. } = &running[rows.job];
            for (row, place) in places(step, rows) {
                outputs.push(row as u32);
                requests.push(ticket.task.want(prompt, lines, place));
            }
        }
        let batch = Batch {
            ids: &step.ids,
            positions: &step.positions,
            sequences: &step.sequences,
            tables: &tables,
            media: &step.media,
            outputs: &outputs,
            ..Batch::default()
        };
        let running = Instant::now();
        let forbidden = self.reader.surroundings().forbidden;
        let results = self.executor.step(&batch, &requests, forbidden)?;
        self.stats.text_seconds += running.elapsed().as_secs_f64();
        self.stats.tokens_computed += step.ids.len() as u64;
        self.stats.pictures_encoded += step.encode.len() as u64;
        for rows in &step.rows {
            self.scheduler.running[rows.job].work.begun.get_or_insert(begun);
        }
        Ok(results)
    }

    /// A job that runs.
    fn running(&mut self, number: u64) -> &mut Job<Ticket> {
        let running = &mut self.scheduler.running;
        let place = running.binary_search_by_key(&number, |job| job.number);
        &mut running[place.expect("its pictures are wanted, so it runs")]
    }

    fn encode(&mut self, step: &Step) -> Result<()> {
        if step.encode.is_empty() {
            return Ok(());
        }
        self.pixels.clear();
        let (mut frames, mut pages) = (Vec::new(), Vec::new());
        for encode in &step.encode {
            let pixels = self.running(encode.job).work.pixels[encode.picture as usize].clone();
            pixels.frames().for_each(|frame| self.reader.preprocessor().normalise(frame, &mut self.pixels));
            frames.push(pixels.frames().len() as u32);
            pages.push(encode.page);
        }
        self.executor.encode(&self.pixels, &frames, &pages)
    }

    /// Hands the rows to their tasks, and lets the lines go on. A row that is not finite ends its own request.
    fn commit(&mut self, step: &Step, results: Vec<RowResult>, events: &mut Vec<Event>) {
        let reader = self.reader.clone();
        let around = reader.surroundings();
        let mut results = results.into_iter();
        let mut ended = Vec::new();
        for rows_of_job in step.rows.chunk_by(|a, b| a.job == b.job) {
            let wanted: Vec<Place> =
                rows_of_job.iter().flat_map(|rows| places(step, rows)).map(|(_, place)| place).collect();
            if wanted.is_empty() {
                continue;
            }
            let place = rows_of_job[0].job;
            let found: Vec<RowResult> = results.by_ref().take(wanted.len()).collect();
            if let Some(at) = found.iter().position(|result| *result == RowResult::NotFinite) {
                ended.push((place, Err(wanted[at].position)));
                continue;
            }
            self.scheduler.confirm(rows_of_job);
            let Scheduler { running, text, .. } = &mut self.scheduler;
            let Job { number, prompt, lines, work: ticket, .. } = &mut running[place];
            let id = RequestId::from(*number);
            for (row, result) in wanted.into_iter().zip(found) {
                let kind = ticket.task.take(prompt, row, result, &around);
                events.extend(kind.map(|kind| Event { id, kind }));
            }
            ticket.read.get_or_insert_with(Instant::now);
            match ticket.task.settle(prompt, lines, text, &around) {
                Some(ending) => ended.push((place, Ok(ending))),
                None => self.scheduler.name_written(place),
            }
        }
        for (place, ending) in ended.into_iter().rev() {
            if ending.is_err() && self.scheduler.doubt(place, step) {
                continue;
            }
            let job = self.scheduler.remove_running(place);
            self.release(&job);
            let id = RequestId::from(job.number);
            let kind = match ending {
                Ok(ending) => self.finish(job, ending),
                Err(token) => self.failed(Error::NotFinite { request: job.number, token }),
            };
            events.push(Event { id, kind });
        }
    }

    /// The last event of a job that failed.
    fn failed(&mut self, error: Error) -> EventKind {
        self.stats.requests_failed += 1;
        EventKind::Failed(error)
    }

    /// The last event of a job.
    fn finish(&mut self, job: Job<Ticket>, ending: Ending) -> EventKind {
        let Job { prompt, tokens_found, pictures_encoded, work: ticket, .. } = job;
        let pictures = ticket.pixels.len();
        let completion_tokens = match &ending {
            Ending::Written { ids, .. } => ids.len(),
            Ending::Classified { tokens, .. } => *tokens,
            Ending::Scored(_) => 0,
        };
        let usage = Usage {
            prompt_tokens: prompt.ids.len(),
            cached_tokens: tokens_found,
            completion_tokens,
            pictures,
            pictures_encoded,
        };
        let now = Instant::now();
        let (begun, read) = (ticket.begun.unwrap_or(now), ticket.read.unwrap_or(now));
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let timings = Timings {
            queue: seconds(ticket.submitted, begun),
            media: ticket.media_seconds,
            prompt: (seconds(begun, read) - ticket.media_seconds).max(0.0),
            decode: seconds(read, now),
        };
        self.stats.requests_finished += 1;
        self.stats.tokens_cached += tokens_found as u64;
        self.stats.tokens_written += completion_tokens as u64;
        self.stats.pictures_cached += pictures.saturating_sub(pictures_encoded) as u64;
        match ending {
            Ending::Written { text, ids, logprobs, finish } => {
                EventKind::Written(Answer { text, ids, logprobs, finish, usage, timings })
            }
            Ending::Classified { choices, .. } => EventKind::Classified(Classification { choices, usage, timings }),
            Ending::Scored(logprobs) => EventKind::Scored(Score { ids: prompt.ids, logprobs, usage, timings }),
        }
    }

    /// A step has failed, and with it all requests that were in it.
    fn fail(&mut self, step: &Step, error: &Error, events: &mut Vec<Event>) {
        for job in self.scheduler.fail(step) {
            self.release(&job);
            events.push(Event { id: RequestId::from(job.number), kind: self.failed(error.clone()) });
        }
    }

    /// Bytes of all requests with one more.
    fn bytes_with(&self, prepared: &Prepared) -> Result<u64> {
        let waiting = self.scheduler.waiting.len();
        if waiting >= self.limits.queue {
            return Err(Error::limit("requests that wait", self.limits.queue as u64, waiting as u64 + 1));
        }
        let bytes = self.bytes + self.bytes_of(prepared);
        if bytes > self.limits.queue_bytes {
            return Err(Error::limit("bytes of all requests", self.limits.queue_bytes, bytes));
        }
        Ok(bytes)
    }

    /// Bytes that a request adds to those held: a picture that others hold too is there once.
    fn bytes_of(&self, prepared: &Prepared) -> u64 {
        let tokens = size_of_val(&prepared.prompt.ids[..]) + size_of_val(&prepared.prompt.sees[..]);
        let mut pictures: Vec<&Arc<Pixels>> = prepared.pixels.iter().collect();
        pictures.sort_unstable_by_key(|pixels| *pixels.content.as_bytes());
        pictures.dedup_by_key(|pixels| pixels.content);
        let new = pictures.iter().filter(|pixels| !self.pictures.contains_key(&pixels.content));
        (tokens + new.map(|pixels| pixels.rgb.len()).sum::<usize>()) as u64
    }

    /// Counts the bytes of a request off again.
    fn release(&mut self, job: &Job<Ticket>) {
        let prompt = &job.prompt;
        self.bytes -= (size_of_val(&prompt.ids[..]) + size_of_val(&prompt.sees[..])) as u64;
        for pixels in &job.work.pixels {
            let holders = self.pictures.get_mut(&pixels.content).expect("its pictures are counted");
            *holders -= 1;
            if *holders == 0 {
                self.pictures.remove(&pixels.content);
                self.bytes -= pixels.rgb.len() as u64;
            }
        }
    }
}

/// The rows of a step whose logits are wanted, of some rows of a line.
fn places<'a>(step: &'a Step, rows: &'a Rows) -> impl Iterator<Item = (usize, Place)> + 'a {
    let end = rows.first + rows.count;
    (end - rows.wanted..end).map(|row| (row, Place { line: rows.line, position: step.positions[row] as usize }))
}

/// Brings a vector to length 1, if it has any.
fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

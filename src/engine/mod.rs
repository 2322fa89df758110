//! Serves many requests at once: each step is put together by the scheduler, run by the executor, and taken apart by
//! the tasks. Synchronous and on one thread; whoever wants threads puts it on one.
//!
//! A row never depends on its batch, so how a request is scheduled never changes its answer.

pub mod json;
mod limits;
mod preparer;
mod request;
pub mod runner;
pub mod scheduler;
mod stats;
mod tasks;

pub use limits::{Builder, Limits, Options};
#[cfg(test)]
pub(crate) use preparer::panicking;
pub use preparer::{PreparedRequest, Preparer};
pub use request::{
    Answer, Choice, Classification, Event, EventKind, Finish, Generation, Request, RequestId, Score, Task, Timings,
    Usage,
};
pub use stats::{PagesNow, Stats};

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use blake3::Hash;

use crate::backend::{BackendOptions, Batch, Capacity, Device, Precision};
use crate::checkpoint::Folder;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::executor::{Executor, RowResult};
use crate::family;
use crate::image::Image;
use crate::preprocessor;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use preparer::Pixels;
use scheduler::{Bounds, RequestState, Rows, Scheduler, SequenceKind, Step};
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
///     prompt.image_file(file)?.text("An image of")?;
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
    preparer: Preparer,
    executor: Executor,
    folder: Option<PathBuf>,
    precision: Option<Precision>,
    device: Device,
    fallback: Option<String>,
    limits: Limits,
    scheduler: Scheduler<HostState>,
    /// Events that happened between steps.
    events: Vec<Event>,
    /// Images of requests that are not finished, and how many of these have each.
    images: HashMap<Hash, usize>,
    /// Bytes of all requests that are not finished.
    bytes: u64,
    stats: Stats,
    /// The step under way; kept for its memory.
    step: Step,
}

/// What the engine keeps of a request beside its numbers.
struct HostState {
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
        let mut engine = Self::open_files(Folder::Disk(folder.as_ref()), options)?;
        engine.folder = Some(folder.as_ref().to_owned());
        Ok(engine)
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
        let opening = BackendOptions {
            device,
            threads: options.threads,
            precision: options.precision,
            capacity: limits.steps(device.capacity()),
            capacity_least: limits.steps(Capacity::LEAST),
            #[cfg(feature = "emulated")]
            emulated: options.emulated.clone(),
        };
        let executor = Executor::open(&config, &preprocessor.levels(), weights, &opening, pages)?;
        let (text_pages, media_pages) = executor.pages();
        let Capacity { images, tokens } = executor.capacity();
        (limits.text_pages, limits.media_pages) = (Some(text_pages), Some(media_pages));
        (limits.max_batched_tokens, limits.max_batched_images) = (Some(tokens), Some(images));
        let bounds =
            Bounds { requests: limits.max_sequences, tokens, frames: images, prefix_caching: limits.prefix_caching };
        Ok(Engine {
            preparer: Preparer::new(config, tokenizer, preprocessor, checkpoint, context_max),
            executor,
            folder: None,
            precision: options.precision,
            device,
            fallback,
            limits,
            scheduler: Scheduler::new(bounds, text_pages, media_pages),
            events: Vec::new(),
            images: HashMap::new(),
            bytes: 0,
            stats: Stats::default(),
            step: Step::default(),
        })
    }

    /// Where it runs; for [`Device::Auto`], what was found.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Why [`Device::Auto`] took the processor though there is a GPU's driver, in a sequence.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The model's folder as it was given; none for the model in the program.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// How its device was asked to store numbers; see [`Options::precision`].
    pub fn precision(&self) -> Option<Precision> {
        self.precision
    }

    /// What bounds it, with the pages there are and what a step holds at most.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What prepares its requests, on any thread; also what the model has besides its device.
    pub fn preparer(&self) -> &Preparer {
        &self.preparer
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        self.preparer.config()
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.preparer.tokenizer()
    }

    /// Floating-point operations of the matrix products of a prompt: encoding its images, and reading its tokens.
    pub fn flops(&self, images: usize, tokens: usize) -> [u64; 2] {
        self.executor.flops(images, tokens)
    }

    /// What the model's own vision tower compares images by (paper, appendix B.2): the class token after the tower's
    /// last norm, projected where the checkpoint has CLIP's projection; of a video the mean of its frames. Each is a
    /// unit vector, so that the dot product of two is how alike they are.
    ///
    /// # Errors
    /// A checkpoint without the tower's last norm; a video without frames; a device that is lost or full.
    pub fn features(&mut self, media: &[&[Image]]) -> Result<Vec<Vec<f32>>> {
        if !self.executor.has_features() {
            let file = self.preparer.checkpoint().file_of("vision.norm_post");
            return Err(Error::invalid(file, "vision tower", "its last norm, for features", "none"));
        }
        if media.iter().any(|frames| frames.is_empty()) {
            return Err(Error::argument(
                "features: expected images, or videos of at least one frame, found one of none",
            ));
        }
        let pixels: Vec<Arc<Pixels>> = media.iter().map(|frames| self.preparer.pixels(frames)).collect();
        let frames: Vec<&[u8]> = pixels.iter().flat_map(|pixels| pixels.frames()).collect();
        let mut values = Vec::new();
        // No more frames at a time than any step encodes.
        for frames in frames.chunks(self.executor.capacity().images) {
            self.executor.features(frames, &mut values)?;
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
    /// As for [`Preparer::prepare`] and [`Engine::submit_prepared`].
    pub fn submit(&mut self, request: Request) -> Result<RequestId> {
        self.submit_prepared(self.preparer.prepare(request)?)
    }

    /// Takes a request that was prepared by this engine's [`Preparer`].
    ///
    /// # Errors
    /// [`Error::Limit`] when too many requests wait or hold too much; a request that another model prepared.
    pub fn submit_prepared(&mut self, prepared: PreparedRequest) -> Result<RequestId> {
        if !prepared.preparer.is_same(&self.preparer) {
            return Err(Error::argument("request: expected one prepared by this engine's reader, found another's"));
        }
        self.bytes = self.bytes_with(&prepared)?;
        prepared.pixels.iter().for_each(|pixels| *self.images.entry(pixels.content).or_default() += 1);
        let id = RequestId::next();
        let PreparedRequest { prompt, pixels, task, kind, wanted, max_new_tokens, .. } = prepared;
        let host = HostState { task, pixels, submitted: Instant::now(), begun: None, read: None, media_seconds: 0.0 };
        let nothing_to_write = kind != SequenceKind::Prefill && max_new_tokens == prompt.ids.len();
        let request = RequestState::new(id.number(), prompt, kind, wanted, max_new_tokens, host);
        if nothing_to_write {
            self.release(&request);
            let ending = Ending::Written { text: String::new(), ids: vec![], logprobs: vec![], finish: Finish::Length };
            let kind = self.finish(request, ending);
            self.events.push(Event { id, kind });
        } else {
            self.scheduler.add(request);
        }
        Ok(id)
    }

    /// Whether there is room for a request now: whether [`Engine::submit_prepared`] would not refuse it for a limit.
    pub fn has_room(&self, prepared: &PreparedRequest) -> bool {
        self.bytes_with(prepared).is_ok()
    }

    /// Ends a request early; its last event, [`EventKind::Cancelled`], comes with the next step. False if there is no
    /// such request, or not any more.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let Some(request) = self.scheduler.remove(id.number()) else { return false };
        self.release(&request);
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

    /// Copies pages, encodes images, runs tokens; what came of each row that was wanted.
    fn run(&mut self, step: &Step, begun: Instant) -> Result<Vec<RowResult>> {
        for copy in &step.copies {
            self.executor.copy_text_page(*copy)?;
        }
        let encoding = Instant::now();
        self.encode(step)?;
        let media_seconds = if step.encode.is_empty() { 0.0 } else { encoding.elapsed().as_secs_f64() };
        self.stats.media_seconds += media_seconds;
        for encode in &step.encode {
            self.running(encode.request).work.media_seconds += media_seconds / step.encode.len() as f64;
        }
        let running = &self.scheduler.running;
        let tables: Vec<&[u32]> =
            step.rows.iter().map(|rows| running[rows.request].sequences[rows.sequence].pages()).collect();
        let (mut outputs, mut requests) = (Vec::new(), Vec::new());
        for rows in &step.rows {
            let RequestState { prompt, sequences, work: host, .. } = &running[rows.request];
            for (row, place) in places(step, rows) {
                outputs.push(row as u32);
                requests.push(host.task.want(prompt, sequences, place));
            }
        }
        let batch = Batch {
            ids: &step.ids,
            positions: &step.positions,
            sequences: &step.sequences,
            tables: &tables,
            outputs: &outputs,
            ..Batch::default()
        };
        let running = Instant::now();
        let suppressed = self.preparer.surroundings().suppressed;
        let results = self.executor.step(&batch, &step.media, &requests, suppressed)?;
        self.stats.text_seconds += running.elapsed().as_secs_f64();
        self.stats.tokens_computed += step.ids.len() as u64;
        self.stats.images_encoded += step.encode.len() as u64;
        for rows in &step.rows {
            self.scheduler.running[rows.request].work.begun.get_or_insert(begun);
        }
        Ok(results)
    }

    /// A request that runs.
    fn running(&mut self, number: u64) -> &mut RequestState<HostState> {
        let running = &mut self.scheduler.running;
        let place = running.binary_search_by_key(&number, |request| request.number);
        &mut running[place.expect("its images are wanted, so it runs")]
    }

    fn encode(&mut self, step: &Step) -> Result<()> {
        if step.encode.is_empty() {
            return Ok(());
        }
        let encodes = step.encode.iter();
        let pixels: Vec<Arc<Pixels>> =
            encodes.map(|encode| self.running(encode.request).work.pixels[encode.image as usize].clone()).collect();
        let frames: Vec<&[u8]> = pixels.iter().flat_map(|pixels| pixels.frames()).collect();
        let workload: Vec<u32> = pixels.iter().map(|pixels| pixels.frames().len() as u32).collect();
        let pages: Vec<u32> = step.encode.iter().map(|encode| encode.page).collect();
        self.executor.encode(&frames, &workload, &pages)
    }

    /// Hands the rows to their tasks, and lets the sequences go on. A row that is not finite ends its own request.
    fn commit(&mut self, step: &Step, results: Vec<RowResult>, events: &mut Vec<Event>) {
        let preparer = self.preparer.clone();
        let around = preparer.surroundings();
        let mut results = results.into_iter();
        let mut ended = Vec::new();
        for rows_of_job in step.rows.chunk_by(|a, b| a.request == b.request) {
            let wanted: Vec<Place> =
                rows_of_job.iter().flat_map(|rows| places(step, rows)).map(|(_, place)| place).collect();
            if wanted.is_empty() {
                continue;
            }
            let place = rows_of_job[0].request;
            let found: Vec<RowResult> = results.by_ref().take(wanted.len()).collect();
            if let Some(at) = found.iter().position(|result| *result == RowResult::NotFinite) {
                ended.push((place, Err(wanted[at].position)));
                continue;
            }
            self.scheduler.confirm(rows_of_job);
            let Scheduler { running, text, .. } = &mut self.scheduler;
            let RequestState { number, prompt, sequences, work: host, .. } = &mut running[place];
            let id = RequestId::from(*number);
            for (row, result) in wanted.into_iter().zip(found) {
                let kind = host.task.take(prompt, row, result, &around);
                events.extend(kind.map(|kind| Event { id, kind }));
            }
            host.read.get_or_insert_with(Instant::now);
            match host.task.settle(prompt, sequences, text, &around) {
                Some(ending) => ended.push((place, Ok(ending))),
                None => self.scheduler.hash_decoded(place),
            }
        }
        for (place, ending) in ended.into_iter().rev() {
            if ending.is_err() && self.scheduler.doubt(place, step) {
                continue;
            }
            let request = self.scheduler.remove_running(place);
            self.release(&request);
            let id = RequestId::from(request.number);
            let kind = match ending {
                Ok(ending) => self.finish(request, ending),
                Err(token) => self.failed(Error::NotFinite { request: request.number, token }),
            };
            events.push(Event { id, kind });
        }
    }

    /// The last event of a request that failed.
    fn failed(&mut self, error: Error) -> EventKind {
        self.stats.requests_failed += 1;
        EventKind::Failed(error)
    }

    /// The last event of a request.
    fn finish(&mut self, request: RequestState<HostState>, ending: Ending) -> EventKind {
        let RequestState { prompt, tokens_reused, images_encoded, work: host, .. } = request;
        let images = host.pixels.len();
        let completion_tokens = match &ending {
            Ending::Written { ids, .. } => ids.len(),
            Ending::Classified { tokens, .. } => *tokens,
            Ending::Scored(_) => 0,
        };
        let usage = Usage {
            prompt_tokens: prompt.ids.len(),
            cached_tokens: tokens_reused,
            completion_tokens,
            images,
            images_encoded,
        };
        let now = Instant::now();
        let (begun, read) = (host.begun.unwrap_or(now), host.read.unwrap_or(now));
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let timings = Timings {
            queue: seconds(host.submitted, begun),
            media: host.media_seconds,
            prompt: (seconds(begun, read) - host.media_seconds).max(0.0),
            decode: seconds(read, now),
        };
        self.stats.requests_finished += 1;
        self.stats.tokens_cached += tokens_reused as u64;
        self.stats.tokens_written += completion_tokens as u64;
        self.stats.images_cached += images.saturating_sub(images_encoded) as u64;
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
        for request in self.scheduler.fail(step) {
            self.release(&request);
            events.push(Event { id: RequestId::from(request.number), kind: self.failed(error.clone()) });
        }
    }

    /// Bytes of all requests with one more.
    fn bytes_with(&self, prepared: &PreparedRequest) -> Result<u64> {
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

    /// Bytes that a request adds to those held: an image that others hold too is there once.
    fn bytes_of(&self, prepared: &PreparedRequest) -> u64 {
        let tokens = size_of_val(&prepared.prompt.ids[..]) + size_of_val(&prepared.prompt.sees[..]);
        let mut images: Vec<&Arc<Pixels>> = prepared.pixels.iter().collect();
        images.sort_unstable_by_key(|pixels| *pixels.content.as_bytes());
        images.dedup_by_key(|pixels| pixels.content);
        let new = images.iter().filter(|pixels| !self.images.contains_key(&pixels.content));
        (tokens + new.map(|pixels| pixels.rgb.len()).sum::<usize>()) as u64
    }

    /// Counts the bytes of a request off again.
    fn release(&mut self, request: &RequestState<HostState>) {
        let prompt = &request.prompt;
        self.bytes -= (size_of_val(&prompt.ids[..]) + size_of_val(&prompt.sees[..])) as u64;
        for pixels in &request.work.pixels {
            let holders = self.images.get_mut(&pixels.content).expect("its images are counted");
            *holders -= 1;
            if *holders == 0 {
                self.images.remove(&pixels.content);
                self.bytes -= pixels.rgb.len() as u64;
            }
        }
    }
}

/// The rows of a step whose logits are wanted, of some rows of a sequence.
fn places<'a>(step: &'a Step, rows: &'a Rows) -> impl Iterator<Item = (usize, Place)> + 'a {
    let end = rows.first + rows.count;
    (end - rows.wanted..end).map(|row| (row, Place { sequence: rows.sequence, position: step.positions[row] as usize }))
}

/// Brings a vector to length 1, if it has any.
fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

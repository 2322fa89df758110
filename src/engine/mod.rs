//! Serves many requests at once: each step is put together by the scheduler, run by the executor, and taken apart by
//! the tasks. Synchronous and on one thread; whoever wants threads puts it on one.
//!
//! A row never depends on its batch, so how a request is scheduled never changes its answer.

mod budget;
pub(crate) mod built_in;
mod embed;
mod handle;
pub(crate) mod identity;
pub mod json;
mod limits;
mod preparer;
mod preset;
mod request;
pub mod runner;
pub mod scheduler;
mod stats;
mod tasks;
#[cfg(all(test, feature = "tracing"))]
mod tests;

pub use handle::EngineHandle;
pub use limits::{Limits, Options};
#[cfg(test)]
pub(crate) use preparer::panicking;
pub use preparer::{PreparedRequest, Preparer};
pub use request::{
    Answer, Choice, Classification, Event, EventKind, Finish, Generation, Request, RequestId, Score, Task, Timings,
    Usage,
};
pub use stats::{PagesNow, Stats};

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::backend::{BackendOptions, Batch, Capacity, Device, Tiling};
use crate::checkpoint::{Checkpoint, Dtype, Folder};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::executor::{Executor, RowAnswer, RowResult};
use crate::family::{ChatTemplate, Model};
use crate::generation_config::GenerationConfig;
use crate::hub;
use crate::image::Preprocessor;
use crate::kv::{ImagePages, KvDtype};
use crate::preprocessor;
use crate::tokenizer::Tokenizer;
use crate::trace::event;
use crate::weights::Weights;
use budget::Share;
use handle::{Cancelled, Inbox, Submitted};
use preparer::Pixels;
use scheduler::{Bounds, RequestState, Rows, Scheduler, SequenceKind, Step};
use tasks::{Ending, Place};

/// An open model that serves many requests.
///
/// ```no_run
/// use flamant::{Engine, EventKind, Generation, Limits, Options, Prompt, Request};
///
/// # fn main() -> flamant::Result<()> {
/// let options = Options::default().limits(Limits::default().max_sequences(16));
/// let mut engine = Engine::open("idefics-9b-instruct", &options)?;
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
///
/// Other threads talk to it through its [`Engine::handle`], also while it steps.
pub struct Engine {
    handle: EngineHandle,
    executor: Executor,
    folder: Option<PathBuf>,
    dtype: Option<Dtype>,
    kv_dtype: KvDtype,
    device: Device,
    fallback: Option<String>,
    limits: Limits,
    scheduler: Scheduler<HostState>,
    /// Events that happened between steps.
    events: Vec<Event>,
    /// Calls for features that are not answered.
    calls: VecDeque<embed::Call>,
    /// How many requests the budget believes to wait in the scheduler.
    waiting: usize,
    stats: Stats,
    /// What comes in is taken out by exchange with this one; kept for its memory.
    inbox: Inbox,
    /// The step under way; kept for its memory.
    step: Step,
    /// Called before the device runs a step; for tests and benches.
    before_run: Option<Box<dyn FnMut() + Send>>,
}

/// A model before it is on a device.
struct Opened {
    config: ModelConfig,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    checkpoint: Arc<Checkpoint>,
    weights: Weights,
    /// Tokens that end an answer, and those that are never written.
    special: preparer::Special,
}

/// What the engine keeps of a request beside its numbers.
struct HostState {
    task: tasks::Task,
    share: Share,
    submitted: Instant,
    /// When its first token ran, and when its prompt was read.
    begun: Option<Instant>,
    read: Option<Instant>,
    media_seconds: f64,
}

impl Engine {
    /// Opens a model folder: IDEFICS as transformers saves it, or OpenFlamingo as `flamant convert` writes it; or one
    /// that was downloaded from the Hub, by its name, see [`hub::resolve`](crate::hub::resolve). Weights
    /// stay mapped, unless [`Options::load`] says otherwise; on the processor, no answer is handed out that was
    /// computed after one of their files was written to or cut.
    ///
    /// # Errors
    /// A file that is missing or malformed, a weight that is missing or misshapen, a device that is not there or has
    /// too little memory, limits out of range.
    pub fn open(folder: impl AsRef<Path>, options: &Options) -> Result<Self> {
        let folder = hub::resolve(folder.as_ref())?;
        let mut engine = Self::open_files(Folder::Disk(&folder), options)?;
        engine.folder = Some(folder.into_owned());
        Ok(engine.opened())
    }

    /// Opens the model that is part of the program: small, and made to learn names of drawn symbols from a prompt.
    ///
    /// # Errors
    /// As for [`Engine::open`].
    pub fn demo(options: &Options) -> Result<Self> {
        Ok(Self::open_files(built_in::MODEL, options)?.opened())
    }

    /// Tells what was opened.
    fn opened(self) -> Self {
        event!(
            INFO,
            model = ?self.folder,
            device = %self.device,
            weights_bytes = self.preparer().checkpoint().bytes(),
            text_pages = self.limits.text_pages,
            media_pages = self.limits.media_pages,
            max_batched_tokens = self.limits.max_batched_tokens,
            max_batched_images = self.limits.max_batched_images,
            fallback = self.fallback.as_deref(),
            "open"
        );
        self
    }

    fn open_files(folder: Folder, options: &Options) -> Result<Self> {
        options.check()?;
        let checkpoint = Arc::new(folder.load(options.load)?);
        let model = Model::open(folder, &checkpoint)?;
        let vocabulary = model.config.decoder.vocabulary;
        let mut tokenizer = Tokenizer::open(folder, model.family, vocabulary)?.with_template(model.template);
        if let Folder::Embedded(_) = folder {
            tokenizer = tokenizer.with_chat(ChatTemplate::demo());
        }
        model.check_marker(folder, &tokenizer.media)?;
        let Model { family, config, names, .. } = model;
        let preprocessor = preprocessor::open(folder, family.preprocessing, &config.vision)?;
        let generation = GenerationConfig::read(folder, vocabulary)?;
        let special = (generation.settle(folder, &tokenizer, vocabulary)?, generation.defaults);
        let weights = Weights::new(checkpoint.clone(), names);
        Self::with(Opened { config, tokenizer, preprocessor, checkpoint, weights, special }, options)
    }

    fn with(opened: Opened, options: &Options) -> Result<Self> {
        let Opened { config, tokenizer, preprocessor, checkpoint, weights, special } = opened;
        let mut limits = options.limits.clone();
        let context = options.context(&config)?;
        let pages = limits.pages(context, &config)?;
        let (device, fallback) = options.device.resolve();
        let opening = BackendOptions {
            device,
            threads: options.threads,
            dtype: options.dtype,
            kv_dtype: options.kv_dtype,
            capacity: limits.steps(device.capacity()),
            capacity_least: limits.steps(Capacity::LEAST),
            #[cfg(feature = "emulated")]
            emulated: options.emulated.clone(),
        };
        let executor = Executor::open(&config, &preprocessor.levels(), weights, &opening, pages)?;
        // What was copied until now is what the headers spoke of.
        checkpoint.check_unchanged()?;
        let (text_pages, media_pages) = executor.pages();
        let context_max = context.with(text_pages);
        let Capacity { images, tokens } = executor.capacity();
        (limits.text_pages, limits.media_pages) = (Some(text_pages), Some(media_pages));
        (limits.max_batched_tokens, limits.max_batched_images) = (Some(tokens), Some(images));
        let bounds =
            Bounds { requests: limits.max_sequences, tokens, frames: images, prefix_caching: limits.prefix_caching };
        let no_features = (!executor.has_features()).then(|| {
            let file = checkpoint.file_of("vision.norm_post");
            Error::invalid(file, "vision tower", "its last norm, for features", "none")
        });
        let preparer = Preparer::new(config, tokenizer, preprocessor, checkpoint, special, context_max, media_pages);
        let mut engine = Engine {
            handle: EngineHandle::new(preparer, &limits, no_features),
            executor,
            folder: None,
            dtype: options.dtype,
            kv_dtype: options.kv_dtype,
            device,
            fallback,
            limits,
            scheduler: Scheduler::new(bounds, text_pages, media_pages),
            events: Vec::new(),
            calls: VecDeque::new(),
            waiting: 0,
            stats: Stats::default(),
            inbox: Inbox::default(),
            step: Step::default(),
            before_run: None,
        };
        engine.publish(&[]);
        Ok(engine)
    }

    /// Has `work` called in each step before the device runs it; for tests and benches.
    pub(crate) fn before_run(&mut self, work: Box<dyn FnMut() + Send>) {
        self.before_run = Some(work);
    }

    /// Where it runs; for [`Device::Auto`], what was found.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Why [`Device::Auto`] took the processor though there is a GPU's driver, in a line.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The model's folder as it was given, or where the model of that name is; none for the model in the program.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// How its device was asked to store numbers; see [`Options::dtype`].
    pub fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// How its pages store keys and values; see [`Options::kv_dtype`].
    pub fn kv_dtype(&self) -> KvDtype {
        self.kv_dtype
    }

    /// What bounds it, with the pages there are and what a step holds at most.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What other threads may do with it while it steps.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// What prepares its requests, on any thread; also what the model has besides its device.
    pub fn preparer(&self) -> &Preparer {
        self.handle.preparer()
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        self.preparer().config()
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.preparer().tokenizer()
    }

    /// Floating-point operations of the matrix products of a prompt: encoding its images, and reading its tokens.
    pub fn flops(&self, images: usize, tokens: usize) -> [u64; 2] {
        self.executor.flops(images, tokens)
    }

    /// Takes a request; its events come with the next steps.
    ///
    /// # Errors
    /// As for [`EngineHandle::submit`].
    pub fn submit(&mut self, request: Request) -> Result<RequestId> {
        self.handle.submit(request)
    }

    /// Takes a request that was prepared by this engine's [`Preparer`].
    ///
    /// # Errors
    /// As for [`EngineHandle::submit_prepared`].
    pub fn submit_prepared(&mut self, prepared: PreparedRequest) -> Result<RequestId> {
        self.handle.submit_prepared(prepared)
    }

    /// Whether there is room for a request now: whether [`Engine::submit_prepared`] would not refuse it for a limit.
    pub fn has_room(&self, prepared: &PreparedRequest) -> bool {
        self.handle.has_room(prepared)
    }

    /// Ends a request early; its last event, [`EventKind::Cancelled`], comes with the next step. False if there is no
    /// such request, or not any more.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        self.take_inbox();
        let found = self.cancel_taken(id);
        self.publish(&[]);
        found
    }

    /// Takes what has come in since the last step.
    fn take_inbox(&mut self) {
        let mut inbox = std::mem::take(&mut self.inbox);
        self.handle.collect(&mut inbox);
        inbox.submitted.drain(..).for_each(|submitted| self.take(submitted));
        for cancelled in inbox.cancelled.drain(..) {
            match cancelled {
                Cancelled::Untaken(id) => self.cancelled(id),
                // One that a step has ended meanwhile is not there any more.
                Cancelled::Taken(id) => drop(self.cancel_taken(id)),
            }
        }
        self.calls.append(&mut inbox.features);
        self.inbox = inbox;
    }

    fn take(&mut self, Submitted { id, prepared, share, at }: Submitted) {
        let PreparedRequest { prompt, task, kind, wanted, max_new_tokens, .. } = prepared;
        let host = HostState { task, share, submitted: at, begun: None, read: None, media_seconds: 0.0 };
        let nothing_to_write = kind != SequenceKind::Prefill && max_new_tokens == prompt.ids.len();
        let request = RequestState::new(id.number(), prompt, kind, wanted, max_new_tokens, host);
        self.waiting += 1;
        if nothing_to_write {
            let (ids, logprobs, top, finish) = (vec![], vec![], vec![], Finish::Length);
            let ending = Ending::Written { text: String::new(), ids, logprobs, top, finish };
            let kind = self.finish(request, ending);
            self.handle.ended(id);
            self.events.push(Event { id, kind });
        } else {
            self.scheduler.add(request);
        }
    }

    /// Whether there was such a request.
    fn cancel_taken(&mut self, id: RequestId) -> bool {
        let found = self.scheduler.remove(id.number()).is_some();
        if found {
            self.cancelled(id);
        }
        found
    }

    fn cancelled(&mut self, id: RequestId) {
        self.handle.ended(id);
        self.stats.requests_cancelled += 1;
        event!(DEBUG, request = id.number(), "request cancelled");
        self.events.push(Event { id, kind: EventKind::Cancelled });
    }

    /// Tells handles how the engine stands, and of events that are about to be handed out.
    fn publish(&mut self, events: &[Event]) {
        let waiting = self.scheduler.waiting.len();
        self.handle.budget().moved(self.waiting, waiting);
        self.waiting = waiting;
        self.handle.publish(self.stats(), self.has_work(), events);
    }

    /// Whether no request waits or runs, and no event is due.
    pub fn is_idle(&self) -> bool {
        !self.has_work() && !self.handle.has_mail()
    }

    /// Whether something is to be done of what was taken from the inbox.
    fn has_work(&self) -> bool {
        let Scheduler { waiting, running, .. } = &self.scheduler;
        !(waiting.is_empty() && running.is_empty() && self.events.is_empty() && self.calls.is_empty())
    }

    /// Counts since the engine was opened, and what it holds now.
    pub fn stats(&self) -> Stats {
        let Scheduler { text, media, running, preemptions, .. } = &self.scheduler;
        Stats {
            requests_waiting: self.handle.budget().waiting(),
            requests_running: running.len(),
            preemptions: *preemptions,
            text_pages: PagesNow::of(text),
            media_pages: PagesNow::of(media),
            images_held: media.held().entries,
            images_kept: media.cached().entries,
            bytes_fetched: self.executor.bytes_fetched(),
            ..self.stats
        }
    }

    /// Runs one step of all that run; what has happened since the last one. If the device fails, so do the requests of
    /// the step, and nothing else; what is wrong with one request's logits ends that request alone.
    ///
    /// Calls for features that other threads made have one batch of images encoded before.
    pub fn step(&mut self) -> Vec<Event> {
        self.take_inbox();
        let mut events = std::mem::take(&mut self.events);
        self.answer_calls();
        let begun = Instant::now();
        let mut step = std::mem::take(&mut self.step);
        self.scheduler.schedule(&mut step);
        self.stats.schedule_seconds += begun.elapsed().as_secs_f64();
        self.stats.step_begun = (!step.ids.is_empty()).then_some(begun);
        self.publish(&events);
        if !step.ids.is_empty() {
            self.stats.steps += 1;
            match self.run(&step) {
                Ok(rows) => {
                    let run = Instant::now();
                    self.begin(&step, begun, &mut events);
                    self.commit(&step, rows, &mut events);
                    self.stats.commit_seconds += run.elapsed().as_secs_f64();
                }
                Err(error) => self.fail(&step, &error, &mut events),
            }
            (self.stats.step_begun, self.stats.last_step) = (None, Some(Instant::now()));
            event!(
                DEBUG,
                number = self.stats.steps,
                tokens = step.ids.len(),
                sequences = step.rows.len(),
                images = step.encode.len(),
                seconds = begun.elapsed().as_secs_f64(),
                "step"
            );
        }
        self.step = step;
        self.publish(&events);
        events
    }

    /// Copies pages, encodes images, runs tokens; what came of each row that was wanted.
    fn run(&mut self, step: &Step) -> Result<Vec<RowAnswer>> {
        self.before_run.iter_mut().for_each(|work| work());
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
        let (mut outputs, mut queries) = (Vec::new(), Vec::new());
        for rows in &step.rows {
            let RequestState { prompt, sequences, work: host, .. } = &running[rows.request];
            for (row, place) in places(step, rows) {
                outputs.push(row as u32);
                queries.push(host.task.want(prompt, sequences, place));
            }
        }
        let seen_images: Vec<ImagePages> = step.images.iter().collect();
        let batch = Batch {
            ids: &step.ids,
            positions: &step.positions,
            sequences: &step.sequences,
            tables: &tables,
            seen_images: &seen_images,
            media: &step.media,
            outputs: &outputs,
            ..Batch::default()
        };
        let running = Instant::now();
        let suppressed = self.handle.preparer().surroundings().suppressed;
        let results = self.executor.step(&batch, &queries, suppressed)?;
        self.check_weights()?;
        self.stats.text_seconds += running.elapsed().as_secs_f64();
        self.stats.tokens_computed += step.ids.len() as u64;
        self.stats.images_encoded += step.encode.len() as u64;
        Ok(results)
    }

    /// Tells of requests whose first tokens were in a step.
    fn begin(&mut self, step: &Step, begun: Instant, events: &mut Vec<Event>) {
        for rows in &step.rows {
            let RequestState { number, work: host, .. } = &mut self.scheduler.running[rows.request];
            if host.begun.is_none() {
                host.begun = Some(begun);
                let kind = EventKind::Begun { queue: seconds(host.submitted, begun) };
                events.push(Event { id: RequestId::from(*number), kind });
            }
        }
    }

    /// That what was computed was computed from the weights that were opened. Other devices have copies of them.
    fn check_weights(&self) -> Result<()> {
        match self.device {
            Device::Cpu => self.preparer().checkpoint().check_unchanged(),
            _ => Ok(()),
        }
    }

    /// A request that runs.
    fn running(&mut self, number: u64) -> &mut RequestState<HostState> {
        let running = &mut self.scheduler.running;
        let place = running.binary_search_by_key(&number, |request| request.number);
        &mut running[place.expect("its images are wanted, so it runs")]
    }

    /// Encodes the images of a step, no more frames at a time than steps have: those that one token sees may have more.
    fn encode(&mut self, step: &Step) -> Result<()> {
        if step.encode.is_empty() {
            return Ok(());
        }
        let mut pixels: Vec<Arc<Pixels>> = Vec::new();
        for encode in &step.encode {
            pixels.push(self.running(encode.request).work.share.pixels[encode.image as usize].clone());
        }
        let encoded: Vec<ImagePages> = step.encoded.iter().collect();
        let most = self.executor.capacity().images;
        let mut first = 0;
        while first < pixels.len() {
            let (mut frames, mut counts, mut tilings): (Vec<&[u8]>, Vec<u32>, Vec<Tiling>) = Default::default();
            for pixels in &pixels[first..] {
                if !counts.is_empty() && frames.len() + pixels.frame_count() > most {
                    break;
                }
                frames.extend(pixels.frames());
                counts.push(pixels.frame_count() as u32);
                tilings.push(pixels.tiling());
            }
            let images = &encoded[first..][..counts.len()];
            self.executor.encode(&frames, &counts, &tilings, images)?;
            first += images.len();
        }
        Ok(())
    }

    /// Hands the rows to their tasks, and lets the sequences go on. A row that is not finite ends its own request.
    fn commit(&mut self, step: &Step, answers: Vec<RowAnswer>, events: &mut Vec<Event>) {
        let preparer = self.preparer().clone();
        let around = preparer.surroundings();
        let mut answers = answers.into_iter();
        let mut ended = Vec::new();
        for rows_of_job in step.rows.chunk_by(|a, b| a.request == b.request) {
            let wanted: Vec<Place> =
                rows_of_job.iter().flat_map(|rows| places(step, rows)).map(|(_, place)| place).collect();
            if wanted.is_empty() {
                continue;
            }
            let place = rows_of_job[0].request;
            let found: Vec<RowAnswer> = answers.by_ref().take(wanted.len()).collect();
            if let Some(at) = found.iter().position(|answer| answer.result == RowResult::NotFinite) {
                ended.push((place, Err(wanted[at].position)));
                continue;
            }
            self.scheduler.confirm(rows_of_job);
            let Scheduler { running, text, .. } = &mut self.scheduler;
            let RequestState { number, prompt, sequences, work: host, .. } = &mut running[place];
            let id = RequestId::from(*number);
            for (row, answer) in wanted.into_iter().zip(found) {
                let kind = host.task.take(prompt, row, answer, &around);
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
            let id = RequestId::from(request.number);
            events.push(match ending {
                Ok(ending) => Event { id, kind: self.finish(request, ending) },
                Err(token) => self.failed(id, Error::NotFinite { request: id.number(), token }),
            });
        }
    }

    /// The last event of a request that failed.
    fn failed(&mut self, id: RequestId, error: Error) -> Event {
        self.stats.requests_failed += 1;
        event!(WARN, request = id.number(), %error, "request failed");
        Event { id, kind: EventKind::Failed(error) }
    }

    /// The last event of a request.
    fn finish(&mut self, request: RequestState<HostState>, ending: Ending) -> EventKind {
        let RequestState { prompt, tokens_reused, images_encoded, work: host, .. } = request;
        let images = host.share.pixels.len();
        let completion_tokens = match &ending {
            Ending::Written { ids, .. } => ids.len(),
            Ending::Classified { tokens, .. } => *tokens,
            Ending::Scored { .. } => 0,
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
        let timings = Timings {
            queue: seconds(host.submitted, begun),
            media: host.media_seconds,
            prompt: (seconds(begun, read) - host.media_seconds).max(0.0),
            decode: seconds(read, now),
        };
        event!(
            INFO,
            request = request.number,
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.cached_tokens,
            completion_tokens,
            images,
            queue_seconds = timings.queue,
            media_seconds = timings.media,
            prompt_seconds = timings.prompt,
            decode_seconds = timings.decode,
            "request done"
        );
        self.stats.requests_finished += 1;
        self.stats.tokens_cached += tokens_reused as u64;
        self.stats.tokens_written += completion_tokens as u64;
        self.stats.images_cached += images.saturating_sub(images_encoded) as u64;
        match ending {
            Ending::Written { text, ids, logprobs, top, finish } => {
                EventKind::Written(Answer { text, ids, logprobs, top, finish, usage, timings })
            }
            Ending::Classified { choices, .. } => EventKind::Classified(Classification { choices, usage, timings }),
            Ending::Scored { logprobs, top } => {
                EventKind::Scored(Score { ids: prompt.ids, logprobs, top, usage, timings })
            }
        }
    }

    /// A step has failed, and with it all requests that were in it.
    fn fail(&mut self, step: &Step, error: &Error, events: &mut Vec<Event>) {
        for request in self.scheduler.fail(step) {
            events.push(self.failed(RequestId::from(request.number), error.clone()));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handle.close(Error::device(self.device, "the engine was closed"));
    }
}

/// Between two times.
fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

/// The rows of a step whose logits are wanted, of some rows of a sequence.
fn places<'a>(step: &'a Step, rows: &'a Rows) -> impl Iterator<Item = (usize, Place)> + 'a {
    let end = rows.first + rows.count;
    (end - rows.wanted..end).map(|row| (row, Place { sequence: rows.sequence, position: step.positions[row] as usize }))
}

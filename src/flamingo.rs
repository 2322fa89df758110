//! A model that is open: reads prompts, writes, scores and chooses. One request at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::backend::{self, Batch, Chosen, Device, Opening, PageCount, Precision, Request, Usual};
use crate::checkpoint::{Checkpoint, Folder};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::image::{Picture, Preprocessor};
use crate::kv::{PAGE_TOKENS, PagePool, PageTable};
use crate::preprocessor;
use crate::prompt::{PICTURES_MAX, Prompt, Rendered};
use crate::sample::{Sampling, log_probability, log_sum_exp, uniform};
use crate::search::BeamSearch;
use crate::tokenizer::{TextStream, Tokenizer};
use crate::weights::Weights;

/// Tokens of one run of the text plan: bounds the memory of activations.
const TOKENS_PER_RUN: usize = 256;
/// Pictures of one run of the media plan, for the same reason.
const PICTURES_PER_RUN: usize = 4;
/// Bytes of all choices offered together.
const CHOICE_BYTES_MAX: usize = 1 << 20;
/// Most beams of a search.
const BEAMS_MAX: usize = 64;

/// How a model is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where it runs.
    pub device: Device,
    /// How a device that runs kernels stores numbers; none: f16 where all weights are, else bf16. The processor takes
    /// none: it has f32.
    pub precision: Option<Precision>,
    /// Worker threads on the processor; 0: one for each core.
    pub threads: usize,
    /// Most tokens of a sequence, prompt and answer; none: what the model was made for.
    pub context_max: Option<usize>,
}

/// What to write after a prompt.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Most tokens to write.
    pub tokens_max: usize,
    /// How each token is chosen, if there is one beam.
    pub sampling: Sampling,
    /// Beams of a beam search; 1: none.
    pub beams: usize,
    /// See [`BeamSearch::length_penalty`].
    pub length_penalty: f32,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Whether to go on past the family's stop tokens.
    pub ignore_end: bool,
}

impl Default for Generation {
    fn default() -> Self {
        Generation {
            tokens_max: 64,
            sampling: Sampling::default(),
            beams: 1,
            length_penalty: 1.0,
            stop: Vec::new(),
            ignore_end: false,
        }
    }
}

impl Generation {
    /// Whether every number is usable.
    fn check(&self) -> Result<()> {
        self.sampling.check()?;
        if !(1..=BEAMS_MAX).contains(&self.beams) {
            return Err(Error::argument(format!("num-beams: expected 1 to {BEAMS_MAX}, found {}", self.beams)));
        }
        if !self.length_penalty.is_finite() {
            return Err(Error::argument(format!("length-penalty: expected a number, found {}", self.length_penalty)));
        }
        if self.beams > 1 && self.sampling != (Sampling { seed: self.sampling.seed, ..Sampling::default() }) {
            return Err(Error::argument("num-beams: expected 1 with temperature, top-k, top-p, min-p or a penalty"));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::argument("stop: expected a text, found an empty one"));
        }
        Ok(())
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A stop token or a stop text.
    Stop,
    /// The most tokens that were allowed, or that fit the context.
    Length,
}

/// Seconds spent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Encoding pictures.
    pub media: f64,
    /// Reading the prompt.
    pub prompt: f64,
    /// Writing, or scoring choices.
    pub decode: f64,
}

/// What the model wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text, without special tokens and without the stop text.
    pub text: String,
    /// All tokens written, a stop token included.
    pub ids: Vec<u32>,
    /// The log-probability of each.
    pub logprobs: Vec<f64>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Pictures of the prompt.
    pub pictures: usize,
    /// Time spent.
    pub timings: Timings,
}

/// A prompt's own log-probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// For each token its log-probability given all before it; none for the first.
    pub logprobs: Vec<Option<f64>>,
}

/// One of the answers offered to [`Flamingo::classify`].
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Sum of their log-probabilities.
    pub sum: f64,
    /// Their mean: what OpenFlamingo's evaluation ranks by.
    pub mean: f64,
}

/// An open model.
pub struct Flamingo {
    config: ModelConfig,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    executor: Executor,
    checkpoint: Arc<Checkpoint>,
    device: Device,
    context_max: usize,
}

/// Gets each position of a prompt and the logits after it.
type OnLogits<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// A prompt that has been read: where its sequence stands.
struct Reading {
    rendered: Rendered,
    media: Vec<u32>,
    pool: PagePool,
    table: PageTable,
    timings: Timings,
}

impl Reading {
    /// The media page that tokens after the prompt see: that of the last prompt token.
    fn last_media(&self) -> Option<u32> {
        self.rendered.media.last().copied().flatten().map(|picture| self.media[picture as usize])
    }
}

/// Tokens to append to one sequence.
struct Run<'a> {
    table: &'a mut PageTable,
    ids: &'a [u32],
    media: &'a [Option<u32>],
}

impl Flamingo {
    /// Opens a model folder: IDEFICS as transformers saves it, or OpenFlamingo as `flamant convert` writes it. Weights
    /// stay mapped.
    ///
    /// # Errors
    /// A file that is missing or malformed, a weight that is missing or misshapen, a device that is not there.
    pub fn open(folder: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::open_files(Folder::Disk(folder.as_ref()), options)
    }

    /// Opens the model that is part of the program: small, and made to learn names of drawn symbols from a prompt.
    pub fn demo(options: &Options) -> Result<Self> {
        Self::open_files(crate::demo::MODEL, options)
    }

    fn open_files(folder: Folder, options: &Options) -> Result<Self> {
        let checkpoint = Arc::new(folder.checkpoint()?);
        let config = ModelConfig::from_checkpoint(folder, &checkpoint)?;
        let tokenizer = Tokenizer::open(folder, config.family, config.decoder.vocabulary)?;
        let preprocessor = preprocessor::open(folder, &config)?;
        let weights = Weights::new(checkpoint.clone(), &config);
        let made_for = config.decoder.positions_max;
        let context_max = options.context_max.unwrap_or(made_for);
        if !(1..=made_for).contains(&context_max) {
            return Err(Error::argument(format!("context: expected 1 to {made_for} tokens, found {context_max}")));
        }
        let sequence = context_max.div_ceil(PAGE_TOKENS);
        // One sequence of full length with a page copied is the least. At most, beams share nothing at the end, in the
        // worst case not even the prompt; choices of one run diverge in at most two pages each.
        let text = PageCount { least: sequence + 1, most: (BEAMS_MAX + 1) * sequence + 2 * TOKENS_PER_RUN };
        let media = PageCount { least: PICTURES_PER_RUN, most: PICTURES_MAX };
        let device = backend::resolve(options.device);
        let usual = Usual { images: PICTURES_PER_RUN, tokens: TOKENS_PER_RUN.min(context_max) };
        let opening = Opening { device, threads: options.threads, precision: options.precision, usual };
        let executor = Executor::open(&config, weights, &opening, [text, media])?;
        Ok(Flamingo { config, tokenizer, preprocessor, executor, checkpoint, device, context_max })
    }

    /// Where it runs; for [`Device::Auto`], what was found.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Its files.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What its pictures go through.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.preprocessor
    }

    /// Floating-point operations of the matrix products of a prompt: encoding its pictures, and reading its tokens.
    pub fn prompt_flops(&self, pictures: usize, tokens: usize) -> [u64; 2] {
        self.executor.flops(pictures, tokens)
    }

    /// Writes after a prompt. `on_text` gets the text piece by piece as it is settled, all of it in the end.
    ///
    /// # Errors
    /// A prompt that cannot be rendered or does not fit; settings out of range.
    pub fn generate(&mut self, prompt: &Prompt, options: &Generation, on_text: &mut dyn FnMut(&str)) -> Result<Answer> {
        options.check()?;
        let rendered = prompt.render(&self.tokenizer)?;
        let (mut reading, logits) = self.read(prompt, rendered, None)?;
        let begun = Instant::now();
        let room = self.context_max - reading.rendered.ids.len();
        let tokens_max = options.tokens_max.min(room);
        let mut written = match options.beams {
            _ if tokens_max == 0 => Written::default(),
            1 => self.write(&mut reading, logits, options, tokens_max, on_text)?,
            _ => self.search(&mut reading, logits, options, tokens_max)?,
        };
        if options.beams > 1 {
            written.text = self.tokenizer.decode(&written.ids);
            if let Some(at) = first_stop(&written.text, &options.stop) {
                written.text.truncate(at);
                written.stopped = true;
            }
            on_text(&written.text);
        }
        reading.timings.decode = begun.elapsed().as_secs_f64();
        Ok(Answer {
            text: written.text,
            ids: written.ids,
            logprobs: written.logprobs,
            finish: if written.stopped { Finish::Stop } else { Finish::Length },
            prompt_tokens: reading.rendered.ids.len(),
            pictures: reading.media.len(),
            timings: reading.timings,
        })
    }

    /// Log-probabilities of the prompt's own tokens. `on_logits(position, logits)` gets every row of logits.
    pub fn score(&mut self, prompt: &Prompt, mut on_logits: impl FnMut(usize, &[f32])) -> Result<Score> {
        let rendered = prompt.render(&self.tokenizer)?;
        let ids = rendered.ids.clone();
        let mut logprobs = vec![None; ids.len()];
        let mut each = |position: usize, logits: &[f32]| {
            if let Some(&next) = ids.get(position + 1) {
                logprobs[position + 1] = Some(log_probability(logits, next));
            }
            on_logits(position, logits);
        };
        self.read(prompt, rendered, Some(&mut each))?;
        Ok(Score { ids, logprobs })
    }

    /// Log-likelihood of each choice as the continuation of the prompt, which is read once; in the order given.
    ///
    /// # Errors
    /// No choices, one without tokens, or one with a picture marker.
    pub fn classify(&mut self, prompt: &Prompt, choices: &[String]) -> Result<(Vec<Choice>, Timings)> {
        if choices.is_empty() {
            return Err(Error::argument("choice: expected at least one, found none"));
        }
        let bytes: usize = choices.iter().map(String::len).sum();
        if bytes > CHOICE_BYTES_MAX {
            return Err(Error::limit("bytes of all choices", CHOICE_BYTES_MAX as u64, bytes as u64));
        }
        let mut tokens = Vec::with_capacity(choices.len());
        for choice in choices {
            let ids = self.tokenizer.encode_continuation(choice)?;
            if ids.is_empty() || self.tokenizer.forbidden().iter().any(|marker| ids.contains(marker)) {
                return Err(Error::argument(format!(
                    "choice: expected a text without picture markers, found {choice:?}"
                )));
            }
            tokens.push(ids);
        }
        let rendered = prompt.render(&self.tokenizer)?;
        let (mut reading, first) = self.read(prompt, rendered, None)?;
        let begun = Instant::now();
        let media = reading.last_media();
        // The first token of each choice follows the prompt; the last token's own logits are of no interest.
        let mut sums: Vec<f64> = tokens.iter().map(|ids| log_probability(&first, ids[0])).collect();
        let longest = tokens.iter().map(Vec::len).max().unwrap_or_default();
        self.check_length(reading.table.length() + longest - 1)?;
        let mut from = 0;
        while from < tokens.len() {
            // As many choices as fit one run, at least one.
            let mut rows = 0;
            let fits = tokens[from..].iter().take_while(|ids| {
                rows += ids.len() - 1;
                rows <= TOKENS_PER_RUN
            });
            let group = from..from + fits.count().max(1);
            let mut tables: Vec<PageTable> = group.clone().map(|_| reading.table.fork(&mut reading.pool)).collect();
            let seen = vec![media; longest];
            let runs = tables.iter_mut().zip(&tokens[group.clone()]).map(|(table, ids)| {
                let ids = &ids[..ids.len() - 1];
                Run { table, ids, media: &seen[..ids.len()] }
            });
            let targets: Vec<u32> = tokens[group.clone()].iter().flat_map(|ids| &ids[1..]).copied().collect();
            let mut found = self.likelihoods(&mut reading.pool, runs, &targets)?.into_iter();
            for (sum, ids) in sums[group.clone()].iter_mut().zip(&tokens[group.clone()]) {
                *sum = found.by_ref().take(ids.len() - 1).fold(*sum, |sum, likelihood| sum + likelihood);
            }
            tables.iter_mut().for_each(|table| table.clear(&mut reading.pool));
            from = group.end;
        }
        let ranked = choices.iter().zip(tokens).zip(sums);
        let ranked = ranked
            .map(|((text, ids), sum)| Choice { text: text.clone(), sum, mean: sum / ids.len() as f64, ids })
            .collect();
        reading.timings.decode = begun.elapsed().as_secs_f64();
        Ok((ranked, reading.timings))
    }

    /// Encodes the pictures and runs the prompt; the logits after its last token. `on_logits`, if any, gets every row.
    fn read(
        &mut self,
        prompt: &Prompt,
        rendered: Rendered,
        mut on_logits: Option<OnLogits>,
    ) -> Result<(Reading, Vec<f32>)> {
        let outputs = if on_logits.is_some() { Outputs::All } else { Outputs::Last };
        self.check_length(rendered.ids.len())?;
        let mut timings = Timings::default();
        let (text_pages, media_pages) = self.executor.pages();
        let begun = Instant::now();
        let mut media_pool = PagePool::new("media", media_pages);
        let mut media = Vec::new();
        let pictures: Vec<&Picture> = prompt.pictures().collect();
        for pictures in pictures.chunks(PICTURES_PER_RUN) {
            let pages: Vec<u32> = pictures.iter().map(|_| media_pool.take()).collect::<Result<_>>()?;
            let pixels: Vec<f32> = pictures.iter().flat_map(|picture| self.preprocessor.apply(picture)).collect();
            self.executor.encode(&pixels, &pages)?;
            media.extend(pages);
        }
        timings.media = begun.elapsed().as_secs_f64();

        let begun = Instant::now();
        let mut pool = PagePool::new("text", text_pages);
        let mut table = PageTable::default();
        let mut last = Vec::new();
        let pages: Vec<Option<u32>> =
            rendered.media.iter().map(|picture| picture.map(|picture| media[picture as usize])).collect();
        for (ids, media) in rendered.ids.chunks(TOKENS_PER_RUN).zip(pages.chunks(TOKENS_PER_RUN)) {
            let from = table.length();
            let logits = self.append(&mut pool, [Run { table: &mut table, ids, media }], outputs)?;
            if let Some(on_logits) = &mut on_logits {
                logits.iter().enumerate().for_each(|(index, logits)| on_logits(from + index, logits));
            }
            last = logits.into_iter().next_back().unwrap_or_default();
        }
        timings.prompt = begun.elapsed().as_secs_f64();
        Ok((Reading { rendered, media, pool, table, timings }, last))
    }

    fn check_length(&self, tokens: usize) -> Result<()> {
        if tokens <= self.context_max {
            return Ok(());
        }
        Err(Error::limit("tokens of a sequence", self.context_max as u64, tokens as u64))
    }

    /// Token after token, greedy or drawn.
    fn write(
        &mut self,
        reading: &mut Reading,
        logits: Vec<f32>,
        options: &Generation,
        tokens_max: usize,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Written> {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed } = options.sampling;
        let on_device = self.executor.chooses() && min_p == 0.0 && repetition_penalty == 1.0;
        let mut next = Next::Logits(logits);
        let media = [reading.last_media()];
        let mut seen = reading.rendered.ids.clone();
        let mut written = Written::default();
        let mut stream = TextStream::default();
        let mut given = 0;
        let mut forbidden = self.tokenizer.forbidden();
        forbidden.sort_unstable();
        loop {
            // A token's probability is one among all, those that are never generated included.
            let (token, logprob) = match next {
                Next::Chosen(chosen) => (chosen.token, f64::from(chosen.logit) - f64::from(chosen.log_sum_exp)),
                Next::Logits(mut logits) => {
                    let total = log_sum_exp(&logits);
                    for &token in &forbidden {
                        logits[token as usize] = f32::NEG_INFINITY;
                    }
                    let token = options.sampling.choose(&logits, &seen, seen.len());
                    (token, f64::from(logits[token as usize]) - total)
                }
            };
            written.ids.push(token);
            written.logprobs.push(logprob);
            seen.push(token);
            let stop = !options.ignore_end && self.tokenizer.stops.contains(&token);
            let last = stop || written.ids.len() == tokens_max;
            written.text += &stream.push(&self.tokenizer, token);
            if last {
                written.text += &stream.finish(&self.tokenizer);
            }
            let cut = first_stop(&written.text, &options.stop);
            if let Some(at) = cut {
                written.text.truncate(at);
            }
            let settled =
                if last || cut.is_some() { written.text.len() } else { before_stop(&written.text, &options.stop) };
            if settled > given {
                on_text(&written.text[given..settled]);
                given = settled;
            }
            if last || cut.is_some() {
                written.stopped = stop || cut.is_some();
                return Ok(written);
            }
            let run = Run { table: &mut reading.table, ids: &[token], media: &media };
            next = if on_device {
                let uniform = uniform(seed, seen.len() as u64);
                let request = Request { temperature, top_k, top_p, uniform, target: None };
                Next::Chosen(self.choose(&mut reading.pool, [run], Outputs::Last, &[request], &forbidden)?[0])
            } else {
                Next::Logits(self.append(&mut reading.pool, [run], Outputs::Last)?.remove(0))
            };
        }
    }

    fn search(
        &mut self,
        reading: &mut Reading,
        logits: Vec<f32>,
        options: &Generation,
        tokens_max: usize,
    ) -> Result<Written> {
        let search = BeamSearch {
            beams: options.beams,
            length_penalty: options.length_penalty,
            tokens_max,
            stops: if options.ignore_end { Vec::new() } else { self.tokenizer.stops.clone() },
            forbidden: self.tokenizer.forbidden(),
        };
        let media = [reading.last_media()];
        let Reading { pool, table, .. } = reading;
        let mut tables: Vec<PageTable> = (0..options.beams).map(|_| table.fork(pool)).collect();
        table.clear(pool);
        let found = search.run(logits, |parents, tokens| {
            let mut next: Vec<PageTable> = parents.iter().map(|&parent| tables[parent].fork(pool)).collect();
            tables.iter_mut().for_each(|table| table.clear(pool));
            let runs = next.iter_mut().zip(tokens.chunks(1)).map(|(table, ids)| Run { table, ids, media: &media });
            let logits = self.append(pool, runs, Outputs::Last)?;
            tables = next;
            Ok(logits)
        })?;
        let logprobs = found.logprobs.iter().map(|&logprob| f64::from(logprob)).collect();
        Ok(Written { text: String::new(), ids: found.tokens, logprobs, stopped: found.stopped })
    }

    /// Appends tokens to sequences in one run of the text plan; rows of logits, sequence by sequence.
    fn append<'a>(
        &mut self,
        pool: &mut PagePool,
        runs: impl IntoIterator<Item = Run<'a>>,
        outputs: Outputs,
    ) -> Result<Vec<Vec<f32>>> {
        self.run(pool, runs, outputs, |executor, batch| {
            let (_, logits) = executor.step(batch, &[], &[])?;
            Ok((0..batch.outputs.len()).map(|index| logits.row(index).to_vec()).collect())
        })
    }

    /// Appends tokens as [`Flamingo::append`] does; instead of logits, what the device chose for each request.
    fn choose<'a>(
        &mut self,
        pool: &mut PagePool,
        runs: impl IntoIterator<Item = Run<'a>>,
        outputs: Outputs,
        requests: &[Request],
        forbidden: &[u32],
    ) -> Result<Vec<Chosen>> {
        self.run(pool, runs, outputs, |executor, batch| Ok(executor.step(batch, requests, forbidden)?.0))
    }

    /// Log-probabilities of `targets`, each after the token at its place in the runs.
    fn likelihoods<'a>(
        &mut self,
        pool: &mut PagePool,
        runs: impl IntoIterator<Item = Run<'a>>,
        targets: &[u32],
    ) -> Result<Vec<f64>> {
        if self.executor.chooses() {
            let wanted = |&target| Request { target: Some(target), ..greedy() };
            let requests: Vec<Request> = targets.iter().map(wanted).collect();
            let found = self.choose(pool, runs, Outputs::All, &requests, &[])?;
            return Ok(found.iter().map(|row| f64::from(row.target_logit) - f64::from(row.log_sum_exp)).collect());
        }
        let logits = self.append(pool, runs, Outputs::All)?;
        Ok(logits.iter().zip(targets).map(|(logits, &target)| log_probability(logits, target)).collect())
    }

    /// Appends tokens to sequences and hands the batch to `each`; nothing for no tokens.
    fn run<'a, R: Default>(
        &mut self,
        pool: &mut PagePool,
        runs: impl IntoIterator<Item = Run<'a>>,
        outputs: Outputs,
        each: impl FnOnce(&mut Executor, &Batch) -> Result<R>,
    ) -> Result<R> {
        let mut rows = Rows::default();
        let mut tables: Vec<&PageTable> = Vec::new();
        for (sequence, run) in (0..).zip(runs) {
            let from = run.table.length();
            if let Some(copy) = run.table.extend(pool, run.ids.len())? {
                self.executor.copy_text_page(copy)?;
            }
            rows.push(sequence, from, run.ids, run.media, outputs);
            tables.push(run.table);
        }
        if rows.ids.is_empty() {
            return Ok(R::default());
        }
        let tables: Vec<&[u32]> = tables.into_iter().map(PageTable::pages).collect();
        let batch = Batch {
            ids: &rows.ids,
            positions: &rows.positions,
            sequences: &rows.sequences,
            tables: &tables,
            media: &rows.media,
            outputs: &rows.outputs,
            ..Batch::default()
        };
        each(&mut self.executor, &batch)
    }
}

/// Asks for the most likely token.
fn greedy() -> Request {
    Request { temperature: 0.0, top_k: 0, top_p: 1.0, uniform: 0.0, target: None }
}

/// What is known of the next token.
enum Next {
    /// All logits.
    Logits(Vec<f32>),
    /// The device's choice.
    Chosen(Chosen),
}

/// Which tokens' logits are wanted.
#[derive(Clone, Copy, PartialEq)]
enum Outputs {
    /// Of every token.
    All,
    /// Of the last token of each sequence.
    Last,
}

/// The rows of a batch while it is gathered.
#[derive(Default)]
struct Rows {
    ids: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<u32>,
    media: Vec<Option<u32>>,
    outputs: Vec<u32>,
}

impl Rows {
    fn push(&mut self, sequence: u32, from: usize, ids: &[u32], media: &[Option<u32>], outputs: Outputs) {
        let first = self.ids.len() as u32;
        let last = first + ids.len() as u32;
        self.ids.extend(ids);
        self.positions.extend(from as u32..(from + ids.len()) as u32);
        self.sequences.extend(std::iter::repeat_n(sequence, ids.len()));
        self.media.extend(media);
        self.outputs.extend(if outputs == Outputs::All { first..last } else { last - 1..last });
    }
}

/// An answer while it is written.
#[derive(Default)]
struct Written {
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<f64>,
    stopped: bool,
}

/// Where the first stop text begins.
fn first_stop(text: &str, stops: &[String]) -> Option<usize> {
    stops.iter().filter_map(|stop| text.find(stop.as_str())).min()
}

/// How much of a text can be given out while its end may still turn into a stop text.
fn before_stop(text: &str, stops: &[String]) -> usize {
    let held = stops.iter().filter_map(|stop| {
        (1..stop.len()).rev().find(|&length| stop.is_char_boundary(length) && text.ends_with(&stop[..length]))
    });
    text.len() - held.max().unwrap_or(0)
}

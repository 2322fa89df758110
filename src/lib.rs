//! Flamant runs visual language models with gated cross-attention: the Flamingo family, from OpenFlamingo and IDEFICS
//! to Llama 3.2 Vision.
//!
//! A [`Flamingo`] is opened from a model folder, reads a [`Prompt`] of texts and images, and writes, scores or
//! chooses:
//!
//! ```no_run
//! use flamant::{Flamingo, Generation, Options, Prompt};
//!
//! # fn main() -> flamant::Result<()> {
//! let mut flamingo = Flamingo::open("idefics-9b-instruct", &Options::default())?;
//! let mut prompt = Prompt::new();
//! prompt.text("User: What is in this image?")?.image_file("cat.png")?.text("<end_of_utterance>\nAssistant:")?;
//! let answer = flamingo.generate(&prompt, &Generation::default(), &mut |text| print!("{text}"))?;
//! println!("\n{} tokens", answer.ids.len());
//! # Ok(())
//! # }
//! ```
//!
//! A [`Flamingo`] is the simple face of an [`Engine`], which serves many requests at once: it batches them, finds again
//! what their prompts have in common, and tells what happens to each as it happens.
//!
//! Everything that comes from outside (files, prompts, images, settings) is answered by an [`Error`] of one line that
//! names the file, key or limit; nothing here panics on it.

//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `cli` (on by default) | the program `flamant`; turns `eval` on |
//! | `serve` (on by default) | [`serve`]: an OpenAI-compatible HTTP server, and its routes for servers of one's own |
//! | `eval` | [`eval`]: few-shot evaluation on published sets or one's own |
//! | `async` | [`AsyncEngine`]: an engine on a thread of its own, for many threads or tasks |
//! | `capi` | the C interface of `include/flamant.h`; cargo-c turns it on |
//! | `tracing` | events for [`tracing`](https://docs.rs/tracing): opening, steps, requests, and what is slow |
//! | `emulated` | [`Device::Emulated`]: the GPU's kernels on the processor, for tests; needs a C++ compiler |
//! | `unstable-probe` | single operations and synthetic models, for tests and benches; it may change with any version |
//!
//! Without any, the library has models, engines, batches and all devices: whether there is a GPU is found when a model
//! is opened.

#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// What `probe` alone reaches is no dead code; whatever else is dead is found with it, as in tests.
#![cfg_attr(not(feature = "unstable-probe"), allow(dead_code, unused_imports))]

pub mod batch;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod convert;
pub mod demo;
#[cfg(feature = "eval")]
pub mod eval;
pub mod files;
pub mod hub;
pub mod image;
#[cfg(feature = "unstable-probe")]
pub mod probe;
pub mod quantize;
pub mod sample;
pub mod search;
#[cfg(feature = "serve")]
pub mod serve;
pub mod video;

#[cfg(feature = "async")]
mod async_engine;
mod backend;
mod chat;
mod engine;
mod error;
mod executor;
mod family;
#[cfg(feature = "capi")]
mod ffi;
mod flamingo;
mod generation_config;
mod graph;
mod inspect;
mod kv;
mod model;
mod parse;
mod preprocessor;
mod prompt;
mod setters;
mod tokenizer;
mod trace;
mod weights;

#[cfg(feature = "async")]
pub use async_engine::{AsyncEngine, Blocking, Events, PendingFeatures};
pub use backend::{Device, DeviceInfo, devices};
pub use chat::{Chat, Role};
pub use checkpoint::{Dtype, Load};
pub use engine::{
    Answer, Choice, Classification, Engine, EngineHandle, Event, EventKind, Finish, Generation, Limits, Options,
    PagesNow, PreparedRequest, Preparer, Request, RequestId, Score, Stats, Task, Timings, Usage, json, runner,
};
pub use error::{Error, ErrorKind, Result};
pub use family::presets::PRESETS;
pub use family::{Begin, ChatTemplate, Family, MediaMask, Preprocessing, Template};
pub use flamingo::Flamingo;
pub use generation_config::GenerationConfig;
pub use inspect::{Gate, Inspection, Memory, Part as InspectedPart};
pub use kv::{KvDtype, MediaSeen};
pub use model::config;
pub use prompt::{Part, Prompt, PromptLimits, Rendered};
pub use sample::Sampling;
pub use tokenizer::{TextStream, Tokenizer};

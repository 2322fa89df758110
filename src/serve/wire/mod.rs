//! The forms of requests and answers, a file for each kind of route.
//!
//! A body is read and its images are decoded on a thread that may take its time ([`Call::prepare`]); what the engine
//! then says of its requests is awaited.
//!
//! [`Call::prepare`]: super::call::Call::prepare

mod body;
mod decisions;
mod generate;
mod parts;
#[cfg(feature = "unstable-probe")]
pub(super) mod probe;
mod running;
mod sampling;
mod show;
mod sse;
mod tokens;
mod weigh;
mod writing;

use axum::http::StatusCode;
use serde_json::{Value, json};

pub(super) use decisions::decisions;
pub(super) use generate::{chat, completions};
pub(super) use sampling::default_settings;
pub(super) use show::{detokenize, render, tokenize};
pub(super) use weigh::{classify, loglikelihood};

const BAD_REQUEST: StatusCode = StatusCode::BAD_REQUEST;

/// What bounds requests in numbers, beside what a server is told.
pub(super) fn limits() -> Value {
    json!({
        "n": sampling::N_MAX,
        "prompts": parts::PROMPTS_MAX,
        "stop": sampling::STOP_MAX,
        "top_logprobs": sampling::TOP_MAX,
        "choices": sampling::CHOICES_MAX,
        "questions": decisions::QUESTIONS_MAX,
    })
}

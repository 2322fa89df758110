//! `POST /v1/classify` and `POST /v1/loglikelihood`: what `flamant classify` and `flamant score` print, and the
//! likelihoods of continuations.

use axum::response::Response;
use serde_json::{Value, json};

use super::body::{Body, invalid};
use super::parts;
use super::running::{Head, Running, respond, submit};
use super::sampling::{TOP_MAX, timeout};
use crate::engine::{EventKind, Task, json};
use crate::serve::call::{Call, Given};
use crate::serve::problem::Problem;

/// Texts that are weighed behind one prompt.
const TEXTS_MAX: usize = 4096;

/// `POST /v1/classify`
pub async fn classify(call: Call) -> Result<Response, Problem> {
    answer(call, choices).await
}

/// `POST /v1/loglikelihood`
pub async fn loglikelihood(call: Call) -> Result<Response, Problem> {
    answer(call, likelihoods).await
}

pub fn choices(body: &mut Body) -> Result<(Task, Told), Problem> {
    let choices = body.texts("choices", TEXTS_MAX)?.unwrap_or_default();
    if choices.is_empty() {
        return Err(invalid("choices", "at least one text", "none"));
    }
    Ok((Task::classify(choices), Told::Classification { mean: body.flag("mean")? }))
}

pub fn likelihoods(body: &mut Body) -> Result<(Task, Told), Problem> {
    match body.texts("continuations", TEXTS_MAX)? {
        Some(texts) if texts.is_empty() => Err(invalid("continuations", "at least one text", "none")),
        Some(texts) => Ok((Task::classify(texts), Told::Continuations)),
        None => {
            let top = body.count_to("top_logprobs", 0, TOP_MAX)?.unwrap_or(0);
            Ok((Task::score_top(top), Told::Score))
        }
    }
}

/// What is told of what was found.
#[derive(Clone, Copy)]
pub enum Told {
    Classification { mean: bool },
    Continuations,
    Score,
}

pub type Read = fn(&mut Body) -> Result<(Task, Told), Problem>;

async fn answer(mut call: Call, read: Read) -> Result<Response, Problem> {
    let prepared = call.prepare(move |given| prepare(given, read)).await?;
    let (running, told, head, timeout) = prepared;
    call.within(timeout)?;
    let mut answer = match (told, running.ends(&mut call).await?.pop()) {
        (Told::Classification { mean }, Some(EventKind::Classified(found))) => json::classification(&found, mean),
        (Told::Continuations, Some(EventKind::Classified(found))) => {
            let each = found.choices.iter().map(|choice| {
                json!({
                    "text": choice.text, "logprob": choice.sum, "tokens": choice.ids.len(), "is_greedy": choice.greedy,
                })
            });
            let each: Vec<Value> = each.collect();
            let mut told = json::classification(&found, false);
            let [usage, timings] = ["usage", "timings"].map(|key| told[key].take());
            json!({"continuations": each, "usage": usage, "timings": timings})
        }
        (_, Some(EventKind::Scored(score))) => json::score(&score, call.engine.preparer().tokenizer()),
        _ => return Err(Problem::draining()),
    };
    answer["id"] = format!("weigh-{}", head.number).into();
    answer["model"] = head.model.into();
    Ok(respond(&answer))
}

pub type Prepared = (Running, Told, Head, Option<f64>);

pub fn prepare(given: &Given, read: Read) -> Result<Prepared, Problem> {
    let mut body = Body::read(&given.body)?;
    body.model(given)?;
    let (task, told) = read(&mut body)?;
    let (timeout, salt) = (timeout(&mut body)?, body.salt(given)?);
    let (prompt, key) = match parts::either(body, given)? {
        parts::Either::Prompt(prompt) => (prompt, "prompt"),
        parts::Either::Chat(chat, template) => (parts::asked(chat, &template, "messages")?.prompt, "messages"),
    };
    let running = Running::new(vec![submit(given, salt, key, &prompt, task)?]);
    let head = Head::new(given, running.number());
    Ok((running, told, head, timeout))
}

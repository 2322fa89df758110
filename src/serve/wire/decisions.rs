//! `POST /v1/decisions`: typed questions about texts and images, answered by the likelihood of each answer.

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::body::{Body, at, invalid, of_prompt, over};
use super::parts::{Asked, Reader, asked, template};
use super::running::{Head, Running, Took, respond, submit, took};
use super::sampling::timeout;
use crate::async_engine::Events;
use crate::chat::{Chat, Role};
use crate::engine::{Choice, EventKind, Task};
use crate::parse::{self, kind};
use crate::serve::call::{Call, Given};
use crate::serve::problem::Problem;

/// Questions of a request, and answers to one of them.
pub const QUESTIONS_MAX: usize = 400;
const ANSWERS: std::ops::RangeInclusive<usize> = 2..=255;
/// Bytes of a question's name.
const NAME_BYTES_MAX: usize = 256;

const QUESTIONS: &str = "questions";
const INPUT: &str = "input";

/// How a boolean is written.
const YES: &str = "yes";
const NO: &str = "no";

/// `POST /v1/decisions`
pub async fn decisions(mut call: Call) -> Result<Response, Problem> {
    let (decisions, running) = call.prepare(Decisions::prepare).await?;
    call.within(decisions.timeout)?;
    Ok(respond(&decisions.answer(running.ends(&mut call).await?)))
}

pub struct Decisions {
    head: Head,
    questions: Vec<Question>,
    mean: bool,
    timeout: Option<f64>,
}

struct Question {
    form: Form,
    name: Option<String>,
    /// What each answer is called, and the text of it that is weighed.
    options: Vec<(Value, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Choice,
    Predicate,
    Score,
}

impl Decisions {
    pub fn prepare(given: &Given) -> Result<(Decisions, Running), Problem> {
        let mut body = Body::read(&given.body)?;
        body.model(given)?;
        let template = template(&mut body, given)?;
        let rank = body.take::<String>("rank", "sum or mean")?;
        let mean = match rank.as_deref() {
            None | Some("sum") => false,
            Some("mean") => true,
            Some(other) => return Err(invalid("rank", "sum or mean", other)),
        };
        let (timeout, salt) = (timeout(&mut body)?, body.salt(given)?);
        let (input, questions) = (body.raw(INPUT), body.raw(QUESTIONS));
        body.end(given)?;
        let input = input.ok_or_else(|| invalid(INPUT, "a string or messages", "none"))?;
        let raw = questions.ok_or_else(|| invalid(QUESTIONS, "an array of questions", "none"))?;
        let mut reader = Reader::new(&given.server.settings);
        let chat = match input.starts_with('"') {
            false => reader.chat(INPUT, input)?,
            true => {
                let text = serde_json::from_str(input).map_err(|_| invalid(INPUT, "a string", input))?;
                let mut chat = Chat::default();
                let said = reader.of(Value::String(text), INPUT)?;
                chat.turn(Role::User, said).map_err(|error| of_prompt(INPUT, error))?;
                chat
            }
        };
        let mut events = Vec::new();
        let mut questions = Vec::new();
        let mut problem = None;
        let read = parse::elements(
            QUESTIONS,
            [QUESTIONS, "an array of questions"],
            raw,
            2 * raw.len() + (1 << 20),
            |place, item| {
                let submitted = Question::read(&reader, &chat, item, place).and_then(|(question, chat)| {
                    events.push(question.submit(given, salt, &asked(chat, &template, INPUT)?)?);
                    questions.push(question);
                    Ok(())
                });
                submitted.map_err(|found| {
                    problem = Some(found);
                    crate::Error::argument(QUESTIONS)
                })
            },
        );
        match (read, problem) {
            (_, Some(problem)) => return Err(problem),
            (Err(error), None) => return Err(at(QUESTIONS, error)),
            (Ok(()), None) if questions.is_empty() => return Err(invalid(QUESTIONS, "at least one question", "none")),
            (Ok(()), None) => {}
        }
        let running = Running::new(events);
        let head = Head::new(given, running.number());
        Ok((Decisions { head, questions, mean, timeout }, running))
    }

    fn answer(&self, ends: Vec<EventKind>) -> Value {
        let mut all = Took::default();
        let mut answers = Vec::new();
        for (number, (question, end)) in self.questions.iter().zip(ends).enumerate() {
            if let Some((usage, timings)) = took(&end) {
                all.add(number, usage, timings);
            }
            if let EventKind::Classified(found) = end {
                answers.push(question.answer(&shares(&found.choices, self.mean)));
            }
        }
        json!({
            "id": format!("decision-{}", self.head.number),
            "object": "decision",
            "created": self.head.created,
            "model": self.head.model,
            "system_fingerprint": self.head.fingerprint,
            "answers": answers,
            "usage": all.decided(),
            "flamant": all.flamant(None),
        })
    }
}

/// Each choice's share of the likelihood of all, in the order given.
fn shares(choices: &[Choice], mean: bool) -> Vec<f64> {
    let rank = |choice: &Choice| if mean { choice.mean } else { choice.sum };
    let best = choices.iter().map(rank).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = choices.iter().map(|choice| (rank(choice) - best).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// How far from even the shares are, from 0 to 1: what is left of the entropy. OpenAI says of its own only that it is
/// high when an answer is sure.
fn confidence(shares: &[f64]) -> f64 {
    let entropy: f64 = shares.iter().filter(|share| **share > 0.0).map(|share| -share * share.ln()).sum();
    (1.0 - entropy / (shares.len() as f64).ln()).clamp(0.0, 1.0)
}

impl Question {
    /// Reads a question; the conversation that it ends.
    fn read(reader: &Reader, input: &Chat, item: Value, place: usize) -> Result<(Question, Chat), Problem> {
        if place == QUESTIONS_MAX {
            return Err(over(QUESTIONS, "questions", QUESTIONS_MAX, QUESTIONS_MAX + 1));
        }
        let place = format!("{QUESTIONS}[{place}]");
        let Value::Object(mut fields) = item else { return Err(invalid(&place, "an object", kind(&item))) };
        fields.retain(|_, value| !value.is_null());
        let form = match fields.remove("type").as_ref().and_then(Value::as_str) {
            Some("choice") => Form::Choice,
            Some("predicate") => Form::Predicate,
            Some("score") => Form::Score,
            found => {
                return Err(invalid(&format!("{place}.type"), "choice, predicate or score", found.unwrap_or("none")));
            }
        };
        let name = match fields.remove("name") {
            None => None,
            Some(Value::String(name)) if name.len() <= NAME_BYTES_MAX => Some(name),
            Some(other) => {
                let expected = format!("a string of at most {NAME_BYTES_MAX} bytes");
                return Err(invalid(&format!("{place}.name"), &expected, kind(&other)));
            }
        };
        let instructions = fields.remove("instructions");
        let instructions =
            instructions.ok_or_else(|| invalid(&format!("{place}.instructions"), "a string or parts", "none"))?;
        let mut said = reader.of(instructions, &format!("{place}.instructions"))?;
        let (options, descriptions) = match form {
            Form::Predicate => {
                (vec![(Value::Bool(true), YES.to_owned()), (Value::Bool(false), NO.to_owned())], String::new())
            }
            Form::Choice => options(&mut fields, "choices", "value", &place)?,
            Form::Score => options(&mut fields, "levels", "label", &place)?,
        };
        if let Some(key) = fields.keys().next() {
            return Err(invalid(&place, "no other fields in a question of this type", key));
        }
        let outside = |error| of_prompt(QUESTIONS, error);
        if !descriptions.is_empty() {
            said.text(descriptions).map_err(outside)?;
        }
        let mut chat = input.clone();
        // Few-shot prompts say what is asked by their shots.
        if said.parts().iter().any(|part| !matches!(part, crate::Part::Text(text) if text.is_empty())) {
            chat.go_on(Role::User, said).map_err(outside)?;
        }
        Ok((Question { form, name, options }, chat))
    }

    fn submit(&self, given: &Given, salt: Option<[u8; 32]>, asked: &Asked) -> Result<Events, Problem> {
        let Asked { prompt, before, after } = asked;
        let choices = self.options.iter().map(|(_, text)| format!("{before}{text}{after}")).collect();
        submit(given, salt, INPUT, prompt, Task::classify(choices))
    }

    fn answer(&self, shares: &[f64]) -> Value {
        let each = || self.options.iter().map(|(value, _)| value).zip(shares);
        match self.form {
            Form::Predicate => json!({"type": "predicate", "name": self.name, "probability": shares[0]}),
            Form::Choice => {
                let best = each().rev().max_by(|a, b| a.1.total_cmp(b.1)).map(|(value, _)| value);
                let all = each().map(|(value, share)| json!({"value": value, "probability": share}));
                json!({
                    "type": "choice", "name": self.name, "choice": best, "confidence": confidence(shares),
                    "probabilities": all.collect::<Vec<_>>(),
                })
            }
            Form::Score => {
                let score: f64 = shares.iter().enumerate().map(|(level, share)| level as f64 * share).sum();
                let all = each().enumerate();
                let all =
                    all.map(|(level, (label, share))| json!({"label": label, "value": level, "probability": share}));
                json!({
                    "type": "score", "name": self.name, "score": score, "confidence": confidence(shares),
                    "probabilities": all.collect::<Vec<_>>(),
                })
            }
        }
    }
}

/// Answers to a question under `key`, each an object with `name`, and lines that say what they mean.
fn options(
    fields: &mut Map<String, Value>,
    key: &str,
    name: &str,
    place: &str,
) -> Result<(Vec<(Value, String)>, String), Problem> {
    let place = format!("{place}.{key}");
    let list = match fields.remove(key) {
        Some(Value::Array(list)) => list,
        other => return Err(invalid(&place, "an array", other.as_ref().map_or("none", kind))),
    };
    if !ANSWERS.contains(&list.len()) {
        let expected = format!("{} to {} of them", ANSWERS.start(), ANSWERS.end());
        return Err(invalid(&place, &expected, &list.len().to_string()));
    }
    let mut options: Vec<(Value, String)> = Vec::new();
    let mut lines = String::new();
    for (number, item) in list.into_iter().enumerate() {
        let place = format!("{place}[{number}]");
        let Value::Object(mut fields) = item else { return Err(invalid(&place, "an object", kind(&item))) };
        let value = fields.remove(name).unwrap_or(Value::Null);
        let text = match &value {
            Value::String(text) if !text.is_empty() => text.clone(),
            Value::Bool(flag) if name == "value" => (if *flag { YES } else { NO }).to_owned(),
            other => return Err(invalid(&format!("{place}.{name}"), "a text", kind(other))),
        };
        if options.iter().any(|(_, other)| *other == text) {
            return Err(invalid(&format!("{place}.{name}"), "another text than all before it", &text));
        }
        match fields.remove("description") {
            None | Some(Value::Null) => {}
            Some(Value::String(description)) => lines += &format!("\n- {text}: {description}"),
            Some(other) => return Err(invalid(&format!("{place}.description"), "a string", kind(&other))),
        }
        if let Some(key) = fields.keys().next() {
            return Err(invalid(&place, &format!("{name} and description alone"), key));
        }
        options.push((value, text));
    }
    Ok((options, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_are_even_tell_nothing() {
        assert_eq!(confidence(&[0.5, 0.5]), 0.0);
        assert_eq!(confidence(&[0.0, 1.0, 0.0]), 1.0);
        let some = confidence(&[0.8, 0.2]);
        // 1 - (0.8 ln 1.25 + 0.2 ln 5) / ln 2
        assert!((some - 0.278_071_905_112_637_5).abs() < 1e-12, "{some}");
    }
}

//! Lines that a program holds itself, answered as texts: for workers of a cluster that read and write elsewhere.

use std::collections::VecDeque;
use std::path::Path;

use super::answers::rest;
use super::report;
use crate::async_engine::{AsyncEngine, Events};
use crate::engine::runner::{Supply, Workers};
use crate::engine::{EventKind, json};
use crate::error::{Error, Result};
use crate::prompt::PromptLimits;

/// What is kept of a line until it is answered.
struct Ticket {
    index: usize,
    labels: json::Labels,
    notes: Vec<String>,
}

/// Answers lines as a [`Batch`](super::Batch) does, side by side, and returns the answers in the order of the lines:
/// each the JSON object that a batch writes, without `line` and `request`. A line that cannot be answered has an answer
/// with `error` and `kind`. Paths of images are relative to the working directory.
///
/// At most as many requests as have room wait in the engine, so that any number of lines may be given. Where others
/// fill its queue at the same time, an answer may be the error of a full queue.
///
/// # Errors
/// A device that has failed, or an engine that was closed: no fault of any line.
pub fn answer_lines(engine: &AsyncEngine, lines: Vec<String>, limits: &PromptLimits) -> Result<Vec<String>> {
    let mut answers = vec![String::new(); lines.len()];
    let mut answer = |ticket: &Ticket, report: &serde_json::Value| {
        let id = ticket.labels.id.as_ref().unwrap_or(&serde_json::Value::Null);
        answers[ticket.index] = format!("{{\"id\":{id},{}", rest(&ticket.notes, report));
    };
    let source = lines
        .into_iter()
        .enumerate()
        .map(|(index, line)| Ok((Ticket { index, labels: json::Labels::default(), notes: Vec::new() }, line)));
    let (limits, preparer) = (limits.clone(), engine.preparer().clone());
    let workers = Workers::start(source, move |line: String, ticket: &mut Ticket| {
        let request = json::request(line.as_bytes(), "request", Path::new(""), limits.clone(), &mut ticket.labels)?;
        ticket.notes = request.prompt.notes().to_vec();
        preparer.prepare(request)
    });
    let mut open: VecDeque<(Ticket, Events)> = VecDeque::new();
    loop {
        let (ticket, prepared) = match workers.next(true)? {
            Supply::Request(ticket, prepared) => (ticket, prepared),
            Supply::Refused(ticket, error) => {
                answer(&ticket, &json::error(&error));
                continue;
            }
            // Never `Later`, which is for those that do not wait.
            Supply::Later | Supply::End => break,
        };
        // Alone, what has no room never has.
        while !engine.has_room(&prepared) {
            let Some((ticket, events)) = open.pop_front() else { break };
            answer(&ticket, &last(engine, &ticket, events)?);
        }
        match engine.submit_prepared(*prepared) {
            Ok(events) => open.push_back((ticket, events)),
            Err(error @ Error::Device { .. }) => return Err(error),
            Err(error) => answer(&ticket, &json::error(&error)),
        }
    }
    workers.join();
    for (ticket, events) in open {
        answer(&ticket, &last(engine, &ticket, events)?);
    }
    Ok(answers)
}

/// Waits for the end of a request; what is said of it.
fn last(engine: &AsyncEngine, ticket: &Ticket, events: Events) -> Result<serde_json::Value> {
    for event in events {
        match event {
            EventKind::Failed(error @ Error::NotFinite { .. }) => return Ok(json::error(&error)),
            EventKind::Failed(error) => return Err(error),
            event => {
                if let Some(report) = report(&event, &ticket.labels, engine.preparer()) {
                    return Ok(report);
                }
            }
        }
    }
    Err(Error::device("the engine", "it was closed before a request was answered"))
}

//! Answers that are to be written: from a body to requests of the engine, and from what they end with to JSON.

use serde_json::{Value, json};

use super::body::{Body, invalid, of_prompt};
use super::parts::{Asked, Reader, asked, template};
use super::running::{Head, Running, Took, submit, took};
use super::sampling::{ANSWERS_MAX, Kind, Wanted};
use super::tokens::{self, Listed};
use crate::async_engine::{AsyncEngine, Events};
use crate::engine::{Answer, Classification, EventKind, Finish, Score, Task};
use crate::prompt::Prompt;
use crate::sample::uniform;
use crate::serve::call::Given;
use crate::serve::problem::Problem;

/// What a request to the engine is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Writes an answer to a prompt; both count from 0.
    Write { prompt: usize, answer: usize },
    /// Weighs the texts of which all answers to a prompt are.
    Choose { prompt: usize },
    /// Weighs a prompt that is told with its answers.
    Weigh { prompt: usize },
}

impl Purpose {
    pub fn prompt(self) -> usize {
        match self {
            Purpose::Write { prompt, .. } | Purpose::Choose { prompt } | Purpose::Weigh { prompt } => prompt,
        }
    }
}

/// Answers that are to be written.
pub struct Writing {
    pub kind: Kind,
    pub wanted: Wanted,
    pub head: Head,
    /// What each request to the engine is for.
    pub purposes: Vec<Purpose>,
    /// The text of each prompt, if it is told with its answers.
    pub echo: Option<Vec<String>>,
    pub engine: AsyncEngine,
}

/// An answer as clients read it.
pub struct Told {
    pub text: String,
    pub finish: &'static str,
    logprobs: Value,
}

impl Writing {
    /// Reads a body and submits its requests.
    pub fn prepare(given: &Given, kind: Kind) -> Result<(Writing, Running), Problem> {
        let mut body = Body::read(&given.body)?;
        body.model(given)?;
        let chat_template = match kind {
            Kind::Chat => Some(template(&mut body, given)?),
            Kind::Text => None,
        };
        let stop = chat_template.as_ref().map_or(Vec::new(), |template| template.stop.clone());
        let wanted = Wanted::read(&mut body, given, kind, stop)?;
        let echo = kind == Kind::Text && body.flag("echo")?;
        let salt = body.salt(given)?;
        if echo && wanted.stream.is_some() && wanted.logprobs.is_some() {
            let message = "echo: expected no stream with logprobs";
            return Err(Problem::new(super::BAD_REQUEST, "unsupported_value", message).param("echo"));
        }
        let key = if kind == Kind::Chat { "messages" } else { "prompt" };
        let raw = body.raw(key);
        body.end(given)?;
        let raw = raw.ok_or_else(|| invalid(key, if kind == Kind::Chat { "messages" } else { "a prompt" }, "none"))?;
        let mut reader = Reader::new(&given.server.settings);
        let (prompts, around) = match &chat_template {
            Some(template) => {
                let Asked { prompt, before, after, .. } = asked(reader.chat(key, raw)?, template, key)?;
                (vec![prompt], [before, after])
            }
            None => (reader.prompts(key, raw)?.0, Default::default()),
        };
        if prompts.len() * wanted.n > ANSWERS_MAX {
            return Err(super::body::over("n", "answers to all prompts", ANSWERS_MAX, prompts.len() * wanted.n));
        }
        let mut submitting = Submitting { given, wanted: &wanted, salt, key, events: Vec::new(), purposes: Vec::new() };
        let mut texts = Vec::new();
        for (number, prompt) in prompts.into_iter().enumerate() {
            if echo {
                let tokenizer = given.engine.preparer().tokenizer();
                let text = prompt.render(tokenizer).map_err(|error| of_prompt(key, error))?.text;
                // What the family begins with is nothing that was given.
                texts.push(text.strip_prefix(&tokenizer.begin).unwrap_or(&text).to_owned());
            }
            submitting.prompt(number, &prompt, &around, echo)?;
        }
        let Submitting { events, purposes, .. } = submitting;
        let running = Running::new(events);
        let head = Head::new(given, running.number());
        let echo = echo.then_some(texts);
        Ok((Writing { kind, wanted, head, purposes, echo, engine: given.engine.clone() }, running))
    }

    /// The index of an answer among all of them.
    pub fn index(&self, prompt: usize, answer: usize) -> usize {
        prompt * self.wanted.n + answer
    }

    /// All answers in one piece.
    pub fn whole(&self, ends: Vec<EventKind>) -> Value {
        let mut all = Took::default();
        let mut scores: Vec<(usize, Score)> = Vec::new();
        let mut told: Vec<(usize, Told)> = Vec::new();
        for (purpose, end) in self.purposes.iter().zip(ends) {
            if let Some((usage, timings)) = took(&end) {
                all.add(purpose.prompt(), usage, timings);
            }
            match (*purpose, end) {
                // It stands before the answers of its prompt.
                (Purpose::Weigh { prompt }, EventKind::Scored(score)) => {
                    if self.wanted.generation.max_new_tokens == 0 {
                        let all = (0..self.wanted.n).map(|answer| self.index(prompt, answer));
                        told.extend(all.map(|index| (index, self.echoed(prompt, &score))));
                    }
                    scores.push((prompt, score));
                }
                (Purpose::Write { prompt, answer }, EventKind::Written(written)) => {
                    let score = scores.iter().find(|(of, _)| *of == prompt).map(|(_, score)| score);
                    told.push((self.index(prompt, answer), self.written(prompt, &written, score)));
                }
                (Purpose::Choose { prompt }, EventKind::Classified(found)) => {
                    for answer in 0..self.wanted.n {
                        let text = self.echo_of(prompt) + self.chosen(&found, answer);
                        let index = self.index(prompt, answer);
                        told.push((index, Told { text, finish: "stop", logprobs: Value::Null }));
                    }
                }
                _ => {}
            }
        }
        let choices: Vec<Value> = told.into_iter().map(|(index, told)| self.choice(index, told)).collect();
        let (name, object) = self.names();
        json!({
            "id": format!("{name}-{}", self.head.number),
            "object": object,
            "created": self.head.created,
            "model": self.head.model,
            "system_fingerprint": self.head.fingerprint,
            "choices": choices,
            "usage": all.usage(),
            "flamant": all.flamant(Some(self.wanted.generation.sampling.seed)),
        })
    }

    /// What ids of answers begin with, and what an answer is.
    fn names(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Chat => ("chatcmpl", "chat.completion"),
            Kind::Text => ("cmpl", "text_completion"),
        }
    }

    /// The same of a piece of a stream.
    pub fn names_of_chunks(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Chat => ("chatcmpl", "chat.completion.chunk"),
            Kind::Text => self.names(),
        }
    }

    fn choice(&self, index: usize, told: Told) -> Value {
        let Told { text, finish, logprobs } = told;
        match self.kind {
            Kind::Chat => json!({
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": null},
                "logprobs": logprobs,
                "finish_reason": finish,
            }),
            Kind::Text => json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}),
        }
    }

    fn echo_of(&self, prompt: usize) -> String {
        self.echo.as_ref().map_or(String::new(), |texts| texts[prompt].clone())
    }

    /// A prompt alone.
    fn echoed(&self, prompt: usize, score: &Score) -> Told {
        let text = self.echo_of(prompt);
        let mut listed = Listed::new(0);
        listed.prompt(self.engine.preparer().tokenizer(), &text, score);
        Told { text, finish: "length", logprobs: listed.json() }
    }

    fn written(&self, prompt: usize, answer: &Answer, score: Option<&Score>) -> Told {
        let tokenizer = self.engine.preparer().tokenizer();
        let text = self.echo_of(prompt) + &answer.text;
        let each = || {
            let places = answer.ids.iter().zip(&answer.logprobs).enumerate();
            places.filter(|(_, (id, _))| !tokenizer.is_special(**id)).map(|(place, (&id, &logprob))| {
                let top = answer.top.get(place).map_or(&[][..], |top| top);
                (id, logprob, top)
            })
        };
        let logprobs = match (self.wanted.logprobs, self.kind) {
            (None, _) => Value::Null,
            (Some(_), Kind::Chat) => {
                let content = each().map(|(id, logprob, top)| tokens::of_chat(tokenizer, id, logprob, top));
                json!({"content": content.collect::<Vec<_>>(), "refusal": null})
            }
            (Some(_), Kind::Text) => {
                let mut listed = Listed::new(0);
                if let Some(score) = score {
                    listed.prompt(tokenizer, &self.echo_of(prompt), score);
                }
                each().for_each(|(id, logprob, top)| listed.add(tokenizer, id, logprob, top));
                listed.json()
            }
        };
        Told { text, finish: reason(answer.finish), logprobs }
    }

    /// The likeliest of the texts, or one that is drawn.
    pub fn chosen(&self, found: &Classification, answer: usize) -> &str {
        let generation = self.wanted.of(answer);
        let texts = self.wanted.choices.as_ref().expect("there are choices");
        let temperature = f64::from(generation.sampling.temperature);
        let sums: Vec<f64> = found.choices.iter().map(|choice| choice.sum).collect();
        let best = (0..sums.len()).rev().max_by(|&a, &b| sums[a].total_cmp(&sums[b])).unwrap_or(0);
        if temperature == 0.0 {
            return &texts[best];
        }
        let weights: Vec<f64> = sums.iter().map(|sum| ((sum - sums[best]) / temperature).exp()).collect();
        let mut left = uniform(generation.sampling.seed, 0) * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        &texts[drawn.unwrap_or(best)]
    }
}

/// Why an answer ended, in OpenAI's words.
pub fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// Requests of one body on their way to the engine.
struct Submitting<'a> {
    given: &'a Given,
    wanted: &'a Wanted,
    salt: Option<[u8; 32]>,
    key: &'static str,
    events: Vec<Events>,
    purposes: Vec<Purpose>,
}

impl Submitting<'_> {
    /// All requests of a prompt; `around` stands around choices.
    fn prompt(&mut self, prompt: usize, given: &Prompt, around: &[String; 2], echo: bool) -> Result<(), Problem> {
        let wanted = self.wanted;
        if let Some(choices) = &wanted.choices {
            let [before, after] = around;
            let choices = choices.iter().map(|choice| format!("{before}{choice}{after}")).collect();
            return self.submit(given, Task::classify(choices), Purpose::Choose { prompt });
        }
        if let Some(top) = wanted.logprobs.filter(|_| echo) {
            self.submit(given, Task::score_top(top), Purpose::Weigh { prompt })?;
            if wanted.generation.max_new_tokens == 0 {
                return Ok(());
            }
        }
        for answer in 0..wanted.n {
            self.submit(given, Task::Generate(wanted.of(answer)), Purpose::Write { prompt, answer })?;
        }
        Ok(())
    }

    fn submit(&mut self, prompt: &Prompt, task: Task, purpose: Purpose) -> Result<(), Problem> {
        self.events.push(submit(self.given, self.salt, self.key, prompt, task)?);
        self.purposes.push(purpose);
        Ok(())
    }
}

//! Events and counts as C sees them.

#![allow(unsafe_code)]

use bytemuck::Zeroable as _;

use super::Failure;
use super::layout::*;
use crate::engine::{Choice, Event, EventKind, Finish, RequestId, Stats, Timings, Usage};
use crate::error::Result;

/// What is told of a request.
pub(super) enum Told {
    Event(Event),
    /// What was found of images, an error of all of them.
    Features(RequestId, Result<Vec<Vec<f32>>>),
}

impl Told {
    /// An event, if C has a word for it.
    pub(super) fn of(event: Event) -> Option<Told> {
        (!matches!(event.kind, EventKind::Begun { .. })).then_some(Told::Event(event))
    }
}

/// An event with all that its view points to.
pub(super) struct Shown {
    view: EventView,
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<f64>,
    logits: Vec<f32>,
    choices: Vec<Choice>,
    choice_views: Vec<ChoiceView>,
    features: Vec<f32>,
}

// SAFETY: the pointers of the views lead to memory that this very value owns and that nobody writes to.
unsafe impl Send for Shown {}

impl Shown {
    pub(super) fn new(told: Told) -> Box<Shown> {
        let (id, is_last) = match &told {
            Told::Event(event) => (event.id, event.kind.is_last()),
            Told::Features(id, _) => (*id, true),
        };
        let mut shown = Box::new(Shown {
            view: EventView {
                struct_size: size_of::<EventView>(),
                request: id.number(),
                is_last: is_last.into(),
                ..EventView::zeroed()
            },
            text: String::new(),
            ids: Vec::new(),
            logprobs: Vec::new(),
            logits: Vec::new(),
            choices: Vec::new(),
            choice_views: Vec::new(),
            features: Vec::new(),
        });
        match told {
            Told::Event(event) => shown.take(event.kind),
            Told::Features(_, Ok(features)) => shown.take_features(features),
            Told::Features(_, Err(error)) => shown.take(EventKind::Failed(error)),
        }
        shown
    }

    pub(super) fn view(&self) -> &EventView {
        &self.view
    }

    fn take(&mut self, kind: EventKind) {
        match kind {
            EventKind::Token { id, logprob, text, .. } => {
                (self.view.kind, self.view.token, self.view.logprob) = (EVENT_TOKEN, id, logprob);
                self.take_text(text);
            }
            EventKind::Begun { .. } => unreachable!("C is not told of it"),
            EventKind::Logits { position, logits } => {
                (self.view.kind, self.view.position, self.logits) = (EVENT_LOGITS, position, logits);
                (self.view.logits, self.view.logit_count) = (self.logits.as_ptr(), self.logits.len());
            }
            EventKind::Written(answer) => {
                self.view.kind = EVENT_WRITTEN;
                self.view.finish = match answer.finish {
                    Finish::Stop => FINISH_STOP,
                    Finish::Length => FINISH_LENGTH,
                };
                self.take_text(answer.text);
                self.take_tokens(answer.ids, answer.logprobs);
                self.took(answer.usage, answer.timings);
            }
            EventKind::Classified(classification) => {
                self.view.kind = EVENT_CLASSIFIED;
                self.take_choices(classification.choices);
                self.took(classification.usage, classification.timings);
            }
            EventKind::Scored(score) => {
                self.view.kind = EVENT_SCORED;
                let logprobs = score.logprobs.into_iter().map(|logprob| logprob.unwrap_or(f64::NAN));
                self.take_tokens(score.ids, logprobs.collect());
                self.took(score.usage, score.timings);
            }
            EventKind::Cancelled => self.view.kind = EVENT_CANCELLED,
            EventKind::Failed(error) => {
                let failure = Failure::from(error);
                (self.view.kind, self.view.failure) = (EVENT_FAILED, failure.status as i32);
                self.take_text(failure.message);
            }
        }
    }

    fn take_text(&mut self, text: String) {
        self.text = text;
        self.view.text = with_zero(&mut self.text);
    }

    fn take_tokens(&mut self, ids: Vec<u32>, logprobs: Vec<f64>) {
        assert_eq!(ids.len(), logprobs.len());
        (self.ids, self.logprobs) = (ids, logprobs);
        (self.view.ids, self.view.logprobs) = (self.ids.as_ptr(), self.logprobs.as_ptr());
        self.view.token_count = self.ids.len();
    }

    fn take_choices(&mut self, choices: Vec<Choice>) {
        self.choices = choices;
        let view = |choice: &mut Choice| ChoiceView {
            text: with_zero(&mut choice.text),
            ids: choice.ids.as_ptr(),
            token_count: choice.ids.len(),
            sum: choice.sum,
            mean: choice.mean,
        };
        self.choice_views = self.choices.iter_mut().map(view).collect();
        (self.view.choices, self.view.choice_count) = (self.choice_views.as_ptr(), self.choice_views.len());
    }

    fn take_features(&mut self, features: Vec<Vec<f32>>) {
        self.features = features.concat();
        (self.view.kind, self.view.features) = (EVENT_FEATURES, self.features.as_ptr());
        (self.view.feature_count, self.view.feature_width) = (features.len(), features.first().map_or(0, Vec::len));
    }

    fn took(&mut self, usage: Usage, timings: Timings) {
        let Usage { prompt_tokens, cached_tokens, completion_tokens, images, images_encoded } = usage;
        let Timings { queue, media, prompt, decode } = timings;
        self.view = EventView {
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            images,
            images_encoded,
            queue_seconds: queue,
            media_seconds: media,
            prompt_seconds: prompt,
            decode_seconds: decode,
            ..self.view
        };
    }
}

/// A text that is followed by a zero from now on.
fn with_zero(text: &mut String) -> Text {
    let length = text.len();
    text.push('\0');
    Text { data: text.as_ptr().cast(), length }
}

/// Counts, as C knows them.
pub(super) fn stats(stats: &Stats) -> StatsView {
    StatsView {
        struct_size: size_of::<StatsView>(),
        requests_running: stats.requests_running as u64,
        requests_waiting: stats.requests_waiting as u64,
        requests_finished: stats.requests_finished,
        requests_cancelled: stats.requests_cancelled,
        requests_failed: stats.requests_failed,
        steps: stats.steps,
        tokens_computed: stats.tokens_computed,
        tokens_cached: stats.tokens_cached,
        tokens_written: stats.tokens_written,
        images_encoded: stats.images_encoded,
        images_cached: stats.images_cached,
        preemptions: stats.preemptions,
        text_pages_total: stats.text_pages.total as u64,
        text_pages_held: stats.text_pages.held as u64,
        text_pages_cached: stats.text_pages.cached as u64,
        media_pages_total: stats.media_pages.total as u64,
        media_pages_held: stats.media_pages.held as u64,
        media_pages_cached: stats.media_pages.cached as u64,
        schedule_seconds: stats.schedule_seconds,
        media_seconds: stats.media_seconds,
        text_seconds: stats.text_seconds,
        commit_seconds: stats.commit_seconds,
        bytes_fetched: stats.bytes_fetched,
        images_held: stats.images_held as u64,
        images_kept: stats.images_kept as u64,
    }
}

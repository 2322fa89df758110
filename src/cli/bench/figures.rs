//! What `flamant bench` measures, and how it is told.

use std::io::Write as _;
use std::time::Duration;

use crate::{Answer, PagesNow, Stats};
use serde_json::{Value, json};

use crate::cli::{Outcome, output};

/// A time that was measured.
pub enum Sample {
    /// From a request's submission to its first token.
    First(Duration),
    /// From one token of a request to the next.
    Between(Duration),
}

/// Everything measured.
pub struct Figures {
    requests: u64,
    concurrency: u64,
    first: Vec<f64>,
    between: Vec<f64>,
    prompt_tokens: usize,
    tokens: usize,
    images: usize,
    text_held: usize,
    media_held: usize,
    seconds: f64,
    before: Stats,
    after: Stats,
}

/// Shares of samples that the quoted times are not passed by.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.50), ("p95", 0.95), ("p99", 0.99)];

impl Figures {
    pub fn new(requests: u64, concurrency: u64) -> Figures {
        Figures {
            requests,
            concurrency,
            first: Vec::new(),
            between: Vec::new(),
            prompt_tokens: 0,
            tokens: 0,
            images: 0,
            text_held: 0,
            media_held: 0,
            seconds: 0.0,
            before: Stats::default(),
            after: Stats::default(),
        }
    }

    pub fn add(&mut self, sample: Sample) {
        match sample {
            Sample::First(time) => self.first.push(time.as_secs_f64()),
            Sample::Between(time) => self.between.push(time.as_secs_f64()),
        }
    }

    pub fn answered(&mut self, answer: &Answer) {
        self.prompt_tokens += answer.usage.prompt_tokens;
        self.tokens += answer.ids.len();
        self.images += answer.usage.images;
    }

    pub fn stepped(&mut self, stats: &Stats) {
        self.text_held = self.text_held.max(stats.text_pages.held);
        self.media_held = self.media_held.max(stats.media_pages.held);
    }

    /// All requests are answered.
    pub fn finish(&mut self, seconds: f64, before: &Stats, after: &Stats) {
        (self.seconds, self.before, self.after) = (seconds, *before, *after);
        self.first.sort_by(f64::total_cmp);
        self.between.sort_by(f64::total_cmp);
    }

    /// By how much a counter grew.
    fn grown(&self, counter: impl Fn(&Stats) -> u64) -> u64 {
        counter(&self.after) - counter(&self.before)
    }

    fn scheduler_microseconds(&self) -> f64 {
        1e6 * (self.after.schedule_seconds - self.before.schedule_seconds) / self.steps() as f64
    }

    fn steps(&self) -> u64 {
        self.grown(|stats| stats.steps).max(1)
    }

    /// Shares of prompt tokens and of images that were there already.
    fn cached(&self) -> [f64; 2] {
        let share = |part: u64, all: usize| part as f64 / all.max(1) as f64;
        [
            share(self.grown(|stats| stats.tokens_cached), self.prompt_tokens),
            share(self.grown(|stats| stats.images_cached), self.images),
        ]
    }

    pub fn json(&self) -> Value {
        let rate = |count: usize| count as f64 / self.seconds;
        let [tokens_cached, images_cached] = self.cached();
        let times = |samples: &[f64]| {
            let values = QUANTILES.iter().map(|(name, share)| ((*name).to_owned(), json!(quantile(samples, *share))));
            Value::Object(values.collect())
        };
        let pages = |pages: &PagesNow, most: usize| json!({"total": pages.total, "most_held": most, "held": pages.held, "kept": pages.cached});
        json!({
            "requests": self.requests,
            "concurrency": self.concurrency,
            "seconds": self.seconds,
            "requests_per_second": self.requests as f64 / self.seconds,
            "images_per_second": rate(self.images),
            "prompt_tokens_per_second": rate(self.prompt_tokens),
            "tokens_per_second": rate(self.tokens),
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "images": self.images,
            "images_encoded": self.grown(|stats| stats.images_encoded),
            "prompt_tokens_cached": tokens_cached,
            "images_cached": images_cached,
            "first_token_seconds": times(&self.first),
            "between_tokens_seconds": times(&self.between),
            "text_pages": pages(&self.after.text_pages, self.text_held),
            "media_pages": pages(&self.after.media_pages, self.media_held),
            "images_in_media_pages": {"held": self.after.images_held, "kept": self.after.images_kept},
            "preemptions": self.grown(|stats| stats.preemptions),
            "steps": self.steps(),
            "tokens_per_step": self.grown(|stats| stats.tokens_computed) as f64 / self.steps() as f64,
            "scheduler_microseconds_per_step": self.scheduler_microseconds(),
        })
    }

    pub fn print(&self) -> Outcome {
        let rate = |count: usize| count as f64 / self.seconds;
        let times = |samples: &[f64]| {
            let words = QUANTILES.map(|(name, share)| match quantile(samples, share) {
                Some(seconds) => format!("{name} {:.1} ms", 1e3 * seconds),
                None => format!("{name} -"),
            });
            words.join("  ")
        };
        let pages = |pages: &PagesNow, most: usize| {
            format!("{} held, {} at most, {} kept, of {}", pages.held, most, pages.cached, pages.total)
        };
        let [tokens_cached, images_cached] = self.cached();
        let encoded = self.grown(|stats| stats.images_encoded);
        let (steps, preemptions) = (self.steps(), self.grown(|stats| stats.preemptions));
        let tokens_a_step = self.grown(|stats| stats.tokens_computed) as f64 / steps as f64;
        let mut out = output()?;
        let mut line = |name: &str, text: String| writeln!(out, "{name:15} {text}");
        let requests = self.requests as f64 / self.seconds;
        let (count, seconds) = (self.requests, self.seconds);
        line("requests", format!("{requests:.2}/s; {count} in {seconds:.2} s, {} at a time", self.concurrency))?;
        let found = format!("{:.1} % found in pages", 100.0 * images_cached);
        line("images", format!("{:.1}/s; {encoded} of {} encoded, {found}", rate(self.images), self.images))?;
        let found = format!("{:.1} % found in pages", 100.0 * tokens_cached);
        line("prompt tokens", format!("{:.1}/s; {}, {found}", rate(self.prompt_tokens), self.prompt_tokens))?;
        line("tokens written", format!("{:.1}/s; {}", rate(self.tokens), self.tokens))?;
        line("first token", times(&self.first))?;
        line("between tokens", times(&self.between))?;
        line("text pages", pages(&self.after.text_pages, self.text_held))?;
        let images = format!("; {} images kept", self.after.images_kept);
        line("media pages", pages(&self.after.media_pages, self.media_held) + &images)?;
        let scheduler = self.scheduler_microseconds();
        line("steps", format!("{steps}, {tokens_a_step:.1} tokens each; the scheduler took {scheduler:.0} us each"))?;
        line("preemptions", preemptions.to_string())?;
        Ok(())
    }
}

/// The smallest sample that this share of all samples does not pass; they are sorted.
fn quantile(samples: &[f64], share: f64) -> Option<f64> {
    let rank = (share * samples.len() as f64).ceil() as usize;
    samples.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=200).map(f64::from).collect();
        let found = QUANTILES.map(|(_, share)| quantile(&samples, share));
        assert_eq!(found, [Some(100.0), Some(190.0), Some(198.0)]);
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}

//! Counts of requests, and `GET /metrics` as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::{Stats, Usage};

/// What was counted since the server began.
#[derive(Default)]
pub(super) struct Metrics {
    counts: Mutex<Counts>,
    cancelled: AtomicU64,
    /// Connections that are open.
    pub connections: AtomicUsize,
}

#[derive(Default)]
struct Counts {
    /// By route and status.
    requests: BTreeMap<(&'static str, u16), u64>,
    /// By reason.
    rejected: BTreeMap<&'static str, u64>,
    prompt_tokens: u64,
    cached_tokens: u64,
    generation_tokens: u64,
    images: u64,
    images_encoded: u64,
    first_token: Histogram,
    between_tokens: Histogram,
    queue: Histogram,
    /// By route.
    request: BTreeMap<&'static str, Histogram>,
}

/// Upper bounds of buckets, in seconds.
const BOUNDS: [f64; 16] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// How often seconds were in each bucket.
#[derive(Default)]
struct Histogram {
    /// One more than there are bounds: the last for what is above all.
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        self.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    /// `label` is empty or ends in a comma.
    fn write(&self, out: &mut String, name: &str, label: &str) {
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]).zip(self.counts) {
            below += count;
            let _ = writeln!(out, "{name}_bucket{{{label}le=\"{bound}\"}} {below}");
        }
        let labels = label.strip_suffix(',').map_or(String::new(), |label| format!("{{{label}}}"));
        let _ = writeln!(out, "{name}_sum{labels} {}\n{name}_count{labels} {below}", self.sum);
    }
}

/// The word for a refusal, of those that bound what comes in.
fn reason(code: &str) -> Option<&'static str> {
    Some(match code {
        "queue_full" => "queue_full",
        "bytes_full" => "bytes_full",
        "body_too_large" => "body_too_large",
        "body_timeout" => "timeout",
        "invalid_api_key" => "auth",
        "host_not_allowed" => "host",
        _ => return None,
    })
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is over.
    pub fn request(&self, route: &'static str, status: u16, code: Option<&str>, took: Duration) {
        let mut counts = self.counts();
        *counts.requests.entry((route, status)).or_default() += 1;
        if let Some(reason) = code.and_then(reason) {
            *counts.rejected.entry(reason).or_default() += 1;
        }
        counts.request.entry(route).or_default().add(took.as_secs_f64());
    }

    /// A client has gone, or an answer was late.
    pub fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// The first token of a request, so long after it came.
    pub fn first_token(&self, after: Duration) {
        self.counts().first_token.add(after.as_secs_f64());
    }

    /// A token more, so long after the one before.
    pub fn next_token(&self, after: Duration) {
        self.counts().between_tokens.add(after.as_secs_f64());
    }

    /// What an answer took.
    pub fn answered(&self, usage: &Usage, queue_seconds: f64) {
        let mut counts = self.counts();
        counts.prompt_tokens += usage.prompt_tokens as u64;
        counts.cached_tokens += usage.cached_tokens as u64;
        counts.generation_tokens += usage.completion_tokens as u64;
        counts.images += usage.images as u64;
        counts.images_encoded += usage.images_encoded as u64;
        counts.queue.add(queue_seconds);
    }

    /// All of it, in Prometheus' text format 0.0.4. `stats` are the engine's, if there is one.
    pub fn text(&self, stats: Option<&Stats>, body_bytes: u64, build: &[(&str, &str)]) -> String {
        let mut out = String::with_capacity(16 << 10);
        self.write_counts(&mut out);
        if let Some(stats) = stats {
            write_stats(&mut out, stats);
        }
        let connections = self.connections.load(Ordering::Relaxed);
        one(&mut out, "flamant_connections", "gauge", "Connections that are open.", connections as f64);
        let help = "Bytes of bodies that are read or waiting to be understood.";
        one(&mut out, "flamant_body_bytes_in_flight", "gauge", help, body_bytes as f64);
        head(&mut out, "flamant_build_info", "gauge", "What runs.");
        let labels: Vec<String> = build.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
        let _ = writeln!(out, "flamant_build_info{{{}}} 1", labels.join(","));
        out
    }

    fn write_counts(&self, out: &mut String) {
        let counts = self.counts();
        head(out, "flamant_requests_total", "counter", "Requests that are over, by route and status of the response.");
        for ((route, status), count) in &counts.requests {
            let _ = writeln!(out, "flamant_requests_total{{endpoint=\"{route}\",status=\"{status}\"}} {count}");
        }
        head(out, "flamant_requests_rejected_total", "counter", "Requests that were refused before they were read.");
        for reason in ["auth", "body_too_large", "bytes_full", "host", "queue_full", "timeout"] {
            let count = counts.rejected.get(reason).copied().unwrap_or_default();
            let _ = writeln!(out, "flamant_requests_rejected_total{{reason=\"{reason}\"}} {count}");
        }
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        let totals = [
            ("requests_cancelled", "Requests whose client has gone, or whose answer was late.", cancelled),
            ("prompt_tokens", "Tokens of prompts of answers.", counts.prompt_tokens),
            ("cached_tokens", "Those of them that were found in pages instead of computed.", counts.cached_tokens),
            ("generation_tokens", "Tokens written.", counts.generation_tokens),
            ("images", "Images of prompts of answers.", counts.images),
            ("images_encoded", "Those of them that had to be encoded.", counts.images_encoded),
        ];
        for (name, help, count) in totals {
            one(out, &format!("flamant_{name}_total"), "counter", help, count as f64);
        }
        let seconds = [
            ("time_to_first_token", "From a request's arrival to its first token.", &counts.first_token),
            ("inter_token", "Between two tokens of an answer.", &counts.between_tokens),
            ("queue", "Waiting to run, of each answer.", &counts.queue),
        ];
        for (name, help, histogram) in seconds {
            let name = format!("flamant_{name}_seconds");
            head(out, &name, "histogram", help);
            histogram.write(out, &name, "");
        }
        head(out, "flamant_request_seconds", "histogram", "From a request's arrival to the end of its response.");
        for (route, histogram) in &counts.request {
            histogram.write(out, "flamant_request_seconds", &format!("endpoint=\"{route}\","));
        }
    }
}

/// What the engine knows.
fn write_stats(out: &mut String, stats: &Stats) {
    let gauge = |out: &mut String, name: &str, help: &str, value: usize| one(out, name, "gauge", help, value as f64);
    gauge(out, "flamant_requests_running", "Requests that run in the engine.", stats.requests_running);
    gauge(out, "flamant_requests_waiting", "Requests that wait in the engine.", stats.requests_waiting);
    let help = "How often a request gave up its pages to an earlier one.";
    one(out, "flamant_preemptions_total", "counter", help, stats.preemptions as f64);
    one(out, "flamant_steps_total", "counter", "Steps that ran tokens.", stats.steps as f64);
    let pages = [
        ("flamant_text_pages", "Pages of 16 tokens.", &stats.text_pages),
        ("flamant_media_pages", "Pages of 64 rows of an image.", &stats.media_pages),
    ];
    for (name, help, pages) in pages {
        head(out, name, "gauge", help);
        for (state, count) in [("total", pages.total), ("held", pages.held), ("cached", pages.cached)] {
            let _ = writeln!(out, "{name}{{state=\"{state}\"}} {count}");
        }
    }
    let ratio = stats.text_pages.held as f64 / stats.text_pages.total.max(1) as f64;
    one(out, "flamant_kv_cache_usage_ratio", "gauge", "Text pages that requests hold, of all.", ratio);
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn one(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

/// A label's value as the format wants it.
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_in_the_bucket_that_they_are_within() {
        let mut histogram = Histogram::default();
        [0.0, 0.5, 0.75, 100.0, 101.0].into_iter().for_each(|seconds| histogram.add(seconds));
        let mut text = String::new();
        histogram.write(&mut text, "a", "endpoint=\"/\",");
        let line = |begin: &str| text.lines().find_map(|line| line.strip_prefix(begin)).unwrap().trim().to_owned();
        let counts =
            ["0.5", "1", "100", "+Inf"].map(|bound| line(&format!("a_bucket{{endpoint=\"/\",le=\"{bound}\"}}")));
        assert_eq!(counts, ["2", "3", "4", "5"]);
        assert_eq!([line("a_count{endpoint=\"/\"}"), line("a_sum{endpoint=\"/\"}")], ["5", "202.25"]);
    }

    #[test]
    fn labels_are_escaped() {
        let text = Metrics::default().text(None, 3, &[("model", "a\"b\\c\nd")]);
        assert!(text.ends_with("flamant_build_info{model=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
        assert!(text.contains("\nflamant_body_bytes_in_flight 3\n"), "{text}");
    }
}

//! An evaluation as one HTML page that needs nothing else: no network, no script.
//!
//! The page is also well-formed XML, so that a strict parser can check it. Everything that comes from data or models
//! (ids, answers, names of files) is text to it: what could be markup or control is escaped or replaced.

mod plot;
mod samples;
mod table;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use super::published::{Published, SHOTS, published};
use super::results::Results;
use crate::error::Result;
use crate::files;

/// Colours and shapes of curves, as many as `style.css` has.
const STYLES: usize = 8;

/// The page.
pub fn render(results: &Results) -> String {
    let published: Vec<&Published> = published(&results.benchmark).collect();
    let shots = shots(results, &published);
    let parts = [
        head(results),
        results.notes.iter().map(|note| format!("<p class=\"bad\">{}</p>\n", escape(note))).collect(),
        plot::figure(results, &published, &shots),
        table::section(results, &published, &shots),
        samples::section(results),
        missing(results),
        settings(results),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{title}</title><style>\n{style}</style></head>\n<body><main>\n{parts}</main></body></html>\n",
        title = escape(&results.title),
        style = include_str!("page/style.css"),
        parts = parts.concat(),
    )
}

/// All numbers of shots that something is known of, rising.
fn shots(results: &Results, published: &[&Published]) -> Vec<usize> {
    let own = results.series.iter().flat_map(|series| series.points.iter().map(|point| point.shots));
    let others = SHOTS.into_iter().filter(|&shots| published.iter().any(|row| row.at(shots).is_some()));
    own.chain(others).collect::<BTreeSet<usize>>().into_iter().collect()
}

/// Writes the page, or replaces it as a whole.
///
/// # Errors
/// Of the file system.
pub fn write(results: &Results, path: &Path) -> Result<()> {
    files::write(path, |file| file.write_all(render(results).as_bytes()))
}

/// The title and one sentence: what was measured of whom, on what, when.
fn head(results: &Results) -> String {
    let Results { model, metric, settings, .. } = results;
    let description =
        if model.description.is_empty() { String::new() } else { format!(" ({})", isolated(&model.description)) };
    let queries: usize = results.series.iter().flat_map(|series| &series.points).map(|point| point.examples).sum();
    let errors: usize = results.series.iter().flat_map(|series| &series.points).map(|point| point.errors).sum();
    let failed = match errors {
        0 => String::new(),
        _ => format!("<p class=\"bad\">{errors} of {queries} answers failed; they count as the worst answer.</p>\n"),
    };
    format!(
        "<header><h1>{title}</h1>\n<p class=\"lead\">The {metric} of <b>{model}</b>{description} on {benchmark} against the \
         number of examples shown, measured on <span class=\"date\">{date}</span> on {device}, seed {seed}.</p>\n{failed}</header>\n",
        title = isolated(&results.title),
        metric = isolated(&metric.name),
        model = isolated(&model.name),
        benchmark = isolated(&results.benchmark),
        date = isolated(&results.date),
        device = isolated(&results.device),
        seed = settings.seed,
    )
}

/// Images and videos that were not there, by name.
fn missing(results: &Results) -> String {
    let missing = &results.missing;
    if missing.count == 0 {
        return String::new();
    }
    let names: String = missing.names.iter().map(|name| format!("<li>{}</li>", isolated(name))).collect();
    let more = match missing.count.saturating_sub(missing.names.len()) {
        0 => String::new(),
        more => format!("<p>and {more} more.</p>"),
    };
    format!(
        "<section><h2>Missing</h2>\n<details><summary class=\"bad\">{} could not be found</summary>\n\
         <ul class=\"names\">{names}</ul>{more}</details></section>\n",
        counted(missing.count, "image or video", "images or videos"),
    )
}

/// All that decides the numbers.
fn settings(results: &Results) -> String {
    let settings = &results.settings;
    let beams = settings.beams.map_or("none: names are ranked".to_owned(), |beams| beams.to_string());
    let known = [
        ("examples asked", settings.queries.to_string()),
        ("chosen from", settings.support.to_string()),
        ("form of prompts", settings.template.clone()),
        ("beams", beams),
        ("seed", settings.seed.to_string()),
    ];
    let others = settings.others.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let rows: String = known
        .into_iter()
        .chain(others)
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", isolated(name), isolated(&value)))
        .collect();
    format!("<section><h2>Settings</h2>\n<dl>{rows}</dl></section>\n")
}

/// The classes that give a curve its colour.
fn style_of(series: usize) -> String {
    format!("s{}", series % STYLES)
}

/// A curve's marker around the origin, as the `d` of an SVG path. A colour that comes again has another one.
fn marker(series: usize) -> &'static str {
    const MARKERS: [&str; STYLES] = [
        "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
        "M-3.7 -3.7H3.7V3.7H-3.7Z",
        "M0 -4.9L4.6 3.5H-4.6Z",
        "M0 -5.3L4.5 0L0 5.3L-4.5 0Z",
        "M0 4.9L4.6 -3.5H-4.6Z",
        "M-2 -5H2V-2H5V2H2V5H-2V2H-5V-2H-2Z",
        "M-4.8 0L-2.4 -4.2H2.4L4.8 0L2.4 4.2H-2.4Z",
        "M-4.4 -2.6L-2.6 -4.4L0 -1.8L2.6 -4.4L4.4 -2.6L1.8 0L4.4 2.6L2.6 4.4L0 1.8L-2.6 4.4L-4.4 2.6L-1.8 0Z",
    ];
    MARKERS[(series + series / STYLES) % STYLES]
}

/// A curve's marker as a small image in a line of text.
fn key(series: usize) -> String {
    format!(
        "<svg class=\"key {}\" viewBox=\"-6 -6 12 12\" aria-hidden=\"true\"><path d=\"{}\"/></svg>",
        style_of(series),
        marker(series)
    )
}

/// A score with its unit.
fn with_unit(score: f64, unit: &str) -> String {
    if unit.is_empty() { format!("{score:.1}") } else { format!("{score:.1} {}", escape(unit)) }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Foreign text whose direction of writing ends where it ends.
fn isolated(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(text))
}

/// Text as it may stand between tags and in quoted attributes. Characters that no document may hold are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

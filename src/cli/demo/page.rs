//! The demo as one HTML page that needs nothing else.

use crate::demo::{Drawing, Sheet};
use crate::{Error, Flamingo};
use base64::Engine as _;

use super::{ALPHABETS, CONTROL_WAYS, Report, SHOT_WAYS, SHOTS, SHOWN, Shown, Tally, WAYS, figure, mean};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d1b1a; --paper: #fffdfb; --line: #d9d2cc; --accent: #e4576f; }
@media (prefers-color-scheme: dark) { :root { --ink: #f2eeea; --paper: #1a1817; --line: #45403c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 46rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.drawings { display: flex; flex-wrap: wrap; gap: .75rem; }
figure { margin: 0; text-align: center; } figcaption { font-family: ui-monospace, monospace; }
img { width: 6rem; height: 6rem; image-rendering: pixelated; border-radius: .4rem; display: block; }
.asked img { outline: 3px solid var(--accent); } .asked figcaption { color: var(--accent); font-weight: bold; }
code { overflow-wrap: anywhere; font-size: .8rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
td, th { padding: .2rem .5rem; border-bottom: 1px solid var(--line); text-align: right; font-weight: normal; }
td:first-child, th:first-child { text-align: left; } thead th, .mean td { font-weight: bold; }
.bar { display: grid; grid-template-columns: 3rem 4rem 1fr; align-items: center; font-variant-numeric: tabular-nums; }
.bar i { background: var(--accent); height: .9rem; border-radius: .2rem; display: block; min-width: 1px; }
";

/// The page.
pub fn render(shown: &Shown, flamingo: &Flamingo, report: &Report) -> Result<String, Error> {
    let episode = &shown.episode;
    let named = episode.support.iter().map(|(drawing, way)| drawn(episode.sheet, *drawing, &episode.names[*way], ""));
    let asked = drawn(episode.sheet, episode.query.0, "?", " class=asked");
    let drawings: String = named.chain([asked]).collect();
    let prompt = escape(&episode.prompt()?.render(flamingo.tokenizer())?.text);
    let verdict = if shown.answer == episode.answer() { "right" } else { "wrong" };
    let mut ranked: Vec<(&String, f64)> = episode.names.iter().zip(shown.odds.iter().copied()).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let bars: String = ranked
        .iter()
        .map(|(name, odds)| {
            let percent = 100.0 * odds;
            format!("<div class=bar><span>{name}</span><span>{percent:.1} %</span><i style='width:{percent:.1}%'></i></div>\n")
        })
        .collect();
    let tables = if report.prompts == 0 { String::new() } else { tables(report) };
    Ok(format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\n\
         <title>flamant demo</title><style>{STYLE}</style>\n\
         <h1>Names learned from one prompt</h1>\n\
         <p>{title}: symbols that the model never saw in training, with names made up for this prompt.</p>\n\
         <div class=drawings>\n{drawings}</div>\n\
         <p>It answers <b>{answer}</b> ({verdict}). The odds of each name:</p>\n{bars}\
         <p>The prompt as the model reads it: <code>{prompt}</code></p>\n{tables}</html>\n",
        title = escape(&episode.sheet.title),
        answer = escape(&shown.answer),
    ))
}

fn tables(report: &Report) -> String {
    let ways: Vec<String> = WAYS.iter().map(|ways| format!("{ways} ways")).collect();
    let mut rows: String =
        report.by_ways.iter().map(|(title, tallies)| row("", title, &tallies.map(Tally::percent))).collect();
    rows += &row(" class=mean", "mean of the five alphabets", &report.held_out());
    rows += &row("", "guessing a name in play", &WAYS.map(|ways| Some(100.0 / ways as f64)));
    let by_ways = table("alphabet", &ways, &rows);

    let spelt = report.spelt.each_ref().map(|all| mean(all));
    let ranked = report.ranked.each_ref().map(|all| mean(all));
    let rows = row("", "spelt rightly", &spelt) + &row("", "likeliest of the five names", &ranked);
    let by_shots = table("images shown", &SHOTS.map(|shots| shots.to_string()), &rows);

    let rows =
        row("", "images replaced by unrelated ones: falls to", &report.unrelated.each_ref().map(|all| mean(all)))
            + &row("", "two names swapped: the answer follows", &report.swapped.each_ref().map(|all| mean(all)));
    let controls = table("control", &CONTROL_WAYS.map(|ways| format!("{ways} ways")), &rows);

    let (prompts, many) = (report.prompts, report.prompts * ALPHABETS.len());
    format!(
        "<h2>Accuracy</h2>\n<p>All three letters right, per cent of {prompts} prompts a figure; {SHOWN} or more images \
         shown, each symbol at least once. The first five alphabets were kept out of training.</p>\n{by_ways}\
         <h2>Accuracy against images shown</h2>\n<p>{SHOT_WAYS} ways, per cent of {many} prompts over the five \
         alphabets.</p>\n{by_shots}<h2>Controls</h2>\n{controls}<p>Measured in {:.1} s.</p>\n",
        report.seconds
    )
}

fn table(corner: &str, heads: &[String], rows: &str) -> String {
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    format!("<div class=scroll><table><thead><tr><th>{corner}</th>{heads}</tr></thead>\n{rows}</table></div>\n")
}

fn row(attributes: &str, title: &str, figures: &[Option<f64>]) -> String {
    let figures: String = figures.iter().map(|percent| format!("<td>{}</td>", figure(*percent))).collect();
    format!("<tr{attributes}><td>{}</td>{figures}</tr>\n", escape(title))
}

fn drawn(sheet: &Sheet, drawing: Drawing, caption: &str, attributes: &str) -> String {
    let png = base64::engine::general_purpose::STANDARD.encode(png(sheet, drawing));
    format!(
        "<figure{attributes}><img alt='a drawn symbol' src='data:image/png;base64,{png}'><figcaption>{caption}</figcaption></figure>\n"
    )
}

/// A drawing as a PNG file.
fn png(sheet: &Sheet, drawing: Drawing) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, sheet.tile as u32, sheet.tile as u32);
    encoder.set_color(png::ColorType::Grayscale);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&sheet.levels(drawing)));
    written.expect("a small image is written to memory");
    bytes
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

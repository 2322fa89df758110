//! The demo on a terminal: drawings in Braille dots, bars of odds, tables.

use std::io::Write as _;

use crate::Flamingo;
use crate::demo::{Drawing, Sheet};

use super::super::output;
use super::{ALPHABETS, CONTROL_WAYS, Outcome, Report, SHOT_WAYS, SHOTS, SHOWN, Shown, Tally, WAYS, figure, mean};

/// Dots of a drawing, each way: 12 characters of 2 x 4 dots across, so that six drawings fit 80 columns.
const DOTS: usize = 24;
/// Drawings in one line.
const ACROSS: usize = 6;

pub fn show_episode(shown: &Shown, flamingo: &Flamingo) -> Outcome {
    let mut out = output()?;
    let episode = &shown.episode;
    writeln!(
        out,
        "{}: symbols that the model never saw in training, with names made up just now.\n",
        episode.sheet.title
    )?;
    let named = episode.support.iter().map(|(drawing, way)| (*drawing, episode.names[*way].as_str()));
    let all: Vec<(Drawing, &str)> = named.chain([(episode.query.0, "?")]).collect();
    for line in all.chunks(ACROSS) {
        let drawings: Vec<Vec<String>> = line.iter().map(|(drawing, _)| braille(episode.sheet, *drawing)).collect();
        for row in 0..DOTS / 4 {
            let cells: Vec<&str> = drawings.iter().map(|drawing| drawing[row].as_str()).collect();
            writeln!(out, " {}", cells.join(" "))?;
        }
        let names: Vec<String> = line.iter().map(|(_, name)| format!("{name:^12}")).collect();
        writeln!(out, " {}\n", names.join(" "))?;
    }
    writeln!(out, "The prompt, as the model reads it:\n  {}\n", episode.prompt()?.render(flamingo.tokenizer())?.text)?;
    let verdict = if shown.answer == episode.answer() { "right" } else { "wrong" };
    let ms = shown.seconds * 1e3;
    writeln!(out, "It answers: {} ({verdict}; {ms:.0} ms with opening the model)\n", shown.answer)?;
    let mut ranked: Vec<(&String, f64)> = episode.names.iter().zip(shown.odds.iter().copied()).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, odds) in ranked {
        writeln!(out, "  {name} {:5.1}% {}", 100.0 * odds, "█".repeat((40.0 * odds).round() as usize))?;
    }
    writeln!(out)?;
    Ok(())
}

pub fn show_report(report: &Report) -> Outcome {
    if report.prompts == 0 {
        return Ok(());
    }
    let mut out = output()?;
    let row = |title: &str, figures: &[Option<f64>]| {
        let figures: String = figures.iter().map(|percent| format!("{:>8}", figure(*percent))).collect();
        format!("{title:32}{figures}")
    };
    let heads = |numbers: &[usize]| numbers.iter().map(|number| format!("{number:8}")).collect::<String>();
    writeln!(out, "Names spelt rightly, per cent of {} prompts; {SHOWN} or more images shown.\n", report.prompts)?;
    writeln!(out, "{:32}{}", "ways", heads(&WAYS))?;
    for (title, tallies) in &report.by_ways {
        writeln!(out, "{}", row(title, &tallies.map(Tally::percent)))?;
    }
    writeln!(out, "{}", row("mean of the five alphabets", &report.held_out()))?;
    writeln!(out, "{}\n", row("guessing a name in play", &WAYS.map(|ways| Some(100.0 / ways as f64))))?;
    let prompts = report.prompts * ALPHABETS.len();
    writeln!(
        out,
        "Against the images shown, {SHOT_WAYS} ways, per cent of {prompts} prompts over the five alphabets.\n"
    )?;
    writeln!(out, "{:32}{}", "images shown", heads(&SHOTS))?;
    writeln!(out, "{}", row("spelt rightly", &report.spelt.each_ref().map(|all| mean(all))))?;
    writeln!(out, "{}\n", row("likeliest of the five", &report.ranked.each_ref().map(|all| mean(all))))?;
    writeln!(out, "Controls.\n\n{:32}{}", "ways", heads(&CONTROL_WAYS))?;
    writeln!(out, "{}", row("images unrelated: falls to", &report.unrelated.each_ref().map(|all| mean(all))))?;
    writeln!(out, "{}", row("names swapped: answer follows", &report.swapped.each_ref().map(|all| mean(all))))?;
    writeln!(out, "\nMeasured in {:.1} s.", report.seconds)?;
    Ok(())
}

/// A drawing in Braille: a dot where it is bright.
fn braille(sheet: &Sheet, drawing: Drawing) -> Vec<String> {
    let (levels, tile) = (sheet.levels(drawing), sheet.tile);
    // The brightest level that falls on a dot, so that thin strokes stay whole.
    let bright = |x: usize, y: usize| {
        let span = |at: usize| at * tile / DOTS..((at + 1) * tile).div_ceil(DOTS);
        span(y).any(|y| span(x).any(|x| levels[y * tile + x] > 110))
    };
    // Bit of the dot at (column, row) in a Braille character, as Unicode numbers them.
    const BITS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
    let character = |left: usize, top: usize| {
        let dots = (0..2).flat_map(|x| (0..4).map(move |y| (x, y)));
        let bits: u32 = dots.filter(|&(x, y)| bright(left + x, top + y)).map(|(x, y)| BITS[x][y]).sum();
        char::from_u32(0x2800 + bits).expect("a Braille character")
    };
    (0..DOTS).step_by(4).map(|top| (0..DOTS).step_by(2).map(|left| character(left, top)).collect()).collect()
}

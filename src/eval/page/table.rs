//! All scores as a table: one's own curves with intervals and failures, published ones below with their sources.

use super::super::published::Published;
use super::super::results::{Point, Results, Series};
use super::{counted, escape, isolated, key};

pub(super) fn section(results: &Results, published: &[&Published], shots: &[usize]) -> String {
    let heads: String = shots.iter().map(|shots| format!("<th scope=\"col\">{shots}</th>")).collect();
    let rows: String =
        results.series.iter().enumerate().map(|(number, series)| row(results, number, series, shots)).collect();
    let mut sources: Vec<&str> = Vec::new();
    let others: String = published.iter().map(|published| published_row(published, shots, &mut sources)).collect();
    let others = if others.is_empty() {
        others
    } else {
        let columns = shots.len() + 1;
        format!(
            "<tbody class=\"others\"><tr><th class=\"group\" colspan=\"{columns}\">Published</th></tr>\n{others}</tbody>\n"
        )
    };
    let notes: String = sources.iter().map(|source| format!("<li>{}</li>", escape(source))).collect();
    let notes = if notes.is_empty() { notes } else { format!("<ol class=\"notes\">{notes}</ol>\n") };
    let unit =
        if results.metric.unit.is_empty() { String::new() } else { format!(", {}", escape(&results.metric.unit)) };
    format!(
        "<section><h2>Scores</h2>\n<p class=\"note\">{}{unit}, by examples shown; {} a figure where nothing else is \
         said. In small print the 95 % interval.</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Scores\"><table>\n<thead><tr><th scope=\"col\">shots</th>{heads}</tr></thead>\n\
         <tbody>{rows}</tbody>\n{others}</table></div>\n{notes}</section>\n",
        isolated(&results.metric.name),
        counted(results.settings.queries, "example", "examples"),
    )
}

fn row(results: &Results, number: usize, series: &Series, shots: &[usize]) -> String {
    let cell = |&shots: &usize| match series.points.iter().find(|point| point.shots == shots) {
        Some(point) => cell(point, results.settings.queries),
        None => "<td></td>".to_owned(),
    };
    let cells: String = shots.iter().map(cell).collect();
    let chance = series.chance.map(|chance| format!("<small>chance {chance:.1}</small>")).unwrap_or_default();
    format!("<tr><th scope=\"row\">{}{}{chance}</th>{cells}</tr>\n", key(number), isolated(&series.label))
}

fn cell(point: &Point, usual: usize) -> String {
    let mut cell = format!("<td><b>{:.1}</b><small>{:.1}–{:.1}</small>", point.score, point.low, point.high);
    if point.examples != usual {
        cell += &format!("<small>of {}</small>", counted(point.examples, "example", "examples"));
    }
    if point.errors > 0 {
        cell += &format!("<small class=\"bad\">{} failed</small>", point.errors);
    }
    cell + "</td>"
}

/// A published row, whose source gets a number when it first comes.
fn published_row(row: &Published, shots: &[usize], sources: &mut Vec<&'static str>) -> String {
    let note = sources.iter().position(|source| *source == row.source).unwrap_or_else(|| {
        sources.push(row.source);
        sources.len() - 1
    });
    let score =
        |&shots: &usize| format!("<td>{}</td>", row.at(shots).map_or(String::new(), |score| format!("{score:.1}")));
    let cells: String = shots.iter().map(score).collect();
    format!(
        "<tr><th scope=\"row\">{}, {} <sup>{}</sup></th>{cells}</tr>\n",
        escape(row.model),
        escape(row.examples),
        note + 1
    )
}

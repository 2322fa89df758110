//! Scores against shots, drawn as SVG: one's own curves with whiskers of 95 %, published ones in grey beside them,
//! chance dashed. Shots stand in equal steps. It is drawn twice, for wide and for narrow pages, because text in a
//! drawing shrinks with it.

use super::super::published::{Published, SHOTS};
use super::super::results::{Results, Series};
use super::{escape, isolated, key, marker, style_of, with_unit};

/// Least distance between the lines of two labels.
const LABEL_STEP: f64 = 15.0;
/// Characters of a label beside a curve; the table has it whole.
const LABEL_MAX: usize = 26;

/// A drawing's measures, in pixels of its own.
struct Frame {
    class: &'static str,
    width: f64,
    height: f64,
    /// Room to the right of the axes. Curves are labelled there if it is wide enough.
    right: f64,
}

const WIDE: Frame = Frame { class: "wide", width: 760.0, height: 430.0, right: 195.0 };
const NARROW: Frame = Frame { class: "narrow", width: 360.0, height: 300.0, right: 12.0 };
const LEFT: f64 = 40.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;

/// Both drawings, with a key for the narrow one.
pub(super) fn figure(results: &Results, published: &[&Published], shots: &[usize]) -> String {
    if shots.is_empty() {
        return String::new();
    }
    let own: String = results
        .series
        .iter()
        .enumerate()
        .map(|(number, series)| format!("<li>{}{}</li>", key(number), isolated(&series.label)))
        .collect();
    let others = if published.is_empty() {
        ""
    } else {
        " Grey: published scores, dashed where examples were retrieved (RICES)."
    };
    let plot = Plot { results, published, scale: Scale::of(results, published), shots };
    format!(
        "<figure>\n{}{}<ul class=\"legend narrow\">{own}</ul>\n<figcaption>Whiskers: 95 % intervals over \
         examples.{others}</figcaption></figure>\n",
        plot.draw(&WIDE),
        plot.draw(&NARROW),
    )
}

/// Scores on the upright axis: its ends, and the step between two lines.
struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

impl Scale {
    fn of(results: &Results, published: &[&Published]) -> Self {
        let points = results.series.iter().flat_map(|series| &series.points);
        let own = points.flat_map(|point| [point.score, point.low, point.high]);
        let chance = results.series.iter().filter_map(|series| series.chance);
        let others = published.iter().flat_map(|row| row.scores).flatten();
        let (low, high) = own
            .chain(chance)
            .chain(others)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), score| (low.min(score), high.max(score)));
        let span = (high - low).max(1.0);
        // About six lines, a round number apart.
        let power = 10.0_f64.powf((span / 6.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * power).into_iter().find(|step| span / step <= 6.0);
        let step = step.unwrap_or(10.0 * power);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Scale { low, high: if high > low { high } else { low + step }, step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(|tick| self.low + tick as f64 * self.step)
    }
}

struct Plot<'a> {
    results: &'a Results,
    published: &'a [&'a Published],
    scale: Scale,
    shots: &'a [usize],
}

impl Plot<'_> {
    fn draw(&self, frame: &Frame) -> String {
        let name = format!("{} against shots; the table below has all numbers", self.results.metric.name);
        let parts = [self.axes(frame), self.chance(frame), self.others(frame), self.own(frame), self.labels(frame)];
        format!(
            "<svg class=\"plot {}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
            frame.class,
            frame.width,
            frame.height,
            escape(&name),
            parts.concat()
        )
    }

    fn x(&self, frame: &Frame, shots: usize) -> f64 {
        let column = self.shots.binary_search(&shots).expect("all shots have a column");
        let step = (frame.width - LEFT - frame.right) / self.shots.len() as f64;
        LEFT + (column as f64 + 0.5) * step
    }

    fn y(&self, frame: &Frame, score: f64) -> f64 {
        let share = (score - self.scale.low) / (self.scale.high - self.scale.low);
        frame.height - BOTTOM - share * (frame.height - BOTTOM - TOP)
    }

    fn axes(&self, frame: &Frame) -> String {
        let (end, floor) = (frame.width - frame.right, frame.height - BOTTOM);
        let mut axes = String::new();
        let decimals = usize::from(self.scale.step < 1.0);
        for tick in self.scale.ticks() {
            let y = self.y(frame, tick);
            axes += &format!(
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{end}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick:.decimals$}</text>\n",
                LEFT - 8.0,
                y + 4.5,
            );
        }
        for &shots in self.shots {
            let (x, y) = (self.x(frame, shots), floor + 19.0);
            axes += &format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{shots}</text>\n");
        }
        let metric = &self.results.metric;
        let unit = if metric.unit.is_empty() { String::new() } else { format!(", {}", metric.unit) };
        let middle = (LEFT + end) / 2.0;
        format!(
            "{axes}<text class=\"title\" x=\"4\" y=\"16\">{}{}</text>\
             <text class=\"title\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">examples shown (shots)</text>\n",
            escape(&metric.name),
            escape(&unit),
            frame.height - 6.0,
        )
    }

    /// A dashed line for each level that guessing reaches.
    fn chance(&self, frame: &Frame) -> String {
        let mut levels: Vec<f64> = self.results.series.iter().filter_map(|series| series.chance).collect();
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        let end = frame.width - frame.right;
        let line = |level: f64| {
            let (y, level) = (self.y(frame, level), with_unit(level, &self.results.metric.unit));
            format!(
                "<path class=\"chance\" d=\"M{LEFT} {y:.1}H{end}\"/><text class=\"small halo\" x=\"{end}\" \
                 y=\"{:.1}\" text-anchor=\"end\">chance {level}</text>\n",
                y - 4.0,
            )
        };
        levels.into_iter().map(line).collect()
    }

    fn others(&self, frame: &Frame) -> String {
        let curve = |row: &&Published| {
            let at = |shots: usize| {
                row.at(shots).map(|score| format!("{:.1} {:.1}", self.x(frame, shots), self.y(frame, score)))
            };
            let points: Vec<String> = SHOTS.into_iter().filter_map(at).collect();
            // A line to itself is a dot, as ends of lines are round.
            let (dot, again) =
                if let [only] = points.as_slice() { (" alone", format!("L{only}")) } else { ("", String::new()) };
            let dashed = if row.examples == "random" { "" } else { " retrieved" };
            format!(
                "<path class=\"published{dashed}{dot}\" d=\"M{}{again}\"><title>{}</title></path>\n",
                points.join("L"),
                escape(&format!("{}, {}", row.model, row.examples))
            )
        };
        self.published.iter().map(curve).collect()
    }

    fn own(&self, frame: &Frame) -> String {
        let count = self.results.series.len();
        let column = (frame.width - LEFT - frame.right) / self.shots.len() as f64;
        // Curves stand a little beside each other, so that whiskers do not hide one another.
        let apart = (column * 0.5 / count.max(1) as f64).min(7.0);
        let curve = |(number, series): (usize, &Series)| {
            let aside = (number as f64 - (count as f64 - 1.0) / 2.0) * apart;
            let (mut line, mut whiskers, mut markers) = (Vec::new(), String::new(), String::new());
            for point in &series.points {
                let (x, y) = (self.x(frame, point.shots) + aside, self.y(frame, point.score));
                let (low, high) = (self.y(frame, point.low), self.y(frame, point.high));
                line.push(format!("{x:.1} {y:.1}"));
                whiskers += &format!("M{x:.1} {low:.1}V{high:.1}");
                let says = format!(
                    "{}, {} shots: {:.1} ({:.1} to {:.1})",
                    series.label, point.shots, point.score, point.low, point.high
                );
                markers += &format!(
                    "<path class=\"marker\" transform=\"translate({x:.1} {y:.1})\" d=\"{}\"><title>{}</title></path>",
                    marker(number),
                    escape(&says)
                );
            }
            if line.is_empty() {
                return String::new();
            }
            let (style, line) = (style_of(number), line.join("L"));
            format!(
                "<g class=\"{style}\"><path class=\"whisker\" d=\"{whiskers}\"/><path class=\"curve\" d=\"M{line}\"/>\
                 {markers}</g>\n"
            )
        };
        self.results.series.iter().enumerate().map(curve).collect()
    }

    /// Names of curves at their ends, where there is room beside the axes: all of one's own, and those published ones
    /// that fit between them.
    fn labels(&self, frame: &Frame) -> String {
        if frame.right < 100.0 {
            return String::new();
        }
        let x = frame.width - frame.right + 10.0;
        let ends = self.results.series.iter().enumerate().filter_map(|(number, series)| {
            series.points.last().map(|point| (self.y(frame, point.score), number, series))
        });
        let mut own: Vec<(f64, usize, &Series)> = ends.collect();
        own.sort_by(|a, b| a.0.total_cmp(&b.0));
        let places = spread(own.iter().map(|(y, ..)| *y).collect(), frame.height - BOTTOM);
        let mut labels = String::new();
        for ((_, number, series), y) in own.iter().zip(&places) {
            labels += &format!(
                "<g class=\"{}\"><path class=\"marker\" transform=\"translate({:.1} {y:.1})\" d=\"{}\"/><text \
                 class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>\n",
                style_of(*number),
                x + 4.0,
                marker(*number),
                x + 14.0,
                y + 4.5,
                escape(&shortened(&series.label)),
            );
        }
        let mut taken = places;
        for row in self.published {
            let Some(y) = row.scores.iter().rev().flatten().next().map(|&score| self.y(frame, score)) else { continue };
            if taken.iter().all(|other| (other - y).abs() >= LABEL_STEP - 4.0) {
                taken.push(y);
                let label =
                    if row.examples == "random" { row.model.to_owned() } else { format!("{}, RICES", row.model) };
                labels += &format!(
                    "<text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n",
                    y + 4.0,
                    escape(&shortened(&label))
                );
            }
        }
        labels
    }
}

/// Moves rising places apart to the least distance, as little as it takes, and none below the floor.
fn spread(mut places: Vec<f64>, floor: f64) -> Vec<f64> {
    let mut least = f64::NEG_INFINITY;
    for place in &mut places {
        *place = place.max(least);
        least = *place + LABEL_STEP;
    }
    let mut most = floor;
    for place in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - LABEL_STEP;
    }
    places
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= LABEL_MAX {
        return label.to_owned();
    }
    label.chars().take(LABEL_MAX - 1).chain(['…']).collect()
}

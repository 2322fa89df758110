//! Prompts to look at: images with the text that follows each, the answer and what people said, grouped by curve and
//! shots. Groups open and close, and one kind of outcome can be shown alone, without a script.

use super::super::results::{Format, Metric, Outcome, Part, Results, Sample, Thumbnail};
use super::{counted, escape, isolated, key, with_unit};

/// Images with fewer pixels on a side are drawings of dots, which stay sharp when they are enlarged.
const DOTS_SIDE_MAX: u32 = 64;

/// What became of an answer: the class of its sample, and the word for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    Partly,
    Wrong,
    Scored,
    Failed,
}

impl Verdict {
    const ALL: [Verdict; 5] = [Verdict::Right, Verdict::Partly, Verdict::Wrong, Verdict::Scored, Verdict::Failed];

    fn of(outcome: &Outcome, metric: &Metric) -> Self {
        match (outcome, metric.best) {
            (Outcome::Error(_), _) => Verdict::Failed,
            (Outcome::Score(_), None) => Verdict::Scored,
            (Outcome::Score(score), Some(best)) if *score >= best => Verdict::Right,
            (Outcome::Score(score), Some(_)) if *score <= 0.0 => Verdict::Wrong,
            (Outcome::Score(_), Some(_)) => Verdict::Partly,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Right => "right",
            Verdict::Partly => "partly",
            Verdict::Wrong => "wrong",
            Verdict::Scored => "scored",
            Verdict::Failed => "failed",
        }
    }
}

pub(super) fn section(results: &Results) -> String {
    if results.samples.is_empty() {
        return String::new();
    }
    let mut groups = String::new();
    for (number, series) in results.series.iter().enumerate() {
        let of_series: Vec<&Sample> = results.samples.iter().filter(|sample| sample.series == series.label).collect();
        if of_series.is_empty() {
            continue;
        }
        groups += &format!("<h3>{}{}</h3>\n", key(number), isolated(&series.label));
        for point in &series.points {
            let samples: Vec<&Sample> =
                of_series.iter().copied().filter(|sample| sample.shots == point.shots).collect();
            if !samples.is_empty() {
                groups += &group(results, point.shots, &samples);
            }
        }
    }
    // The first one is open, so that one sees what there is.
    let groups = groups.replacen("<details>", "<details open=\"open\">", 1);
    format!("<section class=\"samples\"><h2>Samples</h2>\n{}{groups}</section>\n", choice(results))
}

/// One button for each kind of outcome that there is.
fn choice(results: &Results) -> String {
    let there = |verdict: &Verdict| {
        results.samples.iter().any(|sample| Verdict::of(&sample.outcome, &results.metric) == *verdict)
    };
    let kinds: Vec<&str> = Verdict::ALL.into_iter().filter(there).map(Verdict::word).collect();
    if kinds.len() < 2 {
        return String::new();
    }
    let button = |word: &str, checked: &str| {
        format!("<label><input type=\"radio\" name=\"show\" id=\"show-{word}\"{checked}/>{word}</label>\n")
    };
    let buttons: String = kinds.into_iter().map(|word| button(word, "")).collect();
    format!("<fieldset><legend>Show</legend>\n{}{buttons}</fieldset>\n", button("all", " checked=\"checked\""))
}

fn group(results: &Results, shots: usize, samples: &[&Sample]) -> String {
    let right = samples.iter().filter(|sample| Verdict::of(&sample.outcome, &results.metric) == Verdict::Right).count();
    let right = if results.metric.best.is_some() { format!(", {right} right") } else { String::new() };
    let summary =
        format!("{}: {}{right}", counted(shots, "shot", "shots"), counted(samples.len(), "sample", "samples"));
    let samples: String = samples.iter().map(|sample| one(sample, &results.metric)).collect();
    format!("<details><summary>{summary}</summary>\n{samples}</details>\n")
}

fn one(sample: &Sample, metric: &Metric) -> String {
    let verdict = Verdict::of(&sample.outcome, metric);
    let (said, answer) = match &sample.outcome {
        Outcome::Error(error) => (verdict.word().to_owned(), format!("<dt>Error</dt><dd>{}</dd>", isolated(error))),
        Outcome::Score(score) => {
            let score = with_unit(*score, &metric.unit);
            let said = match verdict {
                Verdict::Right | Verdict::Wrong => verdict.word().to_owned(),
                _ => format!("{} {score}", escape(&metric.name)),
            };
            (said, format!("<dt>Answer</dt><dd class=\"answer\">{}</dd>", isolated(&sample.answer)))
        }
    };
    let expected: Vec<String> = sample.expected.iter().map(|expected| isolated(expected)).collect();
    format!(
        "<article class=\"sample {word}\"><h4>{id} <span class=\"verdict\">{said}</span></h4>\n{prompt}<dl>{answer}\
         <dt>Expected</dt><dd>{expected}</dd></dl>\n{odds}</article>\n",
        word = verdict.word(),
        id = isolated(&sample.id),
        prompt = prompt(&sample.prompt),
        expected = expected.join(" · "),
        odds = odds(&sample.odds),
    )
}

/// Images with the text that follows each of them; the last one is the one asked about.
fn prompt(parts: &[Part]) -> String {
    let last = parts.iter().rposition(|part| !matches!(part, Part::Text(_)));
    let mut html = String::from("<div class=\"prompt\"><p>");
    for (at, part) in parts.iter().enumerate() {
        if !matches!(part, Part::Text(_)) {
            html += if Some(at) == last { "</p><p class=\"shot asked\">" } else { "</p><p class=\"shot\">" };
        }
        match part {
            // Lines break before a control token rather than within it.
            Part::Text(text) => html += &isolated(text).replace("&lt;", "<wbr/>&lt;"),
            Part::Image(thumbnail) => html += &image(thumbnail, "image"),
            Part::Video { first, frames } => {
                html += &image(first, "first frame of a video");
                html += &format!("<small>video, {}</small>", counted(*frames, "frame", "frames"));
            }
        }
    }
    html += "</p></div>\n";
    html.replacen("<p></p>", "", 1)
}

fn image(thumbnail: &Thumbnail, what: &str) -> String {
    let Thumbnail { width, height, base64, .. } = thumbnail;
    let format = match thumbnail.format {
        Format::Png => "png",
        Format::Jpeg => "jpeg",
    };
    let class = if *width.max(height) < DOTS_SIDE_MAX { " class=\"dots\"" } else { "" };
    format!(
        "<img{class} width=\"{width}\" height=\"{height}\" alt=\"{what}\" src=\"data:image/{format};base64,{}\"/>",
        escape(base64)
    )
}

fn odds(odds: &[(String, f64)]) -> String {
    if odds.is_empty() {
        return String::new();
    }
    let bar = |(name, odds): &(String, f64)| {
        let percent = 100.0 * odds.clamp(0.0, 1.0);
        format!(
            "<li><span>{}</span><span>{percent:.1} %</span><i style=\"width:{percent:.1}%\"></i></li>\n",
            isolated(name)
        )
    };
    let bars: String = odds.iter().map(bar).collect();
    format!("<ol class=\"odds\" aria-label=\"odds of names\">{bars}</ol>\n")
}

//! What an evaluation found, as a file and as a page: `results.json` gives back what was written, and the page is read
//! by a strict parser: whole, with every number, with nothing foreign taken for markup, and with nothing to fetch.

use flamant::eval::page::render;
use flamant::eval::published::published;
use flamant::eval::results::{MISSING_NAMES_MAX, Missing, Point, Results, Thumbnail};
use flamant::image::{Image, Limits, decode};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value, json};

/// What a data set, a model or a file's name may try.
const HOSTILE: &str = "</title></style><script>alert(1)</script><img src=x onerror='alert(\"2\")'>&lt;&#0;]]>--><!--";

fn image(width: u32, height: u32) -> Thumbnail {
    let pixels = (0..width * height).flat_map(|at| [at as u8, (at / width) as u8, 90]).collect();
    Thumbnail::of(&Image::from_rgb(width, height, pixels).unwrap())
}

fn sample(series: &str, shots: usize, id: &str, outcome: Value) -> Value {
    let mut prompt = vec![json!({"text": "Instruction: name it."})];
    for _ in 0..shots {
        prompt.extend([json!({"image": image(24, 24)}), json!({"text": "Output:blick<|endofchunk|>"})]);
    }
    prompt.extend([json!({"video": {"first": image(320, 200), "frames": 8}}), json!({"text": "Output:"})]);
    json!({
        "series": series, "shots": shots, "id": id, "prompt": prompt, "answer": format!("answer of {id}"),
        "expected": [format!("expected of {id}"), "another"], "outcome": outcome,
        "odds": [["blick", 0.8125], ["dax", 0.125]],
    })
}

/// Curves on a benchmark with published numbers, each of its own height.
fn results(text: &str) -> Results {
    let point = |number: usize, (at, shots): (usize, usize)| {
        let score = 20.0 + 7.3 * number as f64 + 11.1 * at as f64;
        let (low, high) = (score - 1.2, score + 1.7);
        json!({"shots": shots, "score": score, "low": low, "high": high, "examples": 500 + at, "errors": 3 * at})
    };
    let curve = |number: usize| {
        let points = [0, 2, 4, 32].into_iter().enumerate().map(|at| point(number, at));
        let chance = (number == 1).then_some(12.5);
        json!({"label": format!("curve {number} {text}"), "points": points.collect::<Vec<_>>(), "chance": chance})
    };
    let mut missing = Missing::default();
    (0..MISSING_NAMES_MAX + 17).for_each(|number| missing.add(format!("image {number} {text}")));
    let metric = json!({"name": format!("VQA accuracy {text}"), "unit": format!("% {text}"), "best": 100.0});
    let settings = json!({
        "seed": 4242, "queries": 500, "support": 2048, "beams": 3, "template": format!("a form {text}"),
        "others": {format!("a setting {text}"): format!("its value {text}")},
    });
    let samples = [
        sample(&format!("curve 0 {text}"), 4, &format!("right {text}"), json!({"score": 100.0})),
        sample(&format!("curve 0 {text}"), 4, &format!("partly {text}"), json!({"score": 33.3})),
        sample(&format!("curve 1 {text}"), 0, &format!("wrong {text}"), json!({"score": 0.0})),
        sample(&format!("curve 1 {text}"), 2, &format!("failed {text}"), json!({"error": format!("why {text}")})),
    ];
    let results = json!({
        "title": format!("A title {text}"), "benchmark": "vqav2",
        "model": {"name": format!("a model {text}"), "description": format!("described {text}")},
        "device": format!("a device {text}"), "date": format!("2026-11-28 {text}"),
        "metric": metric, "settings": settings, "series": (0..8).map(curve).collect::<Vec<_>>(),
        "notes": [format!("a note {text}")], "missing": missing, "samples": samples,
    });
    serde_json::from_value(results).unwrap()
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}"))
}

/// All text below a node, one piece after the other.
fn text(node: Node) -> String {
    node.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect()
}

fn of_class<'a>(document: &'a Document, class: &str) -> Vec<Node<'a, 'a>> {
    let has = |node: &Node| node.attribute("class").is_some_and(|found| found.split(' ').any(|word| word == class));
    document.descendants().filter(has).collect()
}

#[test]
fn results_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    std::fs::write(&path, "what was there before").unwrap();
    let results = results(HOSTILE);
    results.write(&path).unwrap();
    let read: Results = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(read == results);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(results.write(&folder.path().join("none/results.json")).is_err());
}

#[test]
fn the_page_has_every_number() {
    let page = render(&results(""));
    let document = parse(&page);
    let rows: Vec<String> = document.descendants().filter(|node| node.has_tag_name("tr")).map(text).collect();
    let results = results("");
    for (series, row) in results.series.iter().zip(&rows[1..]) {
        assert!(row.starts_with(&series.label), "{row}");
        for point in &series.points {
            let Point { score, low, high, examples, errors, .. } = point;
            assert!(row.contains(&format!("{score:.1}{low:.1}–{high:.1}")), "{row}");
            assert!(*examples == 500 || row.contains(&format!("of {examples} examples")), "{row}");
            assert!(*errors == 0 || row.contains(&format!("{errors} failed")), "{row}");
        }
    }
    assert!(rows[2].contains("chance 12.5"));
    for published in published("vqav2") {
        let expected = format!("{}, {}", published.model, published.examples);
        let row = rows.iter().find(|row| row.starts_with(&expected)).unwrap();
        assert!(published.scores.into_iter().flatten().all(|score| row.contains(&format!("{score:.1}"))), "{row}");
    }
    let whole = text(document.root_element());
    let errors: usize = results.series.iter().flat_map(|series| &series.points).map(|point| point.errors).sum();
    for expected in [
        &format!("{errors} of 16048 answers failed"),
        "117 images or videos could not be found",
        "and 17 more",
        "seed 4242",
        "chosen from2048",
        "beams3",
        "VQA accuracy  33.3 %",
        "blick81.2 %",
        "video, 8 frames",
    ] {
        assert!(whole.contains(expected), "{expected}");
    }
    // Two drawings, each with 8 curves of 4 points and the published ones.
    let drawings = of_class(&document, "plot");
    assert_eq!(drawings.len(), 2);
    for drawing in drawings {
        let count = |class: &str| {
            drawing.descendants().filter(|node| node.attribute("class").is_some_and(|found| found == class)).count()
        };
        assert_eq!(count("curve"), 8);
        assert!(count("marker") >= 32);
        assert_eq!(count("published") + count("published retrieved"), published("vqav2").count());
        let numbers = drawing.descendants().filter_map(|node| node.attribute("d"));
        assert!(numbers.flat_map(|path| path.chars()).all(|letter| "MLHVZa0123456789.- ".contains(letter)));
    }
    let shapes: std::collections::BTreeSet<&str> =
        of_class(&document, "key").iter().filter_map(|key| key.first_element_child()?.attribute("d")).collect();
    assert_eq!(shapes.len(), 8);
}

#[test]
fn samples_are_whole_and_grouped() {
    let page = render(&results(""));
    let document = parse(&page);
    let samples = of_class(&document, "sample");
    let verdicts: Vec<&str> = samples.iter().map(|sample| sample.attribute("class").unwrap()).collect();
    assert_eq!(verdicts, ["sample right", "sample partly", "sample wrong", "sample failed"]);
    for sample in &samples {
        assert!(text(*sample).contains("expected of") && text(*sample).contains("another"));
        let said = if sample.attribute("class") == Some("sample failed") { "why" } else { "answer of" };
        assert!(text(*sample).contains(said));
    }
    let prompt = samples[0].descendants().find(|node| node.attribute("class") == Some("prompt")).unwrap();
    let parts: Vec<String> = prompt.children().filter(|node| node.is_element()).map(text).collect();
    assert_eq!(parts[0], "Instruction: name it.");
    assert_eq!(parts[1..5], ["Output:blick<|endofchunk|>"; 4]);
    assert_eq!(parts[5], "video, 8 framesOutput:");
    let groups: Vec<String> = document.descendants().filter(|node| node.has_tag_name("summary")).map(text).collect();
    assert_eq!(
        groups[..3],
        ["4 shots: 2 samples, 1 right", "0 shots: 1 sample, 0 right", "2 shots: 1 sample, 0 right"]
    );
}

#[test]
fn hostile_text_stays_text_and_nothing_is_fetched() {
    let hostile = format!("{HOSTILE}\u{0}\u{1b}[31m\u{202e}\u{fffe}\r\nhttp://example.com/x.png");
    let page = render(&results(&hostile));
    let document = parse(&page);
    let mut tags: Vec<&str> =
        document.descendants().filter(|node| node.is_element()).map(|node| node.tag_name().name()).collect();
    let attributes: std::collections::BTreeSet<&str> =
        document.descendants().flat_map(|node| node.attributes()).map(|attribute| attribute.name()).collect();
    let clean_page = render(&results(""));
    let clean = parse(&clean_page);
    let mut expected: Vec<&str> =
        clean.descendants().filter(|node| node.is_element()).map(|node| node.tag_name().name()).collect();
    // Lines may break before each "<" of a prompt; prompts are the same in both.
    tags.sort_unstable();
    expected.sort_unstable();
    assert_eq!(tags, expected, "no element comes from data");
    assert!(attributes.iter().all(|name| !name.starts_with("on") && !["href", "action", "srcset"].contains(name)));
    for node in document.descendants() {
        assert!(node.attribute("src").is_none_or(|source| source.starts_with("data:image/")));
        assert!(!node.has_tag_name("script") && !node.has_tag_name("link") && !node.has_tag_name("iframe"));
    }
    let style = text(document.descendants().find(|node| node.has_tag_name("style")).unwrap());
    assert!(!style.contains("url(") && !style.contains("@import"));
    // What was there is still there to be read, but for characters that no page may hold.
    let safe = hostile.replace(['\u{0}', '\u{1b}', '\u{fffe}', '\r'], "\u{fffd}");
    let whole = text(document.root_element());
    for beginning in ["A title", "a model", "described", "a device", "a form", "its value", "right", "why", "image 7"] {
        assert!(whole.contains(&format!("{beginning} {safe}")), "{beginning}");
    }
}

#[test]
fn a_page_of_little_is_a_page() {
    let mut little = results("");
    little.benchmark = "a set of one's own".into();
    little.samples.clear();
    little.missing = Missing::default();
    little.metric.best = None;
    for series in [json!([]), json!([{"label": "empty", "points": [], "chance": null}])] {
        little.series = serde_json::from_value(series).unwrap();
        assert!(of_class(&parse(&render(&little)), "plot").is_empty());
    }
    // All of one height, and far beyond what a plot was made for.
    for score in [0.0, -3e-9, 1e12] {
        let point = json!({"shots": 7, "score": score, "low": score, "high": score, "examples": 1, "errors": 0});
        let series = json!([{"label": "alone", "points": [point], "chance": null}]);
        little.series = serde_json::from_value(series).unwrap();
        let page = render(&little);
        assert_eq!(of_class(&parse(&page), "plot").len(), 2);
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}

#[test]
fn thumbnails_are_small_images_that_can_be_read() {
    use base64::Engine as _;
    for (width, height, expected) in
        [(24, 24, (24, 24)), (160, 3, (160, 3)), (640, 427, (160, 106)), (4000, 1, (160, 1)), (161, 322, (80, 160))]
    {
        let thumbnail = image(width, height);
        let bytes = base64::engine::general_purpose::STANDARD.decode(&thumbnail.base64).unwrap();
        let read = decode(&bytes, "a thumbnail", &Limits::default()).unwrap();
        assert_eq!((thumbnail.width, thumbnail.height), expected);
        assert_eq!((read.width(), read.height()), expected);
    }
}

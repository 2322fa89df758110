//! `flamant eval`: its answers are those of single prompts, its scores those of its answers; it goes on where it was
//! stopped, and tells what is missing.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/reference.rs"]
mod reference;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use flamant::eval::metrics::{answers, cider, ptb, vqa};
use flamant::eval::shots::shuffled;
use flamant::{Flamingo, Generation, Options, Prompt};
use reference::Case;
use serde_json::{Value, json};

/// A folder with pictures, data and an output.
struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    /// With so many pictures, no two of which are alike.
    fn new(pictures: usize) -> Folder {
        let folder = Folder { root: tempfile::tempdir().unwrap() };
        (0..pictures).for_each(|number| draw(&folder.path(&format!("{number}.png")), number));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, lines: &[Value]) -> PathBuf {
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        fs::write(self.path(name), lines.join("\n")).unwrap();
        self.path(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command
            .arg("eval")
            .args(arguments)
            .args(["--threads", "1", "--samples", "1", "--output"])
            .arg(self.path("out"));
        command.current_dir(self.root.path()).stdin(Stdio::null());
        command.env_remove("FLAMANT_THREADS").env_remove("FLAMANT_DEVICE");
        command
    }

    /// Runs to the end; what it says on standard error.
    fn run(&self, arguments: &[&str]) -> String {
        let Output { status, stderr, .. } = self.command(arguments).output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{told}");
        told
    }

    /// Must be refused in a line, which is returned.
    fn refused(&self, arguments: &[&str]) -> String {
        let before = self.output("answers.jsonl");
        let Output { status, stderr, .. } = self.command(arguments).output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), told.lines().count()), (Some(1), 1), "{told}");
        assert_eq!(before, self.output("answers.jsonl"), "the answers were changed");
        told
    }

    fn output(&self, name: &str) -> Vec<u8> {
        fs::read(self.path("out").join(name)).unwrap_or_default()
    }

    fn results(&self) -> Value {
        serde_json::from_slice(&self.output("results.json")).unwrap()
    }

    /// All records.
    fn records(&self) -> Vec<Value> {
        let text = String::from_utf8(self.output("answers.jsonl")).unwrap();
        text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The examples shown by a record's series, shots and example.
    fn shown(&self, series: &str, shots: u64) -> HashMap<String, Vec<String>> {
        let records = self.records();
        let of = records.iter().filter(|record| record["series"] == series && record["shots"] == shots);
        of.map(|record| (text(&record["id"]), texts(&record["shown"]))).collect()
    }
}

fn draw(path: &Path, number: usize) {
    const SIDE: usize = 24;
    let level = |x: usize, y: usize, channel: usize| {
        let wave = (x * (number % 5 + 1) + y * (number / 5 + 2) + channel * 40 * (number % 3)) as f64;
        (127.0 + 120.0 * (wave / 7.0).sin()) as u8
    };
    let pixels: Vec<u8> = (0..SIDE * SIDE * 3).map(|at| level(at / 3 % SIDE, at / 3 / SIDE, at % 3)).collect();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), SIDE as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(text).collect()
}

/// A point of a series.
fn point(results: &Value, series: &str, shots: u64) -> Value {
    let all = results["series"].as_array().unwrap();
    let of = all.iter().find(|one| one["label"] == series).unwrap();
    of["points"].as_array().unwrap().iter().find(|point| point["shots"] == shots).unwrap().clone()
}

fn near(found: &Value, want: f64) {
    assert!((found.as_f64().unwrap() - want).abs() < 1e-9, "{found} is not {want}");
}

/// Ten people's answers of each of eight pictures.
fn questions() -> Vec<Value> {
    let example = |number: usize| {
        let people: Vec<&str> = (0..10).map(|person| ["a fox", "two", "red"][(number + person / 4) % 3]).collect();
        json!({
            "id": format!("q{number}"), "image": format!("{number}.png"), "answers": people,
            "question": (["what is it", "how many", "which colour"][number % 3]),
        })
    };
    (0..8).map(example).collect()
}

/// The prompt of an example as OpenFlamingo writes it.
fn asked(folder: &Folder, examples: &[Value], shown: &[String], id: &str, pictures: bool) -> Prompt {
    let find = |id: &str| examples.iter().find(|example| example["id"] == id).unwrap();
    let mut prompt = Prompt::new();
    let mut part = |example: &Value, picture: bool, answer: &str| {
        if picture {
            prompt.image_file(folder.path(&text(&example["image"]))).unwrap();
        }
        prompt.text(format!("Question:{} Short answer:{answer}", text(&example["question"]))).unwrap();
    };
    for id in shown {
        let example = find(id);
        part(example, pictures, &format!("{}<|endofchunk|>\n", text(&example["answers"][0])));
    }
    part(find(id), true, "");
    prompt
}

fn open(model: &Path) -> Flamingo {
    Flamingo::open(model, &Options { threads: 1, ..Options::default() }).unwrap()
}

#[test]
fn answers_are_those_of_single_prompts_and_scores_those_of_answers() {
    let (case, folder, examples) = (Case::open("open_flamingo-mpt"), Folder::new(8), questions());
    let data = folder.write("data.jsonl", &examples);
    let model = case.model.to_str().unwrap();
    folder.run(&[model, "--benchmark", "jsonl", "--data", data.to_str().unwrap(), "--shots", "2,0"]);
    let mut flamingo = open(&case.model);
    let mut worth: HashMap<u64, Vec<f64>> = HashMap::new();
    for record in folder.records() {
        let (id, shown, shots) = (text(&record["id"]), texts(&record["shown"]), record["shots"].as_u64().unwrap());
        assert!(shown.len() == 2 && !shown.contains(&id));
        let prompt = asked(&folder, &examples, &shown, &id, shots > 0);
        let generation = Generation { tokens_max: 5, beams: 3, length_penalty: 0.0, ..Generation::default() };
        let answer = flamingo.generate(&prompt, &generation, &mut |_| {}).unwrap().text;
        assert_eq!(record["text"], answer, "{record}");
        let example = examples.iter().find(|example| example["id"] == id).unwrap();
        let people = texts(&example["answers"]);
        let people = people.iter().map(String::as_str);
        worth.entry(shots).or_default().push(vqa::accuracy(answers::short_answer(&answer), people));
    }
    let results = folder.results();
    for (shots, worth) in worth {
        let point = point(&results, "random", shots);
        assert_eq!((&point["examples"], &point["errors"]), (&json!(8), &json!(0)));
        near(&point["score"], 100.0 * worth.iter().sum::<f64>() / 8.0);
    }
    let page = String::from_utf8(folder.output("index.html")).unwrap();
    assert!(page.contains("VQA accuracy") && page.contains("data:image/png"));
}

/// The model in the box, with a form as its own, as a model folder.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");

/// Names to choose from, in the demo's own form.
fn names(folder: &Folder, count: usize) -> Vec<Value> {
    let form = json!({"shown": "{image}{answer}.", "asked": "{image}", "choice": "{answer}."});
    fs::write(folder.path("form.json"), form.to_string()).unwrap();
    let example = |number: usize| {
        json!({
            "id": format!("n{number}"), "image": format!("{number}.png"),
            "answer": (["dax", "wug", "blik"][number % 3]), "choices": ["dax", "wug", "blik"],
        })
    };
    (0..count).map(example).collect()
}

#[test]
fn orders_are_averaged() {
    let folder = Folder::new(6);
    let examples = names(&folder, 6);
    folder.write("data.jsonl", &examples);
    let arguments = [DEMO, "--benchmark", "jsonl", "--data", "data.jsonl", "--form", "form.json"];
    folder.run(&[&arguments[..], &["--shots", "3", "--permutations", "4", "--selection", "fixed"]].concat());
    let mut flamingo = open(Path::new(DEMO));
    let find = |id: &str| examples.iter().find(|example| example["id"] == id).unwrap();
    let choices = ["dax.", "wug.", "blik."].map(str::to_owned);
    let mut right = 0.0;
    for record in folder.records() {
        let (id, shown) = (text(&record["id"]), texts(&record["shown"]));
        let query = id[1..].parse::<u64>().unwrap();
        let mut sums = [0.0; 3];
        let mut orders: Vec<Vec<usize>> = vec![(0..3).collect()];
        let mut stream = query << 16;
        while orders.len() < 4 {
            let next: Vec<usize> = shuffled(3, 42 ^ 1, stream).collect();
            if !orders.contains(&next) {
                orders.push(next);
            }
            stream += 1;
        }
        for places in orders {
            let mut prompt = Prompt::new();
            for example in places.into_iter().map(|place| find(&shown[place])) {
                prompt.image_file(folder.path(&text(&example["image"]))).unwrap();
                prompt.text(format!("{}.", text(&example["answer"]))).unwrap();
            }
            prompt.image_file(folder.path(&text(&find(&id)["image"]))).unwrap();
            let found = flamingo.classify(&prompt, &choices).unwrap().choices;
            sums.iter_mut().zip(&found).for_each(|(sum, choice)| *sum += choice.mean / 4.0);
        }
        let best = (0..3).max_by(|&a, &b| sums[a].total_cmp(&sums[b])).unwrap();
        assert_eq!(record["choice"]["name"], ["dax", "wug", "blik"][best], "{record}");
        let total: f64 = sums.iter().map(|sum| sum.exp()).sum();
        let share = record["choice"]["odds"][0][1].as_f64().unwrap();
        assert!((share - sums[best].exp() / total).abs() < 1e-5, "{record}");
        right += f64::from(record["choice"]["name"] == find(&id)["answer"]);
    }
    near(&point(&folder.results(), "fixed", 3)["score"], 100.0 * right / 6.0);
    // One order for all, without the asked one.
    for (id, shown) in folder.shown("fixed", 3) {
        let order = shuffled(6, 42, 1).map(|place| format!("n{place}"));
        assert_eq!(shown, order.filter(|other| *other != id).take(3).collect::<Vec<_>>());
    }
}

/// How many answers there are, none of them twice.
fn keys(folder: &Folder) -> usize {
    let key = |record: &Value| format!("{} {} {}", record["series"], record["shots"], record["id"]);
    let mut keys: Vec<String> = folder.records().iter().map(key).collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count);
    count
}

#[test]
fn what_is_stopped_goes_on_to_the_same_results() {
    let arguments = ["--demo", "--queries", "16", "--shots", "1,4", "--seed", "5"];
    let whole = Folder::new(0);
    whole.run(&arguments);
    let count = whole.records().len();
    assert_eq!(count, 16 * 2 * 2 * 3);
    let answers = String::from_utf8(whole.output("answers.jsonl")).unwrap();
    let lines: Vec<&str> = answers.lines().collect();
    for kept in [0, 1, 2, 77, count] {
        let folder = Folder::new(0);
        fs::create_dir(folder.path("out")).unwrap();
        // And half of a line that was being written.
        let text = format!("{}\n{}", lines[..kept].join("\n"), &lines[kept][..lines[kept].len() / 2]);
        fs::write(folder.path("out/answers.jsonl"), text.trim_start()).unwrap();
        folder.run(&arguments);
        if kept > 0 {
            assert!(folder.output("results.json") == whole.output("results.json"), "{kept} lines");
            assert!(folder.output("index.html") == whole.output("index.html"), "{kept} lines");
        }
        assert_eq!(keys(&folder), count, "no answer is lost or there twice");
    }
    // Killed as soon as there are some answers.
    let folder = Folder::new(0);
    let mut child = folder.command(&arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    while folder.output("answers.jsonl").len() < 10_000 && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
    folder.run(&arguments);
    assert_eq!(keys(&folder), count);
    let scores = |folder: &Folder| folder.results()["series"].clone();
    assert_eq!(scores(&folder), scores(&whole));
    // With nothing left to ask, nothing is asked.
    let before = whole.output("answers.jsonl");
    assert!(!whole.run(&arguments).contains("answers in"));
    assert_eq!(before, whole.output("answers.jsonl"));
    let other = whole.refused(&["--demo", "--queries", "16", "--shots", "1,4", "--seed", "6"]);
    assert!(other.contains("answers.jsonl") && other.contains("of its evaluation"), "{other}");
    let other = whole.refused(&["--demo", "--queries", "16", "--shots", "1", "--seed", "5"]);
    assert!(other.contains("shots of its evaluation: expected 1, found 1,4"), "{other}");
}

#[test]
fn what_is_missing_is_named_and_counts() {
    let folder = Folder::new(6);
    folder.write("data.jsonl", &names(&folder, 6));
    fs::remove_file(folder.path("2.png")).unwrap();
    fs::write(folder.path("4.png"), "no picture").unwrap();
    let arguments = [DEMO, "--benchmark", "jsonl", "--data", "data.jsonl", "--form", "form.json", "--shots", "2"];
    let told = folder.run(&[&arguments[..], &["--selection", "random,rices"]].concat());
    assert!(told.contains("1 pictures or videos are missing") && told.contains("2.png"), "{told}");
    let results = folder.results();
    assert_eq!(results["missing"]["count"], 1);
    assert!(text(&results["missing"]["names"][0]).ends_with("2.png"));
    for series in ["random", "RICES"] {
        let records = folder.records();
        let of: Vec<&Value> = records.iter().filter(|record| record["series"] == series).collect();
        assert_eq!(of.len(), 6);
        let failed: Vec<&&Value> = of.iter().filter(|record| record.get("error").is_some()).collect();
        let right = of.iter().filter(|record| {
            let number: usize = text(&record["id"])[1..].parse().unwrap();
            record["choice"]["name"] == ["dax", "wug", "blik"][number % 3]
        });
        let point = point(&results, series, 2);
        assert_eq!((&point["examples"], &point["errors"]), (&json!(6), &json!(failed.len())));
        near(&point["score"], 100.0 * right.count() as f64 / 6.0);
        for id in ["n2", "n4"] {
            let record = of.iter().find(|record| record["id"] == id).unwrap();
            assert!(text(&record["error"]).contains(&format!("{}.png", &id[1..])), "{record}");
        }
        assert!(of.iter().all(|record| !texts(&record["shown"]).contains(&"n2".to_owned())), "{series}");
    }
    assert!(folder.shown("RICES", 2).values().all(|shown| !shown.contains(&"n4".to_owned())));
    // What failed is asked again.
    draw(&folder.path("4.png"), 4);
    folder.run(&[&arguments[..], &["--selection", "random,rices"]].concat());
    for series in ["random", "RICES"] {
        assert_eq!(point(&folder.results(), series, 2)["errors"], 1);
    }
}

#[test]
fn the_most_similar_stands_last_and_features_are_kept() {
    let folder = Folder::new(7);
    // A copy of a picture that is asked, under another name.
    fs::copy(folder.path("3.png"), folder.path("6.png")).unwrap();
    let examples = names(&folder, 7);
    folder.write("support.jsonl", &examples);
    folder.write("data.jsonl", &examples[3..5]);
    let arguments = [
        DEMO,
        "--benchmark",
        "jsonl",
        "--data",
        "data.jsonl",
        "--support",
        "support.jsonl",
        "--form",
        "form.json",
        "--selection",
        "rices",
        "--shots",
    ];
    let with = |shots: &'static str| [&arguments[..], &[shots]].concat();
    assert!(!folder.run(&with("1,2,4")).contains("anew"));
    let (one, two, four) = (folder.shown("RICES", 1), folder.shown("RICES", 2), folder.shown("RICES", 4));
    assert_eq!(one["n3"], ["n6"]);
    assert_eq!(two["n3"][1], "n6");
    assert!(!four["n3"].contains(&"n3".to_owned()) && four["n3"][2..] == two["n3"][..]);
    // What was computed is found, what is damaged is made anew.
    let features = folder.path("out/features-shown-0.bin");
    let made = fs::metadata(&features).unwrap().modified().unwrap();
    fs::remove_file(folder.path("out/answers.jsonl")).unwrap();
    let records = |folder: &Folder| {
        let mut records: Vec<String> = folder.records().iter().map(Value::to_string).collect();
        records.sort();
        records
    };
    folder.run(&with("4"));
    assert_eq!(fs::metadata(&features).unwrap().modified().unwrap(), made);
    let before = records(&folder);
    let bytes = fs::read(&features).unwrap();
    fs::write(&features, &bytes[..bytes.len() - 3]).unwrap();
    fs::remove_file(folder.path("out/answers.jsonl")).unwrap();
    let told = folder.run(&with("4"));
    assert!(told.contains("features-shown-0.bin") && told.contains("anew"), "{told}");
    assert_eq!((records(&folder), fs::read(&features).unwrap()), (before, bytes));
}

#[test]
fn more_shots_add_to_fewer_and_groups_stay_among_themselves() {
    let folder = Folder::new(12);
    let mut examples = names(&folder, 12);
    for (number, example) in examples.iter_mut().enumerate() {
        example["group"] = json!(if number < 5 { "first" } else { "second" });
    }
    folder.write("data.jsonl", &examples);
    let arguments = [DEMO, "--benchmark", "jsonl", "--data", "data.jsonl", "--form", "form.json"];
    folder.run(&[&arguments[..], &["--shots", "1,3,5"]].concat());
    let (one, three, five) = (folder.shown("random", 1), folder.shown("random", 3), folder.shown("random", 5));
    let first = |id: &String| id[1..].parse::<usize>().unwrap() < 5;
    for (id, shown) in &three {
        assert_eq!(shown[..1], one[id]);
        assert!(shown.iter().all(|other| first(other) == first(id) && other != id));
        if !first(id) {
            assert_eq!(five[id][..3], shown[..]);
        }
    }
    // The first group has four to show with each.
    let results = folder.results();
    assert_eq!(point(&results, "random", 5)["errors"], 5);
    let of_first = folder.records().into_iter().find(|record| record["id"] == "n0" && record["shots"] == 5).unwrap();
    assert!(text(&of_first["error"]).contains("expected 5 examples that can be shown with it, found 4"), "{of_first}");
    let other = Folder::new(12);
    names(&other, 0);
    other.write("data.jsonl", &examples);
    other.run(&[&arguments[..], &["--shots", "3", "--seed", "43"]].concat());
    assert_ne!(other.shown("random", 3), three);
}

#[test]
fn videos_memes_and_folders_of_classes_are_evaluated() {
    // A video is a folder of frames.
    let folder = Folder::new(9);
    names(&folder, 0);
    for video in 0..4 {
        fs::create_dir(folder.path(&format!("v{video}"))).unwrap();
        (0..3).for_each(|frame| draw(&folder.path(&format!("v{video}/{frame}.png")), 10 * video + frame));
    }
    let clip = |number: usize| {
        let answer = ["dax", "wug"][number % 2];
        json!({"video": format!("v{number}"), "answer": answer, "choices": ["dax", "wug"]})
    };
    folder.write("clips.jsonl", &(0..4).map(clip).collect::<Vec<_>>());
    let form = ["--form", "form.json", "--shots", "2"];
    folder.run(
        &[&[DEMO, "--benchmark", "jsonl", "--data", "clips.jsonl", "--selection", "random,rices"], &form[..]].concat(),
    );
    let results = folder.results();
    assert_eq!(point(&results, "RICES", 2)["errors"], 0);
    assert!(results["samples"][0]["prompt"].as_array().unwrap().iter().any(|part| part["video"]["frames"] == 3));

    let folder = Folder::new(6);
    let meme =
        |number: usize| json!({"id": number, "img": format!("{number}.png"), "label": number % 2, "text": "so it is"});
    folder.write("memes.jsonl", &(0..6).map(meme).collect::<Vec<_>>());
    let case = Case::open("open_flamingo-mpt");
    let memes = [case.model.to_str().unwrap(), "--benchmark", "hateful-memes", "--data", "memes.jsonl", "--shots", "0"];
    folder.run(&memes);
    let records = folder.records();
    let (mut pairs, mut right) = (0.0, 0.0);
    let last = |record: &Value| record["choice"]["last"].as_f64().unwrap();
    let is_yes = |record: &Value| text(&record["id"]).parse::<usize>().unwrap() % 2 == 1;
    for yes in records.iter().filter(|record| is_yes(record)) {
        for no in records.iter().filter(|record| !is_yes(record)) {
            pairs += 1.0;
            right += if last(yes) > last(no) { 1.0 } else { 0.5 * f64::from(last(yes) == last(no)) };
        }
    }
    near(&point(&folder.results(), "random", 0)["score"], 100.0 * right / pairs);
    // With the slip of OpenFlamingo the asked picture is another one.
    let told = folder.refused(&[&memes[..], &["--reference-slip"]].concat());
    assert!(told.contains("reference slip of its evaluation: expected true, found false"), "{told}");
    fs::remove_dir_all(folder.path("out")).unwrap();
    folder.run(&[&memes[..], &["--reference-slip"]].concat());
    assert_ne!(folder.records().iter().map(last).sum::<f64>(), records.iter().map(last).sum::<f64>());
    fs::remove_dir_all(folder.path("out")).unwrap();
    fs::remove_file(folder.path("0.png")).unwrap();
    folder.run(&[&memes[..], &["--reference-slip"]].concat());
    assert_eq!(point(&folder.results(), "random", 0)["errors"], 1);

    let folder = Folder::new(6);
    names(&folder, 0);
    for number in 0..6 {
        let class = folder.path(["classes/dax", "classes/wug"][number % 2]);
        fs::create_dir_all(&class).unwrap();
        fs::copy(folder.path(&format!("{number}.png")), class.join(format!("{number}.png"))).unwrap();
    }
    folder.run(&[&[DEMO, "--benchmark", "imagenet", "--media", "classes"], &form[..]].concat());
    let results = folder.results();
    assert_eq!((&results["series"][0]["chance"], &point(&results, "random", 2)["errors"]), (&json!(50.0), &json!(0)));
}

#[test]
fn captions_are_scored_by_their_references() {
    let case = Case::open("open_flamingo-mpt");
    // What the model says of each picture, which does not depend on what people said of it, is what people say then.
    let run = |captions: &HashMap<String, String>| {
        let folder = Folder::new(6);
        let image = |number: usize| {
            let said = captions.get(&number.to_string()).map_or("a red fox", String::as_str);
            let sentences = [json!({"raw": format!("a fox {number}")}), json!({"raw": said})];
            let split = if number < 3 { "train" } else { "test" };
            json!({"filename": format!("{number}.png"), "imgid": number, "split": split, "sentences": sentences})
        };
        let root = json!({"images": (0..6).map(image).collect::<Vec<_>>(), "dataset": "flickr30k"});
        fs::write(folder.path("captions.json"), root.to_string()).unwrap();
        let model = case.model.to_str().unwrap();
        folder.run(&[model, "--benchmark", "flickr30k", "--data", "captions.json", "--shots", "2"]);
        folder
    };
    let texts = |folder: &Folder| -> HashMap<String, String> {
        folder.records().iter().map(|record| (text(&record["id"]), answers::caption(&text(&record["text"])))).collect()
    };
    let first = run(&HashMap::new());
    let said = texts(&first);
    assert_eq!(said.len(), 3);
    let second = run(&said);
    assert_eq!(texts(&second), said);
    let examples: Vec<cider::Example> = (3..6)
        .map(|number| {
            let said = ptb::tokens(&said[&number.to_string()]);
            let references = vec![ptb::tokens(&format!("a fox {number}")), said.clone()];
            cider::Example { candidate: said, references }
        })
        .collect();
    near(&point(&second.results(), "random", 2)["score"], 100.0 * cider::cider(&examples).unwrap().score);
    assert_eq!(second.results()["metric"]["name"], "CIDEr");
    let page = String::from_utf8(second.output("index.html")).unwrap();
    assert!(["OpenFlamingo 3B", "Flamingo 80B", "IDEFICS 9B"].iter().all(|model| page.contains(model)));
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let folder = Folder::new(2);
    let mut examples = names(&folder, 2);
    examples[1]["answer"] = json!(7);
    folder.write("bad.jsonl", &examples);
    let form = ["--form", "form.json"];
    let told = folder.refused(&[&[DEMO, "--benchmark", "jsonl", "--data", "bad.jsonl"], &form[..]].concat());
    assert!(told.contains("bad.jsonl: line 2: answer"), "{told}");
    let told = folder.refused(&[DEMO, "--benchmark", "coca", "--data", "bad.jsonl"]);
    assert!(told.contains("benchmark: expected coco, flickr30k"), "{told}");
    let told = folder.refused(&[DEMO, "--benchmark", "vqav2", "--data", "bad.jsonl"]);
    assert!(told.contains("QUESTIONS.json ANNOTATIONS.json"), "{told}");
    folder.write("good.jsonl", &names(&folder, 2));
    let told =
        folder.refused(&[DEMO, "--benchmark", "jsonl", "--data", "good.jsonl", "--shots", "1", "--form", "none.json"]);
    assert!(told.contains("none.json"), "{told}");
    let good = [&[DEMO, "--benchmark", "jsonl", "--data", "good.jsonl"], &form[..]].concat();
    let told = folder.refused(&[&good[..], &["--shots", "4"]].concat());
    assert!(told.contains("shots: expected at most 2, as many as there are to show, found 4"), "{told}");
    let told = folder.refused(&[&good[..], &["--shots", "1", "--fps", "0"]].concat());
    assert!(told.contains("frames a second of a video"), "{told}");
    let told = folder.refused(&[&good[..], &["--shots", "1", "--task", "caption", "--reference-slip"]].concat());
    assert!(told.contains("reference-slip: expected with classification alone, found with jsonl"), "{told}");
    let meme = |number: usize| json!({"id": number, "img": "0.png", "label": 1, "text": format!("{number}")});
    folder.write("memes.jsonl", &(0..3).map(meme).collect::<Vec<_>>());
    let told = folder.refused(&[DEMO, "--benchmark", "hateful-memes", "--data", "memes.jsonl", "--shots", "0"]);
    assert!(told.contains("ROC-AUC: expected examples of both classes, found 3 of 3 of the second"), "{told}");
    assert!(!folder.path("out/answers.jsonl").exists(), "nothing is left");
    for (arguments, code) in
        [(&["--benchmark", "coco"][..], 2), (&["--demo", "--benchmark", "coco"], 2), (&["--demo", "--shots", "999"], 2)]
    {
        let status = folder.command(arguments).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
    fs::write(folder.path("out"), "a file").unwrap();
    let told = folder.refused(&["--demo"]);
    assert!(told.contains("out"), "{told}");
}

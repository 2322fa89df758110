//! `flamant eval` when something goes wrong: killed and started again, an output of something else, images that are
//! missing or broken, features of another model, arguments and data that make no sense.

use std::collections::HashSet;
use std::fs::{self, File};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::evaluation::{Folder, Record, point};
use crate::support::reference::Case;
use serde_json::{Value, json};

/// A file of lines and its images: two classes in turn.
fn own(folder: &Folder, name: &str, count: usize) {
    let line = |number: usize| {
        let image = format!("media/{name}{number}.png");
        folder.image(&image);
        json!({"id": format!("{name}{number}"), "image": image, "question": "what?",
            "answer": (["a fox", "a dog"][number % 2]), "choices": ["a fox", "a dog"]})
        .to_string()
    };
    folder.write(format!("{name}.jsonl"), (0..count).map(line).collect::<Vec<_>>().join("\n"));
}

/// What results are read from, without the day.
fn found(folder: &Folder) -> [String; 2] {
    let results = folder.results();
    let date = results["date"].as_str().unwrap();
    ["out/results.json", "out/index.html"].map(|name| folder.read(name).replace(date, "today"))
}

const DEMO: [&str; 9] =
    ["--demo", "--queries", "16", "--shots", "0,1,4", "--selection", "random,rices", "--max-sequences", "4"];

#[test]
fn killed_and_torn_it_comes_to_the_same_end() {
    let undisturbed = Folder::new();
    undisturbed.run(&DEMO);
    let (expected, answers) = (found(&undisturbed), undisturbed.records());
    assert_eq!(answers.len(), 3 * 2 * 3 * 16);

    let folder = Folder::new();
    let whole_lines = || {
        let text = fs::read(folder.path("out/answers.jsonl")).unwrap_or_default();
        text.iter().filter(|byte| **byte == b'\n').count()
    };
    for least in [0, 1, 2, 60, 130, 220] {
        let mut child = folder.command(&DEMO).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while whole_lines() < least {
            assert!(begun.elapsed() < Duration::from_secs(60), "no answer comes");
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(whole_lines() <= answers.len(), "it was done before it was killed");
    folder.run(&DEMO);
    assert_eq!(folder.records(), answers);
    assert_eq!(found(&folder), expected);

    let whole = folder.read("out/answers.jsonl");
    let last = whole.trim_end().rfind('\n').unwrap() + 1;
    for cut in [last, last + 1, last + 30, whole.len() - 2, whole.len() - 1, 12] {
        folder.write("out/answers.jsonl", &whole[..cut]);
        folder.run(&DEMO);
        assert_eq!(folder.records(), answers, "cut at {cut} of {}", whole.len());
        assert_eq!(found(&folder), expected);
    }
    // Nothing is left to do.
    let whole = folder.read("out/answers.jsonl");
    assert_eq!(folder.run(&DEMO), "");
    assert_eq!(folder.read("out/answers.jsonl"), whole);
    assert_eq!(found(&folder), expected);
}

#[test]
fn an_output_of_something_else_is_left_alone() {
    let folder = Folder::new();
    own(&folder, "own", 6);
    let (case, other) = (Case::open("open_flamingo-mpt"), Case::open("open_flamingo-neox"));
    let template = json!({"support": "{image}{question}{answer}", "query": "{image}{question}"}).to_string();
    folder.write("template.json", &template);
    let model = case.model.to_str().unwrap();
    let set = ["--benchmark", "jsonl", "--data", "own.jsonl", "--template", "template.json", "--task", "question"];
    let good = [&[model, "--shots", "0,2"], &set[..]].concat();
    folder.run(&good);
    let answers = folder.read("out/answers.jsonl");
    let refused = |arguments: &[&str], mention: &str| {
        let told = folder.refused(arguments);
        assert!(told.starts_with("flamant: out/answers.jsonl: ") && told.contains(mention), "{arguments:?}: {told}");
    };
    let changed: [(&[&str], &str); 8] = [
        (&["--seed", "43"], "seed of its evaluation: expected 43, found 42 (choose another --output)"),
        (&["--selection", "fixed"], "series of its evaluation: expected fixed, found random"),
        (&["--queries", "5"], "queries of its evaluation: expected "),
        (&["--support-max", "4"], "drawn from of its evaluation: expected "),
        (&["--template", "openflamingo"], "template of its evaluation: expected "),
        (
            &["--frames", "2"],
            "frames of videos of its evaluation: expected 1 a second, 2 at most, found 1 a second, 8 at most",
        ),
        (&["--task", "caption"], "task of its evaluation: expected Caption, 20 tokens, found Question, 5 tokens"),
        (&["--shots", "0,1"], "shots of its evaluation: expected 0,1, found 0,2"),
    ];
    for (more, mention) in changed {
        // A flag is given once.
        let without = |name: &str| {
            let place = good.iter().position(|argument| *argument == name);
            place.map_or(good.clone(), |place| [&good[..place], &good[place + 2..]].concat())
        };
        refused(&[&without(more[0]), more].concat(), mention);
    }
    let others = [&[other.model.to_str().unwrap()], &good[1..]].concat();
    refused(&others, "weights of its evaluation: expected ");
    let data = folder.read("own.jsonl");
    for (from, to) in [("what?", "who?"), ("own3.png", "own4.png"), ("\"answer\":\"a dog\"", "\"answer\":\"a fox\"")] {
        folder.write("own.jsonl", data.replacen(from, to, 1));
        refused(&good, "drawn from of its evaluation: expected ");
    }
    folder.write("own.jsonl", data);
    folder.write("template.json", template.replace("}{q", "} {q"));
    refused(&good, "template of its evaluation: expected ");
    folder.write("template.json", template);
    assert_eq!(folder.read("out/answers.jsonl"), answers);

    let (head, records) = answers.split_once('\n').unwrap();
    let contents = [
        ("notes".to_owned(), "line 1: expected an answer of flamant eval, found something else"),
        (records.to_owned(), "line 1: expected an answer of flamant eval, found missing field `evaluation`"),
        (format!("{head}\n{records}{records}"), "found a second one of "),
        (
            format!("{head}\n{}", records.replacen("own", "OWN", 1)),
            "line 2: expected an answer of flamant eval, found one",
        ),
    ];
    for (content, mention) in contents {
        folder.write("out/answers.jsonl", &content);
        refused(&good, mention);
        assert_eq!(folder.read("out/answers.jsonl"), content);
    }
    folder.write("out/answers.jsonl", &answers);
    let held = File::open(folder.path("out/answers.jsonl")).unwrap();
    held.lock().unwrap();
    refused(&good, "another program is writing it");
    drop(held);
    assert_eq!(folder.run(&good), "");
}

#[test]
fn images_that_are_missing_or_broken_are_counted_and_never_shown() {
    let folder = Folder::new();
    own(&folder, "own", 9);
    fs::remove_file(folder.path("media/own2.png")).unwrap();
    folder.write("media/own5.png", "no image");
    let whole = fs::read(folder.path("media/own7.png")).unwrap();
    folder.write("media/own7.png", &whole[..whole.len() / 2]);
    let case = Case::open("open_flamingo-mpt");
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl"];
    let told = folder.run(&[&set[..], &["--shots", "0,2", "--selection", "random,fixed,rices"]].concat());
    assert!(told.contains("flamant: 1 images or videos are missing, the first is ./media/own2.png\n"), "{told}");
    assert!(told.contains("flamant: 2 of 8 images or videos cannot be compared, first ./media/own5.png: "), "{told}");
    assert!(told.contains("; it is never shown\n"), "{told}");
    for broken in ["own5", "own7"] {
        let lines = told.lines().filter(|line| line.starts_with(&format!("flamant: ./media/{broken}.png: ")));
        assert!(lines.count() <= 1, "{told}");
    }
    let results = folder.results();
    assert_eq!(results["missing"], json!({"count": 1, "names": ["./media/own2.png"]}));
    let records = folder.records();
    assert_eq!(records.len(), 3 * 2 * 9);
    let broken = ["own2", "own5", "own7"];
    for record in &records {
        assert!(record.support.iter().all(|id| !broken.contains(&&**id)), "{record:?}");
        let error = broken.contains(&&*record.id).then(|| format!("./media/{}.png: ", record.id));
        assert_eq!(record.error.is_some(), error.is_some(), "{record:?}");
        if let (Some(found), Some(begin)) = (&record.error, error) {
            assert!(found.starts_with(&begin), "{found}");
        }
    }
    for series in ["random", "fixed", "RICES"] {
        for shots in [0, 2] {
            let right = |record: &&Record| {
                let number: usize = record.id[3..].parse().unwrap();
                record.choice.as_ref().is_some_and(|choice| choice.name == ["a fox", "a dog"][number % 2])
            };
            let of = records.iter().filter(|record| (&*record.series, record.shots) == (series, shots));
            let expected = 100.0 * of.filter(right).count() as f64 / 9.0;
            let point = point(&results, series, shots);
            assert_eq!((&point["examples"], &point["errors"]), (&json!(9), &json!(3)));
            assert!((point["score"].as_f64().unwrap() - expected).abs() < 1e-9, "{point}, {expected}");
        }
    }
    let failed = |sample: &&Value| sample["outcome"]["error"].is_string();
    assert!(results["samples"].as_array().unwrap().iter().any(|sample| !failed(&sample)));
    // Errors are asked again: nothing is better until an image is there.
    let before = found(&folder);
    folder.run(&[&set[..], &["--shots", "0,2", "--selection", "random,fixed,rices"]].concat());
    assert_eq!(found(&folder), before);
    folder.image("media/own5.png");
    folder.run(&[&set[..], &["--shots", "0,2", "--selection", "random,fixed,rices"]].concat());
    assert_eq!(point(&folder.results(), "random", 2)["errors"], 2);
    let mended: Vec<Record> = folder.records().into_iter().filter(|record| record.error.is_none()).collect();
    assert!(mended.len() == 7 * 6 && records.iter().all(|record| record.error.is_some() || mended.contains(record)));
}

#[test]
fn an_example_without_enough_others_is_an_error_of_its_own() {
    let folder = Folder::new();
    own(&folder, "own", 6);
    let group = |(number, line): (usize, &str)| {
        line.replacen('{', if number < 4 { "{\"group\":\"many\"," } else { "{\"group\":\"few\"," }, 1)
    };
    let grouped: Vec<String> = folder.read("own.jsonl").lines().enumerate().map(group).collect();
    folder.write("own.jsonl", grouped.join("\n"));
    let case = Case::open("open_flamingo-mpt");
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl"];
    folder.run(&[&set[..], &["--shots", "1,3", "--selection", "random,rices"]].concat());
    for record in folder.records() {
        let lacks = record.shots == 3 && ["own4", "own5"].contains(&&*record.id);
        let error = "shots: expected 3 examples that can be shown with it, found 1";
        assert_eq!(record.error.as_deref(), lacks.then_some(error), "{record:?}");
    }
    let results = folder.results();
    assert_eq!(
        (&point(&results, "random", 1)["errors"], &point(&results, "RICES", 3)["errors"]),
        (&json!(0), &json!(2))
    );
}

#[test]
fn the_most_similar_stands_last_and_features_are_kept() {
    let folder = Folder::new();
    own(&folder, "query", 4);
    own(&folder, "support", 6);
    for (from, to) in [("query0", "support5"), ("query1", "support0"), ("query2", "support3")] {
        fs::copy(folder.path(format!("media/{from}.png")), folder.path(format!("media/{to}.png"))).unwrap();
    }
    let (case, other) = (Case::open("open_flamingo-mpt"), Case::open("open_flamingo-neox"));
    let set = ["--benchmark", "jsonl", "--data", "query.jsonl", "--support", "support.jsonl", "--shots", "2,3"];
    let model = [case.model.to_str().unwrap(), "--selection", "rices"];
    let arguments = [&model[..], &set].concat();
    assert_eq!(folder.run(&arguments).lines().count(), 1);
    let records = folder.records();
    for (queries, support) in [("query0", "support5"), ("query1", "support0"), ("query2", "support3")] {
        let of: Vec<&Record> = records.iter().filter(|record| record.id == queries).collect();
        assert!(of.len() == 2 && of.iter().all(|record| *record.support.last().unwrap() == support), "{of:?}");
    }
    let files = ["out/features-support-0.bin", "out/features-query-0.bin"];
    let written = || files.map(|file| fs::metadata(folder.path(file)).unwrap().modified().unwrap());
    let before = written();
    let again = |arguments: &[&str]| {
        fs::remove_file(folder.path("out/answers.jsonl")).unwrap();
        folder.run(arguments)
    };
    assert_eq!(again(&arguments).lines().count(), 1);
    assert_eq!((folder.records(), written()), (records.clone(), before));

    let bytes = fs::read(folder.path(files[0])).unwrap();
    let mut changed = bytes.clone();
    changed[bytes.len() - 1] ^= 64;
    for content in [&bytes[..bytes.len() - 1], &bytes[..9], &changed, b""] {
        folder.write(files[0], content);
        let told = again(&arguments);
        let begin = format!("flamant: {}: ", files[0]);
        assert!(
            told.starts_with(&begin) && told.lines().next().unwrap().ends_with("; features are computed anew"),
            "{told}"
        );
        assert_eq!(fs::read(folder.path(files[0])).unwrap(), bytes);
        assert_eq!(folder.records(), records);
    }
    let told = again(&[&[other.model.to_str().unwrap()], &arguments[1..]].concat());
    assert!(told.matches("features are computed anew").count() == 2 && told.contains(": model: expected "), "{told}");
}

#[test]
fn a_seed_decides_and_a_folder_has_one_name() {
    let folder = Folder::new();
    own(&folder, "own", 12);
    let case = Case::open("open_flamingo-mpt");
    let absolute = folder.path("media/..");
    let support = |seed: &str| {
        // The same folder under another name: no example is shown its own image all the same.
        let media = ["--media", ".", "--support-media", absolute.to_str().unwrap(), "--support-max", "5"];
        let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl", "--queries", "8"];
        folder.run(&[&set[..], &media, &["--shots", "3", "--seed", seed]].concat());
        let records = folder.records();
        assert!(records.len() == 8 && records.iter().all(|record| !record.support.contains(&record.id)), "{records:?}");
        fs::remove_dir_all(folder.path("out")).unwrap();
        let support: HashSet<String> = records.iter().flat_map(|record| record.support.clone()).collect();
        assert!(support.len() <= 5);
        records
    };
    let first = support("1");
    assert_eq!(support("1"), first);
    let second = support("2");
    let queries = |records: &[Record]| records.iter().map(|record| record.id.clone()).collect::<Vec<_>>();
    assert_ne!(queries(&second), queries(&first));
    assert!(second.iter().any(|one| first.iter().all(|other| one.support != other.support)));
}

#[test]
fn what_makes_no_sense_is_refused_and_leaves_nothing_behind() {
    let folder = Folder::new();
    own(&folder, "own", 6);
    let data = folder.read("own.jsonl");
    folder.write("far.jsonl", data.replace("media/", "elsewhere/"));
    folder.write("bad.jsonl", data.replacen("\"answer\":\"a dog\"", "\"answer\":3", 1));
    folder.write("caption.jsonl", "{\"image\": \"media/own0.png\", \"answer\": \"b\"}\n".repeat(4));
    folder.write("template.json", "{\"support\": \"{image}\"}");
    let meme = |id: usize| format!("{{\"id\": {id}, \"img\": \"media/own{id}.png\", \"label\": 1, \"text\": \"\"}}\n");
    folder.write("memes.jsonl", (0..5).map(meme).collect::<String>());
    let case = Case::open("open_flamingo-mpt");
    let model = case.model.to_str().unwrap();
    let own = [model, "--benchmark", "jsonl", "--shots", "2", "--data"];
    let cases: [(&[&str], &str); 19] = [
        (
            &["own.jsonl", "--shots", "6"],
            "shots: expected at most 5, as many as can be shown with one example, found 6",
        ),
        (&["own.jsonl", "--queries", "0"], "invalid value '0' for '--queries <N>'"),
        (&["own.jsonl", "--samples", "101"], "invalid value '101' for '--samples <N>'"),
        (&["own.jsonl", "--permutations", "0"], "--permutations"),
        (&["own.jsonl", "--demo"], "cannot be used with"),
        (&["none.jsonl"], "flamant: none.jsonl: "),
        (&["own.jsonl", "own.jsonl"], "flamant: files: expected FILE.jsonl, found 2 files"),
        (&["bad.jsonl"], "flamant: bad.jsonl: line 2: answer: expected a string, found integer `3`"),
        (&["own.jsonl", "--split", "test"], "flamant: split \"test\": a file of this set holds no parts"),
        (
            &["own.jsonl", "--template", "poem"],
            "flamant: template: expected openflamingo, idefics, idefics-instruct, otter, mmgpt",
        ),
        (&["own.jsonl", "--template", "template.json"], "support: expected one {answer}, found 0"),
        (
            &["far.jsonl"],
            "media: expected the images or videos of --data, found none of 6, the first is ./elsewhere/own0",
        ),
        (
            &["caption.jsonl", "--permutations", "2"],
            "permutations: expected with classification alone, found with jsonl",
        ),
        (&["caption.jsonl", "--reference-slip"], "reference-slip: expected with classification alone"),
        // All four are of one image, and no other is left to show.
        (&["caption.jsonl"], "support: expected 2 examples to show with the one that is asked, found none: no example"),
        (
            &["own.jsonl", "--support-max", "1"],
            "shots: expected at most 1, as many as can be shown with one example, found 2",
        ),
        (&["own.jsonl", "--support-split", "train"], "flamant: split \"train\": "),
        (&["own.jsonl", "--fps", "0"], "frames a second of a video"),
        (&["own.jsonl", "--support-media", "nowhere"], "support: expected 2 examples to show with the one that"),
    ];
    let check = |arguments: &[&str], mention: &str| {
        let output = folder.command(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(mention), "{arguments:?}: {told}");
        let lines = if output.status.code() == Some(1) { 1 } else { told.lines().count() };
        assert!(told.lines().count() == lines && !told.contains("panicked"), "{arguments:?}: {told}");
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {told}");
        assert!(!folder.path("out/results.json").exists());
        assert_eq!(fs::read_to_string(folder.path("out/answers.jsonl")).unwrap_or_default(), "");
    };
    for (arguments, mention) in cases {
        check(&[&own[..], arguments].concat(), mention);
    }
    check(&["--shots", "2"], "required arguments were not provided");
    check(&[model, "--benchmark", "jsonl", "--data", "own.jsonl", "--shots", "256"], "expected 0 to 255");
    check(&[model, "--benchmark", "poems", "--data", "own.jsonl"], "invalid value 'poems' for '--benchmark <NAME>'");
    check(&[model, "--benchmark", "imagenet"], "media: expected the folder of the classes' folders, found none");
    let memes = [model, "--benchmark", "hateful-memes", "--data", "memes.jsonl", "--shots", "2"];
    check(&memes, "ROC-AUC: expected examples of both classes, found 5 of 5 of the second");
    check(&[&["nowhere"], &own[1..], &["own.jsonl"]].concat(), "flamant: nowhere");
    check(&["--demo", "--queries", "5000"], "queries of the demo");
    check(
        &["--demo", "--shots", "17", "--queries", "8"],
        "expected at most 16, as many as can be shown with one example, found 17",
    );
    // A later run finds nothing in its way.
    folder.run(&[&own[..], &["own.jsonl"]].concat());
    assert_eq!(folder.records().len(), 6);
    fs::remove_dir_all(folder.path("out")).unwrap();
    folder.write("out", "a file");
    assert!(folder.refused(&[&own[..], &["own.jsonl"]].concat()).starts_with("flamant: out: "));
    assert_eq!(folder.read("out"), "a file");
}

/// With 0 shots, the words of two are shown.
#[test]
fn a_set_of_one_or_two_has_too_few_to_show() {
    let folder = Folder::new();
    own(&folder, "one", 1);
    own(&folder, "two", 2);
    let case = Case::open("open_flamingo-mpt");
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--shots", "0", "--data"];
    let cases = [
        (
            "one.jsonl",
            "support: expected 2 examples to show with the one that is asked, found none: no example is shown",
        ),
        ("two.jsonl", "shots: expected at most 1, as many as can be shown with one example, found 0, which shows the"),
    ];
    for (data, mention) in cases {
        let told = folder.refused(&[&set[..], &[data]].concat());
        assert!(told.contains(mention), "{told}");
    }
}

#[test]
fn templates_that_do_not_serve_are_refused_before_anything_is_asked() {
    let folder = Folder::new();
    own(&folder, "own", 4);
    let stop = json!({"support": "{image}{answer}", "query": "{image}", "stop": ["Q:", ""]});
    folder.write("stop.json", stop.to_string());
    folder.write("twice.json", "{\"stop\": [], \"stop\": []}");
    let with = |stop: Vec<String>| json!({"support": "{image}{answer}", "query": "{image}", "stop": stop}).to_string();
    folder.write("many.json", with((0..65).map(|number| number.to_string()).collect()));
    folder.write("long.json", with(vec!["x".repeat(5000)]));
    std::os::unix::fs::symlink("nowhere", folder.path("gone.json")).unwrap();
    let case = Case::open("open_flamingo-mpt");
    let cases = [
        ("stop.json", "stop.json: stop: expected texts that end an answer, found an empty one"),
        ("twice.json", "twice.json: stop: expected this key once in its object"),
        ("gone.json", "gone.json: No such file"),
        ("many.json", "many.json: stop: stop texts: 65 is over the limit of 64"),
        ("long.json", "long.json: stop: bytes of all stop texts: 5000 is over the limit of 4096"),
        ("media", "media: expected a file, found a folder"),
    ];
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl", "--shots", "1"];
    for (template, mention) in cases {
        let told = folder.refused(&[&set[..], &["--template", template]].concat());
        assert!(told.contains(mention), "{told}");
        assert_eq!(fs::read_to_string(folder.path("out/answers.jsonl")).unwrap_or_default(), "");
    }
}

/// Where no question of a point is answered, its score says nothing, and the evaluation has failed.
#[test]
fn a_point_without_an_answer_is_an_error() {
    let folder = Folder::new();
    own(&folder, "own", 4);
    let marker = json!({"support": "<image>{image}{answer}", "query": "{image}"});
    folder.write("marker.json", marker.to_string());
    let case = Case::open("open_flamingo-mpt");
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl", "--shots", "1"];
    let output = folder.command(&[&set[..], &["--template", "marker.json"]].concat()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let expected =
        "flamant: all 4 answers of random at 1 shots failed; the first error is prompt: expected text without image";
    assert!(told.lines().last().unwrap().starts_with(expected), "{told}");
    assert_eq!(point(&folder.results(), "random", 1)["errors"], 4);
    fs::remove_dir_all(folder.path("out")).unwrap();
    folder.run(&set);
    assert_eq!(point(&folder.results(), "random", 1)["errors"], 0);
}

/// What is there and cannot be read is not missing.
#[test]
fn only_what_is_not_there_is_missing() {
    let folder = Folder::new();
    own(&folder, "own", 6);
    fs::remove_file(folder.path("media/own1.png")).unwrap();
    fs::remove_file(folder.path("media/own2.png")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path("media/own2.png")).unwrap();
    let case = Case::open("open_flamingo-mpt");
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl", "--shots", "1"];
    folder.run(&[&set[..], &["--selection", "rices"]].concat());
    assert_eq!(folder.results()["missing"], json!({"count": 1, "names": ["./media/own1.png"]}));
    let error = |id: &str| folder.records().into_iter().find(|record| record.id == id).unwrap().error.unwrap();
    assert_eq!(error("own2"), "./media/own2.png: No such file or directory (os error 2)");
    // A file of features that leads nowhere is looked at, and made anew in its place.
    fs::remove_file(folder.path("out/features-query-0.bin")).unwrap();
    std::os::unix::fs::symlink("elsewhere.bin", folder.path("out/features-query-0.bin")).unwrap();
    let told = folder.run(&[&set[..], &["--selection", "rices"]].concat());
    assert!(told.contains("features-query-0.bin: a link to elsewhere.bin, which is not there"), "{told}");
    assert!(folder.path("out/elsewhere.bin").is_file());
}

/// Images of more pixels, and what is not seen of 16-bit grey.
#[test]
fn limits_are_raised_and_notes_are_told() {
    let folder = Folder::new();
    own(&folder, "own", 4);
    let gray = |name: &str, width: u32, depth, pixels: &[u8]| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, 1);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(depth);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        folder.write(name, bytes);
    };
    gray("media/own0.png", 20_000, png::BitDepth::Eight, &[9; 20_000]);
    for name in ["media/own1.png", "media/own2.png"] {
        gray(name, 2, png::BitDepth::Sixteen, &[1, 0, 200, 0]);
    }
    let case = Case::open("open_flamingo-mpt");
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl", "--shots", "1"];
    let told = folder.run(&set);
    assert!(told.contains("own0.png: width in pixels: 20000 is over the limit of 16384; it is never shown"), "{told}");
    assert_eq!(told.matches("16-bit grey").count(), 1, "{told}");
    fs::remove_dir_all(folder.path("out")).unwrap();
    assert!(!folder.run(&[&set[..], &["--max-pixels", "100000000"]].concat()).contains("never shown"));
    assert_eq!(point(&folder.results(), "random", 1)["errors"], 0);
}

/// A model is what is in its files, and an error no answer: one line stands for each question.
#[test]
fn it_goes_on_under_another_name_of_its_model() {
    let folder = Folder::new();
    own(&folder, "own", 6);
    fs::rename(folder.path("media/own3.png"), folder.path("own3.png")).unwrap();
    let case = Case::open("open_flamingo-mpt");
    let model = case.model.to_str().unwrap();
    std::os::unix::fs::symlink(model, folder.path("link")).unwrap();
    let evaluate = |model: &str, data: &str| {
        folder.run(&[model, "--benchmark", "jsonl", "--task", "question", "--data", data, "--shots", "1"]);
        folder.read("out/answers.jsonl")
    };
    let first = evaluate(model, "own.jsonl");
    assert_eq!(first.matches("\"error\":").count(), 1);
    let half: Vec<&str> = first.lines().filter(|line| !line.contains("\"error\":")).take(4).collect();
    for (spelling, data) in [(&format!("{model}/")[..], "own.jsonl"), ("link", "./own.jsonl"), (model, "././own.jsonl")]
    {
        folder.write("out/answers.jsonl", half.join("\n") + "\n\0\0");
        let whole = evaluate(spelling, data);
        assert!(whole.starts_with(&half.join("\n")), "begun anew");
        assert_eq!(whole.lines().count(), 7);
        // What failed is asked again, and fails once more.
        assert_eq!(evaluate(spelling, data).lines().count(), 7);
    }
    // The image takes part in the sets again once it is there: another evaluation.
    fs::rename(folder.path("own3.png"), folder.path("media/own3.png")).unwrap();
    let arguments = [model, "--benchmark", "jsonl", "--task", "question", "--data", "own.jsonl", "--shots", "1"];
    assert!(folder.refused(&arguments).contains(" of its evaluation: expected "));
}

/// All wrong is no measurement of zero; captions of one image are none at all.
#[test]
fn intervals_of_few_have_a_width() {
    let folder = Folder::new();
    own(&folder, "own", 12);
    let wrong = folder.read("own.jsonl").replace("a fox", "zebra").replace("a dog", "zebra");
    let wrong: String =
        wrong.lines().map(|line| line.replace(",\"choices\":[\"zebra\",\"zebra\"]", "") + "\n").collect();
    folder.write("wrong.jsonl", wrong);
    let case = Case::open("open_flamingo-mpt");
    let evaluate = |data: &str, task: &str, queries: &str| {
        let output = folder.path("out");
        if output.exists() {
            fs::remove_dir_all(output).unwrap();
        }
        let model = case.model.to_str().unwrap();
        let set = ["--benchmark", "jsonl", "--data", data, "--task", task, "--shots", "1", "--queries", queries];
        let table = folder.command(&[&[model], &set[..]].concat()).output().unwrap().stdout;
        (point(&folder.results(), "random", 1).clone(), folder.results(), String::from_utf8(table).unwrap())
    };
    let ends = |point: &serde_json::Value| ["score", "low", "high"].map(|key| point[key].as_f64().unwrap());
    let (exact, results, _) = evaluate("wrong.jsonl", "question", "12");
    let [score, low, high] = ends(&exact);
    assert!(score == 0.0 && low == 0.0 && (high - 24.249400665524).abs() < 1e-9, "{exact}");
    assert_eq!(results.get("notes"), None);
    let (captions, ..) = evaluate("wrong.jsonl", "caption", "12");
    let [score, low, high] = ends(&captions);
    assert!(score == 0.0 && low == 0.0 && (high - 242.49400665524).abs() < 1e-7, "{captions}");
    let (captions, results, table) = evaluate("own.jsonl", "caption", "1");
    assert_eq!(captions["score"], 0.0);
    let note = results["notes"][0].as_str().unwrap();
    assert!(note.starts_with("CIDEr of 1 image is 0 whatever is written") && table.contains(note), "{note} {table}");
    assert!(folder.read("out/index.html").contains(note));
}

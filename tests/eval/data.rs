//! Evaluation sets in each published layout, hand-made and small (`tests/data/eval`), and the prompts made of them,
//! held to those of OpenFlamingo's own evaluation (`tools/golden_prompts.py`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flamant::demo::{Episode, Random, Sheet};
use flamant::eval::benchmark::{Benchmark, Metric, OWN, PUBLISHED};
use flamant::eval::data::{Dataset, Example, Medium, Source, Task, missing};
use flamant::eval::template::{Kind, Shots, Template};
use flamant::image::Image;
use flamant::{Error, Part, Prompt};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/eval").join(name)
}

fn source(files: &[&str], media: &str) -> Source {
    Source::new(files.iter().map(|file| fixture(file)).collect()).media(Some(media.into()))
}

fn queries(name: &str, files: &[&str], media: &str) -> Dataset {
    Benchmark::open(name, None, &source(files, media)).unwrap().1
}

/// An example in one line: name, medium, question, answers.
fn line(example: &Example) -> String {
    let medium = match &example.medium {
        Medium::Image(path) | Medium::Video(path) => path.display(),
        Medium::Drawn(_) => panic!("files only"),
    };
    format!("{} | {medium} | {} | {}", example.id, example.question, example.answers.join(" / "))
}

fn lines(dataset: &Dataset) -> Vec<String> {
    dataset.examples.iter().map(line).collect()
}

#[test]
fn captions_are_read_by_part() {
    let coco = source(&["dataset_coco.json"], "coco");
    let (benchmark, dataset) = Benchmark::open("coco", None, &coco).unwrap();
    let answers = "A man with a red helmet on a small moped. / Man riding a motor bike on a dirt road.";
    assert_eq!(lines(&dataset), [format!("391895 | coco/val2014/COCO_val2014_000000391895.jpg |  | {answers}")]);
    let support = benchmark.support(&coco).unwrap();
    assert_eq!(lines(&support), ["9 | coco/train2014/COCO_train2014_000000000009.jpg |  | Boxes of food."]);
    let rest = benchmark.support(&coco.split(Some("restval".to_owned()))).unwrap();
    assert_eq!(lines(&rest), ["42 | coco/val2014/COCO_val2014_000000000042.jpg |  | A dog on shoes."]);
    assert_eq!(
        lines(&queries("flickr30k", &["dataset_flickr30k.json"], "flickr")),
        ["1007129816 | flickr/1007129816.jpg |  | A man with an orange hat."]
    );
}

#[test]
fn questions_are_joined_with_their_answers() {
    let files = ["vqav2_questions.json", "vqav2_annotations.json"];
    let expected = [
        "262148000 | coco/val2014/COCO_val2014_000000262148.jpg | Where is he looking? | down",
        "262148001 | coco/val2014/COCO_val2014_000000262148.jpg | How many people? | 2 / two ",
    ];
    // The folder of all images, or that of this part.
    assert_eq!(lines(&queries("vqav2", &files, "coco")), expected);
    assert_eq!(lines(&queries("ok-vqa", &files, "coco/val2014")), expected);

    let published = queries("textvqa", &["textvqa_questions.json", "textvqa_annotations.json"], "images");
    assert_eq!(lines(&published), ["34602 | images/003a8ae2ef43b901.jpg | what is the brand? | dakota"]);
    let native = queries("textvqa", &["textvqa.json"], "images");
    let answers = "dakota / dakota digital";
    assert_eq!(lines(&native), [format!("34602 | images/003a8ae2ef43b901.jpg | what is the brand? | {answers}")]);

    let image = "VizWiz_val_00000016.jpg";
    let example = format!("val/{image} | What is this? | finger / unanswerable");
    let published = queries("vizwiz", &["vizwiz_questions.json", "vizwiz_annotations.json"], "val");
    assert_eq!(lines(&published), [format!("16 | {example}")]);
    assert_eq!(lines(&queries("vizwiz", &["vizwiz.json"], "val")), [format!("{image} | {example}")]);
}

#[test]
fn memes_have_two_classes() {
    let dataset = queries("hateful-memes", &["memes.jsonl"], "img");
    let text = "its their character not their color that matters";
    let expected =
        [format!("42953 | img/42953.png | {text} | no"), "01236 | img/01236.png | so \"funny\" | yes".into()];
    assert_eq!(lines(&dataset), expected);
    assert_eq!(*dataset.choices, ["no", "yes"]);
    // Without a folder of images they lie beside the file, as they are published.
    let beside = source(&["memes.jsonl"], "").media(None);
    let (_, dataset) = Benchmark::open("hateful-memes", None, &beside).unwrap();
    let missing: Vec<_> = missing(&dataset).into_iter().map(Path::to_owned).collect();
    assert_eq!(missing, ["img/42953.png", "img/01236.png"].map(fixture));
}

#[test]
fn classes_are_folders() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        ["n01443537/b.JPEG", "n01443537/a.jpg", "n01443537/readme.txt", "n01443537/.a.jpg", "n01440764/1.png", "list"];
    for file in files.map(|file| folder.path().join(file)) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
    let media = folder.path().to_str().unwrap();
    let answers = |dataset: &Dataset| -> Vec<(String, String)> {
        let answer = |example: &Example| (example.id.clone(), example.answers.join("/"));
        dataset.examples.iter().map(answer).collect()
    };
    let expected = |names: [&str; 2]| {
        [("n01440764/1.png", names[0]), ("n01443537/a.jpg", names[1]), ("n01443537/b.JPEG", names[1])]
            .map(|(id, name)| (id.to_owned(), name.to_owned()))
    };
    let dataset = queries("imagenet", &["imagenet_names.txt"], media);
    assert_eq!(answers(&dataset), expected(["tench", "goldfish"]));
    assert_eq!(*dataset.choices, ["tench", "goldfish", "crane"], "two cranes are one name");
    assert_eq!(missing(&dataset), [] as [&Path; 0]);
    let dataset = queries("imagenet", &["imagenet_names.json"], media);
    assert_eq!(answers(&dataset), expected(["tench, a fish", "goldfish"]));

    fs::rename(folder.path().join("n01440764"), folder.path().join("great_tench")).unwrap();
    let dataset = queries("imagenet", &[], media);
    assert_eq!(*dataset.choices, ["great tench", "n01443537"]);
}

#[test]
fn videos_are_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let media = folder.path().to_str().unwrap();
    let paths = |dataset: &Dataset| -> Vec<PathBuf> {
        let path = |example: &Example| match &example.medium {
            Medium::Video(path) => path.clone(),
            other => panic!("{other:?}"),
        };
        dataset.examples.iter().map(path).collect()
    };
    let questions = |files: &[&str]| queries("msvd-qa", files, media);
    for name in ["video12.webm", "video12.avi", "video1.txt", "-7KMZQEsJW4_205_208.avi"] {
        fs::write(at(name), "").unwrap();
    }
    fs::create_dir(at("vid1")).unwrap();
    let dataset = questions(&["msvd_qa.json"]);
    assert_eq!(paths(&dataset), [at("vid1"), at("video12.avi")]);
    assert_eq!(missing(&dataset), [] as [&Path; 0]);
    let named = questions(&["msvd_qa.json", "msvd_mapping.txt"]);
    assert_eq!(paths(&named), [at("-4wsuPCjDBc_5_15.mp4"), at("-7KMZQEsJW4_205_208.avi")]);
    assert_eq!(missing(&named), [at("-4wsuPCjDBc_5_15.mp4")]);
    let dataset = queries("vatex", &["vatex.json"], media);
    assert_eq!(dataset.examples[0].answers, ["A man is shown on a slope.", "Someone skis."]);
    assert_eq!(paths(&dataset), [at("Ptf_2VRj-V0_000122_000132.mp4")]);
}

/// As editors of some systems write it.
#[test]
fn a_byte_order_mark_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let media = folder.path().to_str().unwrap();
    fs::create_dir(folder.path().join("n01440764")).unwrap();
    fs::write(folder.path().join("n01440764/1.png"), "").unwrap();
    let sets: [(&str, &[&str]); 6] = [
        ("vqav2", &["vqav2_questions.json", "vqav2_annotations.json"]),
        ("vizwiz", &["vizwiz.json"]),
        ("hateful-memes", &["memes.jsonl"]),
        ("imagenet", &["imagenet_names.txt"]),
        ("imagenet", &["imagenet_names.json"]),
        (OWN, &["own.jsonl"]),
    ];
    for (name, files) in sets {
        let plain = queries(name, files, media);
        let marked = files.iter().map(|file| {
            let path = folder.path().join(file);
            fs::write(&path, [b"\xef\xbb\xbf", &fs::read(fixture(file)).unwrap()[..]].concat()).unwrap();
            path
        });
        let source = Source::new(marked.collect()).media(Some(media.into()));
        let (_, marked) = Benchmark::open(name, None, &source).unwrap();
        assert_eq!((lines(&marked), &marked.choices), (lines(&plain), &plain.choices), "{name}");
    }
}

#[test]
fn own_lines_are_of_the_task_they_look_like() {
    let open = |file: &str, task| Benchmark::open(OWN, task, &source(&[file], "media")).unwrap();
    let (benchmark, dataset) = open("own.jsonl", None);
    let expected = [
        "1 | media/fox.png |  | a red fox on a mat / a fox that sleeps",
        "7 | media/clips/7.mp4 |  | a hen runs",
        "hen | media/hen.png |  | a hen",
    ];
    assert_eq!(lines(&dataset), expected);
    assert!(matches!(dataset.examples[1].medium, Medium::Video(_)));
    let groups: Vec<_> = dataset.examples.iter().map(|example| example.group.as_deref()).collect();
    assert_eq!(groups, [None, Some("farm"), None]);
    assert_eq!((benchmark.task, benchmark.metric, benchmark.max_new_tokens), (Task::Caption, Metric::Cider, 20));

    let (benchmark, dataset) = open("own.jsonl", Some(Task::Classify));
    assert_eq!(*dataset.choices, ["a red fox on a mat", "a fox that sleeps", "a hen runs", "a hen"]);
    assert_eq!((benchmark.kind, benchmark.metric), (Kind::Classify, Metric::Accuracy));
    assert_eq!(lines(&benchmark.support(&source(&["own.jsonl"], "media")).unwrap()), expected);

    let (benchmark, dataset) = open("own_questions.jsonl", None);
    assert_eq!((benchmark.task, benchmark.metric, benchmark.max_new_tokens), (Task::Question, Metric::Ivqa, 5));
    assert_eq!(dataset.examples[1].question, "How many?");

    let (benchmark, dataset) = open("own_choices.jsonl", None);
    assert_eq!((benchmark.kind, benchmark.metric), (Kind::Question, Metric::Accuracy));
    let choices: Vec<_> = dataset.examples.iter().map(|example| example.choices.clone().unwrap()).collect();
    assert_eq!(*choices[2], ["fox", "hen"]);
    assert!(Arc::ptr_eq(&choices[0], &choices[1]), "the same names are kept once");
    assert!(dataset.choices.is_empty());
}

/// A file of a set that is wrong, and the line that says so after the file's name.
const MALFORMED: &[(&str, &[&str], &str)] = &[
    ("coco", &["{\"images\": ["], "0: text: expected JSON, found EOF while parsing a list at line 1 column 12"),
    ("coco", &["[]"], "0: value: expected an object, found sequence"),
    ("coco", &["{\"images\": []} 1"], "0: text: expected JSON, found trailing characters at line 1 column 16"),
    ("coco", &["{\"images\": []}"], "0: split: expected images, found \"test\""),
    (
        "coco",
        &["{\"images\": [{\"filename\": \"a\", \"split\": \"val\", \"sentences\": []}]}"],
        "0: split: expected val, found \"test\"",
    ),
    (
        "coco",
        &["{\"images\": [{\"filename\": \"a\", \"split\": \"test\", \"sentences\": []}]}"],
        "0: answers of \"a\": expected at least 1, found none",
    ),
    (
        "coco",
        &[
            "{\"images\": [{\"filename\": \"a\", \"split\": \"test\", \"sentences\": [{\"raw\": \"b\"}, {\"raw\": 3}]}]}",
        ],
        "0: images[0].sentences[1].raw: expected a string, found integer `3`",
    ),
    (
        "vqav2",
        &["{\"questions\": [{\"image_id\": 1, \"question\": \"a\"}]}", ""],
        "0: questions[0]: expected the field \"question_id\", found none",
    ),
    (
        "vqav2",
        &["{\"data_subtype\": \"val2014\", \"questions\": []}", "{\"annotations\": [{\"question_id\": 1.5}]}"],
        "1: annotations[0].question_id: expected a string or a whole number, found floating point `1.5`",
    ),
    (
        "vqav2",
        &["{\"data_subtype\": \"val2014\", \"questions\": []}", "{\"annotations\": []}"],
        "0: examples: expected at least 1, found none",
    ),
    (
        "vqav2",
        &["{\"questions\": []}", "{\"annotations\": []}"],
        "0: data_subtype: expected train2014 or val2014, here or as the name of the media folder, found \
         \"media\"",
    ),
    (
        "vqav2",
        &[
            "{\"data_subtype\": \"val2014\", \"questions\": [{\"image_id\": \"x\", \"question\": \"a\", \
             \"question_id\": 7}]}",
            "{\"annotations\": []}",
        ],
        "0: image_id: expected a number of COCO, found \"x\"",
    ),
    (
        "vizwiz",
        &["{\"questions\": [{\"image_id\": \"x\", \"question\": \"a\", \"question_id\": 7}]}", "{\"annotations\": []}"],
        "1: question_id: expected an annotation of 7, found none",
    ),
    (
        "vizwiz",
        &["{\"questions\": []}", "{\"annotations\": [{\"question_id\": 7, \"answers\": []}]}"],
        "0: question_id: expected the annotated question 7, found none",
    ),
    (
        "vizwiz",
        &[
            "{\"questions\": []}",
            "{\"annotations\": [{\"question_id\": 7, \"answers\": []}, {\"question_id\": \"7\", \"answers\": []}]}",
        ],
        "1: question_id: expected each once, found 7 again",
    ),
    (
        "vizwiz",
        &["[{\"image\": \"a.jpg\", \"question\": \"b\"}]"],
        "0: answers of \"a.jpg\": expected at least 1, found none",
    ),
    (
        "textvqa",
        &["{\"data\": [{\"question_id\": 1, \"image_id\": \"a\", \"question\": \"b\", \"answers\": \"c\"}]}"],
        "0: data[0].answers: expected a sequence, found string \"c\"",
    ),
    (
        "hateful-memes",
        &["\n{\"id\": 1, \"img\": \"a.png\", \"label\": 2, \"text\": \"\"}"],
        "0: line 2: label: expected 0 or 1, found 2",
    ),
    (
        "hateful-memes",
        &["{\"id\": 1, \"img\": \"a.png\", \"text\": \"\"}"],
        "0: line 1: label: expected 0 or 1, found none",
    ),
    (
        "hateful-memes",
        &["{\"id\": 1, \"img\": \"a\", \"label\": 1, \"text\": \"\"}\n{\"id\": \"1\", \"img\": \"a\", \"label\": 1, \
            \"text\": \"\"}"],
        "0: id: expected each name once, found \"1\" again",
    ),
    ("hateful-memes", &["{\"id\": 1, \"img\": 7}"], "0: line 1: img: expected a string, found integer `7`"),
    ("jsonl", &[""], "0: examples: expected at least 1, found none"),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answer\": \"b\"}\n{\"image\": \"a\""],
        "0: line 2: text: expected JSON, found EOF while parsing an object at line 1 column 13",
    ),
    ("jsonl", &["[\"a\", null, \"b\"]"], "0: line 1: value: expected an object, found sequence"),
    ("vizwiz", &["[[\"a.jpg\", \"b\", []]]"], "0: [0]: expected an object, found sequence"),
    ("jsonl", &["\u{feff}{}"], "0: line 1: image: expected an \"image\" or a \"video\", found none"),
    ("jsonl", &["{\"answer\": \"b\"}"], "0: line 1: image: expected an \"image\" or a \"video\", found none"),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answer\": \"b\", \"choices\": [\"b\", \"\"]}"],
        "0: line 1: choices: expected names, found an empty one",
    ),
    (
        "jsonl",
        &["{\"image\": \"a\", \"video\": \"a\", \"answer\": \"b\"}"],
        "0: line 1: image: expected an \"image\" or a \"video\", found both",
    ),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answers\": []}"],
        "0: line 1: answer: expected an \"answer\" or \"answers\", found none",
    ),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answers\": [\"b\", null]}"],
        "0: line 1: answers[1]: expected a string, found null",
    ),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answer\": \"b\", \"choices\": [\"b\"]}"],
        "0: line 1: choices: expected at least 2, found 1",
    ),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answer\": \"b\", \"choices\": [\"b\", \"b\"]}"],
        "0: line 1: choices: expected each name once, found \"b\" again",
    ),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answer\": \"b\", \"choices\": [\"c\", \"d\"]}"],
        "0: line 1: answer: expected one of the choices, found \"b\"",
    ),
    (
        "jsonl",
        &[
            "{\"image\": \"a\", \"answer\": \"b\", \"choices\": [\"b\", \"d\"]}\n\n{\"image\": \"a\", \"answer\": \"b\"}",
        ],
        "0: line 3: choices: expected choices, as other lines have some, found none",
    ),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answer\": \"b\"}\n{\"image\": \"a\", \"answer\": \"b\", \"question\": \"c\"}"],
        "0: line 1: question: expected a question, as other lines have one, found none",
    ),
    (
        "jsonl",
        &["{\"image\": \"a\", \"answer\": \"b\", \"id\": 2}\n{\"image\": \"a\", \"answer\": \"b\"}"],
        "0: id: expected each name once, found \"2\" again",
    ),
    (
        "msvd-qa",
        &["[{\"id\": 1, \"question\": \"a\", \"answer\": \"b\", \"video_id\": 3}]", "a vid1\n"],
        "1: vid3: expected the name of this video, found none",
    ),
    ("msvd-qa", &["[]", "a vid1\n\nb\n"], "1: line 3: expected a file's name and a video's, found \"b\""),
    ("vatex", &["[{\"videoID\": \"a\", \"chCap\": []}]"], "0: [0]: expected the field \"enCap\", found none"),
    ("imagenet", &["n1 tench\n\nn2"], "0: line 3: expected a folder and a name, found \"n2\""),
    ("imagenet", &["n2 tench"], "0: n1: expected a name for this folder, found none"),
    ("imagenet", &["n1 tench\nn1 hen"], "0: line 2: expected a folder and a name, found n1 again"),
    ("imagenet", &["n1 tench"], "media/n1: images: expected at least 1 of jpg, jpeg, png, webp, bmp, gif, found none"),
];

#[test]
fn what_is_wrong_with_a_file_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let media = folder.path().join("media");
    fs::create_dir_all(media.join("n1")).unwrap();
    for &(name, texts, expected) in MALFORMED {
        let write = |(number, text): (usize, &&str)| {
            let file = folder.path().join(number.to_string());
            fs::write(&file, text).unwrap();
            file
        };
        let files = texts.iter().enumerate().map(write).collect();
        let source = Source::new(files).media(Some(media.clone()));
        let error = Benchmark::open(name, None, &source).unwrap_err().to_string();
        assert_eq!(error, folder.path().join(expected).display().to_string(), "{name}: {texts:?}");
    }
}

#[test]
fn what_is_asked_for_wrongly_is_told_in_one_line() {
    let error = |name: &str, task, source: &Source| Benchmark::open(name, task, source).unwrap_err().to_string();
    let jsonl = source(&["own.jsonl"], "");
    let names = PUBLISHED.map(|benchmark| benchmark.name).join(", ");
    assert_eq!(error("mnist", None, &jsonl), format!("benchmark: expected {names} or jsonl, found \"mnist\""));
    assert_eq!(error("coco", Some(Task::Question), &jsonl), "task: expected Caption, as coco asks, found Question");
    let split = jsonl.clone().split(Some("val".to_owned()));
    assert_eq!(error("jsonl", None, &split), "split \"val\": a file of this set holds no parts to choose from");
    let none = Source::default();
    assert_eq!(error("jsonl", None, &none), "files: expected FILE.jsonl, found 0 files");
    assert_eq!(error("imagenet", None, &none), "media: expected the folder of the classes' folders, found none");
    let three = source(&["own.jsonl", "own.jsonl", "own.jsonl"], "media");
    assert_eq!(error("imagenet", None, &three), "files: expected no file, or NAMES.txt, or NAMES.json, found 3 files");
    let expected = "QUESTIONS.json ANNOTATIONS.json";
    let one = source(&["vqav2_questions.json"], "");
    assert_eq!(error("vqav2", None, &one), format!("files: expected {expected}, found 1 file"));
    let place = fixture("none.json").display().to_string();
    let none = error("coco", None, &source(&["none.json"], ""));
    assert_eq!(none, format!("{place}: No such file or directory (os error 2)"));
    let names = "openflamingo, idefics, idefics-instruct, otter, mmgpt, med-flamingo, flamingo-mini, mllama, mllama-instruct, demo";
    let expected = format!("template: expected {names} or a file, found \"flamingo\"");
    assert_eq!(Template::open("flamingo", Kind::Caption).unwrap_err().to_string(), expected);
}

#[test]
fn files_and_lines_have_a_largest_size() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let source = Source::new(vec![file.clone()]);
    let error = |name: &str| Benchmark::open(name, None, &source).unwrap_err().to_string();
    let place = file.display();
    fs::write(&file, format!("\n{{\"image\": \"{}\"}}", "a".repeat(1 << 20))).unwrap();
    assert_eq!(error("jsonl"), format!("{place}: line 2: bytes: 1048577 is over the limit of 1048576"));
    // A hole, not bytes on the disk.
    fs::File::create(&file).unwrap().set_len((2 << 30) + 1).unwrap();
    assert_eq!(error("coco"), format!("{place}: bytes: 2147483649 is over the limit of 2147483648"));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(error("coco"), format!("{place}: expected a file, found a folder"));
}

#[test]
fn no_damage_to_a_file_gets_past_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let media = folder.path().join("media");
    fs::create_dir(&media).unwrap();
    let sets: [(&str, &[&str]); 10] = [
        ("coco", &["dataset_coco.json"]),
        ("flickr30k", &["dataset_flickr30k.json"]),
        ("vqav2", &["vqav2_questions.json", "vqav2_annotations.json"]),
        ("textvqa", &["textvqa.json"]),
        ("vizwiz", &["vizwiz.json"]),
        ("hateful-memes", &["memes.jsonl"]),
        ("msvd-qa", &["msvd_qa.json", "msvd_mapping.txt"]),
        ("vatex", &["vatex.json"]),
        ("jsonl", &["own.jsonl"]),
        ("jsonl", &["own_choices.jsonl"]),
    ];
    for (name, files) in sets {
        for damaged in 0..files.len() {
            let mut paths: Vec<PathBuf> = files.iter().map(|file| fixture(file)).collect();
            let bytes = fs::read(&paths[damaged]).unwrap();
            let file = folder.path().join("damaged");
            paths[damaged] = file.clone();
            let read = |bytes: &[u8]| {
                fs::write(&file, bytes).unwrap();
                let source = Source::new(paths.clone()).media(Some(media.clone()));
                let read = Benchmark::open(name, None, &source);
                let error = read.as_ref().err().map(Error::to_string).unwrap_or_default();
                assert!(!error.contains('\n') && error.len() < 700, "{name}: {error}");
                assert!(read.is_ok() || paths.iter().any(|path| error.starts_with(path.to_str().unwrap())), "{error}");
                // Writing over a file waits for the disk, which writing a new one does not.
                fs::remove_file(&file).unwrap();
                read.is_ok()
            };
            assert!(read(&bytes));
            let whole = files[damaged].ends_with(".json");
            for at in 0..bytes.len() {
                // A value that lacks its end is none; of lines, all may be there.
                assert!(!(read(&bytes[..at]) && whole && at < bytes.trim_ascii_end().len()), "{name}: cut at {at}");
                for byte in [b'{', b'"', b'0', 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[at] = byte;
                    read(&bytes);
                }
            }
        }
    }
}

/// An example whose image is as wide as its number.
fn numbered(number: u32, question: &str, answer: &str) -> Example {
    let image = Image::from_rgb(number, 1, vec![0; 3 * number as usize]).unwrap();
    let medium = Medium::Drawn(Arc::new(image));
    Example::new(number.to_string(), medium, question.to_owned(), vec![answer.to_owned()])
}

fn load(prompt: &mut Prompt, medium: &Medium) -> Result<(), Error> {
    let Medium::Drawn(image) = medium else { panic!("{medium:?}") };
    prompt.image(Image::clone(image))?;
    Ok(())
}

/// A prompt as text, and the widths of its images.
fn told(prompt: &Prompt) -> (String, Vec<u64>) {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Image(_) | Part::Video(_) => "<image>".to_owned(),
        other => panic!("{other:?} is not known here"),
    };
    let images = prompt.media().map(|frames| frames[0].width().into()).collect();
    (prompt.parts().iter().map(part).collect(), images)
}

#[test]
fn prompts_are_those_of_open_flamingos_own_evaluation() {
    let golden: Value = serde_json::from_str(&fs::read_to_string(fixture("prompts.json")).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let kinds = [
        ("caption", Kind::Caption),
        ("question", Kind::Question),
        ("classify", Kind::Classify),
        ("memes", Kind::Memes),
    ];
    for case in golden["cases"].as_array().unwrap() {
        let (name, kind) = *kinds.iter().find(|(name, _)| case["kind"] == *name).unwrap();
        let examples: Vec<Example> = (1..)
            .zip(golden[name].as_array().unwrap())
            .map(|(number, example)| numbered(number, &text(&example["question"]), &text(&example["answer"])))
            .collect();
        let (queries, support) = examples.split_last().unwrap();
        let slips = matches!(kind, Kind::Classify | Kind::Memes);
        let (count, shots) = match case["shots"].as_u64().unwrap() {
            0 if slips => (2, Shots::FirstImage),
            0 => (2, Shots::TextOnly),
            count => (count as usize, Shots::Whole),
        };
        let support: Vec<&Example> = support[..count].iter().collect();
        let template = Template::open("openflamingo", kind).unwrap();
        let prompt = template.prompt(&support, queries, shots, &mut load).unwrap();
        let images = case["pictures"].as_array().unwrap().iter().map(|image| image.as_u64().unwrap() + 1);
        assert_eq!(told(&prompt), (text(&case["text"]), images.collect()), "{case}");
        assert_eq!((template.choice("hen"), template.stop()), ("hen".to_owned(), &[] as &[String]));
        if shots == Shots::FirstImage {
            let prompt = template.prompt(&support, queries, Shots::TextOnly, &mut load).unwrap();
            assert_eq!(told(&prompt), (text(&case["text"]), vec![5]), "without the slip");
        }
    }
}

#[test]
fn other_templates_write_what_they_say() {
    let told = |name: &str, kind, shots| {
        let (support, queries) = (numbered(1, "What {is} it?", "a hen"), numbered(2, "How many?", "1"));
        let prompt = Template::open(name, kind).unwrap().prompt(&[&support], &queries, shots, &mut load).unwrap();
        // No two texts stand side by side.
        assert!(!prompt.parts().windows(2).any(|two| matches!(two, [Part::Text(_), Part::Text(_)])), "{name}");
        told(&prompt).0
    };
    assert_eq!(
        told("idefics", Kind::Question, Shots::Whole),
        "Instruction: provide an answer to the question. Use the image to answer.\n\
         <image>Question: What {is} it? Answer: a hen\n<image>Question: How many? Answer:"
    );
    assert_eq!(
        told("idefics", Kind::Caption, Shots::TextOnly),
        "Instruction: provide a short caption of the image.\nCaption: a hen\n<image>Caption:"
    );
    assert_eq!(
        told("idefics-instruct", Kind::Memes, Shots::Whole),
        "User: The text \"What {is} it?\" is written on this image. Is it hateful? Answer yes or no.<image>\
         <end_of_utterance>\nAssistant: a hen<end_of_utterance>\nUser: The text \"How many?\" is written on this image. \
         Is it hateful? Answer yes or no.<image><end_of_utterance>\nAssistant:"
    );

    let sheets = Sheet::all().unwrap();
    let episode = Episode::draw(&mut Random::new(1), &sheets[0], 3, 5);
    let expected = episode.prompt().unwrap();
    let names = episode.support.iter().chain([&episode.query]).map(|(_, way)| &episode.names[*way]);
    let drawn = |(image, name): (&Image, &String)| {
        Example::new("1".to_owned(), Medium::Drawn(Arc::new(image.clone())), String::new(), vec![name.clone()])
    };
    let examples: Vec<Example> = expected.media().map(|frames| &frames[0]).zip(names).map(drawn).collect();
    let support: Vec<&Example> = examples[..5].iter().collect();
    let demo = Template::open("demo", Kind::Classify).unwrap();
    let prompt = demo.prompt(&support, &examples[5], Shots::Whole, &mut load).unwrap();
    assert_eq!(self::told(&prompt), self::told(&expected));
    assert_eq!((demo.choice("hen"), demo.stop()), ("hen.".to_owned(), &[".".to_owned()][..]));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template.json");
    let template = r#"{"begin": "B {x} ", "support": "{{{answer}}} {image}{question}", "query": "{question}{image}}}?",
                   "between": "|", "choice": "-{answer}", "stop": ["a", "b"], "no_repeat_ngram_size": 4}"#;
    fs::write(&file, template).unwrap();
    assert_eq!(
        told(file.to_str().unwrap(), Kind::Caption, Shots::Whole),
        "B {x} {a hen} <image>What {is} it?|How many?<image>}?"
    );
    let template = Template::read(&file).unwrap();
    assert_eq!(template.no_repeat_ngram_size(), 4);
    assert_eq!((template.choice("hen"), template.stop()), ("-hen".to_owned(), &["a".to_owned(), "b".to_owned()][..]));
}

#[test]
fn what_is_wrong_with_a_template_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template.json");
    let braces = "expected {image}, {question}, {answer}, or {{ or }} for a brace, found";
    let cases = [
        ("[]", "template: expected an object, found an array".to_owned()),
        ("{}", "support: expected a template, found none".to_owned()),
        (r#"{"support": 1}"#, "support: expected a string, found a number".to_owned()),
        (r#"{"support": "{answer}"}"#, "support: expected one {image}, found 0".to_owned()),
        (r#"{"support": "{image}{image}{answer}"}"#, "support: expected one {image}, found 2".to_owned()),
        (r#"{"support": "{image}"}"#, "support: expected one {answer}, found 0".to_owned()),
        (r#"{"support": "{image}{caption}"}"#, format!("support: {braces} {{caption}}")),
        (r#"{"support": "{image"}"#, format!("support: {braces} {{image")),
        (r#"{"support": "a } b"}"#, format!("support: {braces} }} b")),
        (
            r#"{"support": "{image}{answer}", "query": "{image}{answer}"}"#,
            "query: expected no {answer}, found 1".to_owned(),
        ),
        (
            r#"{"support": "{image}{answer}", "query": "{image}", "choice": "x"}"#,
            "choice: expected one {answer}, found 0".to_owned(),
        ),
        (
            r#"{"support": "{image}{answer}", "query": "{image}", "stop": "x"}"#,
            "stop: expected an array of strings, found a string".to_owned(),
        ),
        (
            r#"{"support": "{image}{answer}", "query": "{image}", "ask": "x"}"#,
            "key: expected begin, support, between, query, choice, stop, no_repeat_ngram_size, found \"ask\""
                .to_owned(),
        ),
        (
            r#"{"support": "{image}{answer}", "query": "{image}", "no_repeat_ngram_size": -1}"#,
            "no_repeat_ngram_size: expected a whole number, found -1".to_owned(),
        ),
    ];
    for (text, expected) in cases {
        fs::write(&file, text).unwrap();
        let error = Template::read(&file).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {expected}", file.display()), "{text}");
    }
}

#[test]
fn answers_are_cut_and_written_as_the_published_numbers_were() {
    let named = |name: &str| PUBLISHED.into_iter().find(|benchmark| benchmark.name == name).unwrap();
    let told: Vec<_> = PUBLISHED.iter().map(|benchmark| (benchmark.name, benchmark.max_new_tokens)).collect();
    let expected = [
        ("coco", 20),
        ("flickr30k", 20),
        ("vqav2", 5),
        ("ok-vqa", 5),
        ("textvqa", 10),
        ("vizwiz", 5),
        ("hateful-memes", 0),
        ("imagenet", 0),
        ("msvd-qa", 5),
        ("msrvtt-qa", 5),
        ("vatex", 20),
    ];
    assert_eq!(told, expected);
    assert_eq!(named("coco").metric.answer("a \"red\" fox\nOutput: a"), "a red fox\n");
    assert_eq!(named("ok-vqa").metric.answer("two, or three\nQuestion: a"), "two");
    let generation = |template: &str| named("textvqa").generation(&Template::named(template, Kind::Question).unwrap());
    let idefics = generation("idefics");
    assert_eq!((idefics.max_new_tokens, idefics.num_beams, idefics.length_penalty), (10, 3, 0.0));
    assert_eq!((&idefics.stop[..], idefics.no_repeat_ngram_size), (&["\n".to_owned()][..], 0));
    assert_eq!(generation("otter").no_repeat_ngram_size, 3);
}

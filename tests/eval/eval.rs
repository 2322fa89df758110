//! `flamant eval`, each kind of set: every answer is what the model says alone to the prompt that the record tells of,
//! and every score is counted again from the records.

use std::collections::{HashMap, HashSet};
use std::fs;

use crate::support::evaluation::{Folder, Item, Record, Words, check, check_choice, point};
use crate::support::reference::Case;
use flamant::demo::Random;
use flamant::eval::data::Medium;
use flamant::eval::metrics::{answers, cider, ptb, roc_auc, vqa};
use flamant::eval::symbols;
use flamant::{Flamingo, Options, Prompt};
use serde_json::json;

const CAPTIONS: [&str; 9] =
    ["a red fox", "two dogs run", "a cat", "a man on a horse", "a boat", "a red car", "a house", "rain", "a fox"];

/// Examples with an image each, drawn in the folder.
fn drawn(folder: &Folder, prefix: &str, count: usize, more: impl Fn(usize, &mut Item)) -> Vec<Item> {
    let item = |number: usize| {
        let name = format!("media/{prefix}{number}.png");
        folder.image(&name);
        let (id, images) = (format!("{prefix}{number}"), vec![folder.path(name)]);
        let mut item = Item { id, images, ..Item::default() };
        more(number, &mut item);
        item
    };
    (0..count).map(item).collect()
}

/// Our own lines.
fn lines(items: &[Item]) -> String {
    let line = |item: &Item| {
        let image = format!("media/{}", item.images[0].file_name().unwrap().to_str().unwrap());
        let mut line = json!({"id": item.id, "image": image, "answers": item.answers});
        if !item.question.is_empty() {
            line["question"] = json!(item.question);
        }
        if !item.choices.is_empty() {
            line["choices"] = json!(item.choices);
        }
        if !item.group.is_empty() {
            line["group"] = json!(item.group);
        }
        line.to_string()
    };
    items.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The mean worth of the answers at a point is its score, and all of them are counted.
fn check_score(folder: &Folder, series: &str, shots: usize, worth: impl Fn(&Record) -> f64) {
    let records = folder.records();
    let worths: Vec<f64> =
        records.iter().filter(|record| (&*record.series, record.shots) == (series, shots)).map(worth).collect();
    let results = folder.results();
    let point = point(&results, series, shots);
    assert_eq!((&point["examples"], &point["errors"]), (&json!(worths.len()), &json!(0)));
    let expected = 100.0 * worths.iter().sum::<f64>() / worths.len() as f64;
    let number = |key: &str| point[key].as_f64().unwrap();
    assert!((number("score") - expected).abs() < 1e-9, "{point}: {expected}");
    assert!(number("low") <= number("score") && number("score") <= number("high"), "{point}");
}

fn shown_by_question(records: &[Record]) -> HashMap<(&str, usize, &str), &[String]> {
    records.iter().map(|record| (record.question(), &record.support[..])).collect()
}

/// OpenFlamingo's prompts of captions.
const OPEN_FLAMINGO_CAPTIONS: Words = Words {
    begin: "",
    support: |item| ["".into(), format!("Output:{}<|endofchunk|>\n", item.told())],
    queries: |_| ["".into(), "Output:".into()],
    stop: &[],
    max_new_tokens: 20,
};

#[test]
fn captions() {
    let folder = Folder::new();
    let caption = |offset: usize| {
        move |number: usize, item: &mut Item| {
            let captions = [0, 3].map(|more| CAPTIONS[(number + offset + more) % CAPTIONS.len()].to_owned());
            item.answers = captions.into();
        }
    };
    let (queries, support) = (drawn(&folder, "query", 5, caption(0)), drawn(&folder, "support", 6, caption(4)));
    write_captions(&folder, &queries, &support);
    let case = Case::open("open_flamingo-mpt");
    let model = case.model.to_str().unwrap();
    let set = ["--benchmark", "flickr30k", "--data", "dataset.json", "--media", "media"];
    let told =
        folder.run(&[&[model, "--shots", "3,0,1,3", "--selection", "random,fixed,rices,random"], &set[..]].concat());
    assert!(told.starts_with("flamant: 45 answers in"), "{told}");
    let records = folder.records();
    assert_eq!(records.len(), 5 * 3 * 3);
    check(&records, &queries, &support, &OPEN_FLAMINGO_CAPTIONS, &mut case.flamingo(&Options::default()));

    let shown_of = shown_by_question(&records);
    for item in &queries {
        for series in ["random", "fixed"] {
            let of = |shots| shown_of[&(series, shots, &*item.id)];
            assert!(of(0) == &of(3)[..2] && of(1) == &of(3)[..1], "more shots add to fewer");
        }
        let similar = |shots| shown_of[&("RICES", shots, &*item.id)];
        assert!(similar(0) == &similar(3)[1..] && similar(1) == &similar(3)[2..], "the most similar last");
    }
    let different = |series: &'static str| {
        let lists: HashSet<_> = queries.iter().map(|item| shown_of[&(series, 3, &*item.id)]).collect();
        lists.len()
    };
    assert!(different("random") > 1 && different("fixed") == 1 && different("RICES") > 1);

    let results = folder.results();
    for sample in results["samples"].as_array().unwrap() {
        let parts = sample["prompt"].as_array().unwrap().iter();
        let images = parts.filter(|part| part.get("image").is_some()).count() as u64;
        assert_eq!(images, sample["shots"].as_u64().unwrap() + 1, "the asked one's, and those of all that is shown");
    }
    assert_eq!(results["metric"], json!({"name": "CIDEr", "unit": "", "best": null}));
    assert_eq!((&results["settings"]["template"], &results["settings"]["beams"]), (&json!("openflamingo"), &json!(3)));
    for series in ["random", "fixed", "RICES"] {
        for shots in [0, 1, 3] {
            let score = check_captions(&folder, &queries, series, shots);
            assert!(score < 100.0, "the model says what nobody said");
        }
    }

    // What it says does not depend on what people say of what is asked: now they say the same.
    let of_random = records.iter().filter(|record| (&*record.series, record.shots) == ("random", 3));
    let said: HashMap<&str, &Record> = of_random.map(|record| (&*record.id, record)).collect();
    let echo = |item: &Item| {
        let text = answers::caption(said[&*item.id].text.as_ref().unwrap());
        Item { answers: vec![text, item.answers[0].clone()], ..item.clone() }
    };
    let queries: Vec<Item> = queries.iter().map(echo).collect();
    write_captions(&folder, &queries, &support);
    fs::remove_dir_all(folder.path("out")).unwrap();
    folder.run(&[&[model, "--shots", "3"], &set[..]].concat());
    assert!(folder.records().iter().all(|record| record.text == said[&*record.id].text));
    assert!(check_captions(&folder, &queries, "random", 3) > 100.0);
    let page = folder.read("out/index.html");
    assert!(["OpenFlamingo 3B", "Flamingo 80B", "IDEFICS 9B"].iter().all(|published| page.contains(published)));
}

/// Karpathy's layout.
fn write_captions(folder: &Folder, queries: &[Item], support: &[Item]) {
    let image = |item: &Item, split: &str| {
        let sentences: Vec<_> = item.answers.iter().map(|caption| json!({"raw": format!(" {caption} ")})).collect();
        json!({"filename": format!("{}.png", item.id), "split": split, "sentences": sentences})
    };
    let queries = queries.iter().map(|item| image(item, "test"));
    let images: Vec<_> = queries.chain(support.iter().map(|item| image(item, "train"))).collect();
    folder.write("dataset.json", json!({"images": images}).to_string());
}

/// The score at a point, which is what the records' captions are worth.
fn check_captions(folder: &Folder, queries: &[Item], series: &str, shots: usize) -> f64 {
    let records = folder.records();
    let of = records.iter().filter(|record| (&*record.series, record.shots) == (series, shots));
    let texts: HashMap<&str, &str> = of.map(|record| (&*record.id, record.text.as_deref().unwrap())).collect();
    let example = |item: &Item| {
        let references = item.answers.iter().map(|caption| ptb::tokens(caption)).collect();
        cider::Example::new(ptb::tokens(&answers::caption(texts[&*item.id])), references)
    };
    let expected = 100.0 * cider::cider(&queries.iter().map(example).collect::<Vec<_>>()).unwrap().score;
    let score = point(&folder.results(), series, shots)["score"].as_f64().unwrap();
    assert!((score - expected).abs() < 1e-9, "{series} {shots}: {score} {expected}");
    score
}

#[test]
fn questions() {
    let folder = Folder::new();
    const ANSWERS: [&str; 4] = ["red", "two", "a dog", "yes"];
    // Two questions about each image: neither shows the other.
    let mut items = Vec::new();
    for image in 0..4_usize {
        let name = format!("coco/val2014/COCO_val2014_{image:012}.jpg");
        folder.image(&name);
        items.extend((0..2).map(|more| Item {
            id: (10 * image + more).to_string(),
            images: vec![folder.path(&name)],
            question: ["What is it?", "How many?"][more].to_owned(),
            answers: (0..10).map(|person| ANSWERS[(image + more + person / 7) % 4].to_owned()).collect(),
            ..Item::default()
        }));
    }
    let number = |item: &Item| item.id.parse::<u64>().unwrap();
    let question =
        |item: &Item| json!({"question_id": number(item), "image_id": number(item) / 10, "question": item.question});
    let annotation = |item: &Item| {
        let answers: Vec<_> = item.answers.iter().map(|answer| json!({"answer": answer})).collect();
        json!({"question_id": number(item), "answers": answers})
    };
    let questions: Vec<_> = items.iter().map(question).collect();
    let annotations: Vec<_> = items.iter().map(annotation).collect();
    folder.write("questions.json", json!({"data_subtype": "val2014", "questions": questions}).to_string());
    folder.write("annotations.json", json!({"annotations": annotations}).to_string());
    let words = Words {
        begin: "Instruction: provide an answer to the question. Use the image to answer.\n",
        support: |item| ["".into(), format!("Question: {} Answer: {}\n", item.question, item.told())],
        queries: |item| ["".into(), format!("Question: {} Answer:", item.question)],
        stop: &["\n"],
        max_new_tokens: 5,
    };
    let case = Case::open("idefics-base");
    let model = case.model.to_str().unwrap();
    let set = ["--benchmark", "vqav2", "--data", "questions.json", "annotations.json", "--media", "coco"];
    folder.run(&[&[model, "--shots", "0,2", "--selection", "random,rices"], &set[..]].concat());
    let records = folder.records();
    check(&records, &items, &items, &words, &mut case.flamingo(&Options::default()));
    let people: HashMap<&str, &Item> = items.iter().map(|item| (&*item.id, item)).collect();
    for series in ["random", "RICES"] {
        for shots in [0, 2] {
            check_score(&folder, series, shots, |record| {
                let answer = answers::short_answer(record.text.as_ref().unwrap());
                vqa::accuracy(answer, people[&*record.id].answers.iter().map(String::as_str))
            });
        }
    }
    let results = folder.results();
    assert_eq!(results["settings"]["template"], "idefics");
    assert_eq!(results["samples"].as_array().unwrap().len(), 2 * 2 * 3);
}

#[test]
fn memes() {
    let folder = Folder::new();
    let memes = drawn(&folder, "meme", 5, |number, item| {
        item.question = format!("text {number}");
        item.choices = ["no", "yes"].map(str::to_owned).into();
        item.answers = vec![item.choices[number % 2].clone()];
    });
    let line = |item: &Item| {
        let label = u8::from(item.told() == "yes");
        json!({"id": item.id, "img": format!("img/{}.png", item.id), "label": label, "text": item.question}).to_string()
    };
    folder.write("memes.jsonl", memes.iter().map(line).collect::<Vec<_>>().join("\n"));
    let words = Words {
        begin: "",
        support: |item| {
            let queries = format!("is an image with: '{}' written on it. Is it hateful? Answer:", item.question);
            ["".into(), format!("{queries}{}<|endofchunk|>", item.told())]
        },
        queries: |item| {
            ["".into(), format!("is an image with: '{}' written on it. Is it hateful? Answer:", item.question)]
        },
        stop: &[],
        max_new_tokens: 0,
    };
    let case = Case::open("open_flamingo-mpt");
    let (model, mut flamingo) = (case.model.to_str().unwrap(), case.flamingo(&Options::default()));
    let set = [model, "--benchmark", "hateful-memes", "--data", "memes.jsonl", "--media", "media", "--shots", "0,2"];
    folder.run(&set);
    let records = folder.records();
    check(&records, &memes, &memes, &words, &mut flamingo);
    let results = folder.results();
    assert_eq!(results["series"][0]["chance"], 50.0);
    let by_id: HashMap<&str, &Item> = memes.iter().map(|item| (&*item.id, item)).collect();
    for shots in [0, 2] {
        let of = records.iter().filter(|record| record.shots == shots);
        let (scores, labels): (Vec<f64>, Vec<bool>) =
            of.map(|record| (record.choice.as_ref().unwrap().last, by_id[&*record.id].told() == "yes")).unzip();
        let (area, score) = (roc_auc::roc_auc(&scores, &labels).unwrap(), &point(&results, "random", shots)["score"]);
        assert!((score.as_f64().unwrap() - 100.0 * area).abs() < 1e-9);
    }

    // Three examples have six orders: all of them together are the same, in whatever order they come.
    let averaged = Folder::new();
    averaged.write("memes.jsonl", folder.read("memes.jsonl"));
    fs::rename(folder.path("media"), averaged.path("media")).unwrap();
    let memes: Vec<Item> = memes
        .into_iter()
        .map(|item| Item { images: vec![averaged.path(format!("media/{}.png", item.id))], ..item })
        .collect();
    let by_id: HashMap<&str, &Item> = memes.iter().map(|item| (&*item.id, item)).collect();
    let slip = ["--shots", "0,3", "--permutations", "6", "--reference-slip"];
    averaged.run(&[&set[..7], &slip].concat());
    let settings = averaged.results()["settings"]["others"].clone();
    assert_eq!((&settings["orders"], &settings["reference slip"]), (&json!("6"), &json!("true")));
    for record in averaged.records() {
        let support: Vec<&Item> = record.support.iter().map(|id| by_id[&**id]).collect();
        let item = by_id[&*record.id];
        let orders = orders(support.len());
        let mut means = vec![0.0; 2];
        for order in &orders {
            let ordered: Vec<&Item> = order.iter().map(|&place| support[place]).collect();
            let seen = if record.shots == 0 { ordered[0] } else { item };
            let found =
                flamingo.classify(&words.prompt(&ordered, record.shots > 0, item, seen), &item.choices).unwrap();
            means.iter_mut().zip(found.choices).for_each(|(mean, choice)| *mean += choice.mean / orders.len() as f64);
        }
        check_choice(&record, &item.choices, &means);
    }
}

/// All orders of some things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let put = |order: Vec<usize>| (0..count).map(move |place| [&order[..place], &[last], &order[place..]].concat());
    orders(last).into_iter().flat_map(put).collect()
}

#[test]
fn classes_in_folders() {
    let folder = Folder::new();
    let mut items = Vec::new();
    let choices = ["great tench", "goldfish", "shark"].map(str::to_owned);
    for (class, name) in ["great_tench", "goldfish", "shark"].iter().zip(&choices) {
        for number in 0..3 {
            let id = format!("{class}/{number}.png");
            folder.image(&format!("val/{id}"));
            let images = vec![folder.path(format!("val/{id}"))];
            // In order of the folders' names.
            let choices = [&choices[1], &choices[0], &choices[2]].map(Clone::clone).into();
            items.push(Item {
                id,
                images,
                question: String::new(),
                answers: vec![name.clone()],
                choices,
                ..Item::default()
            });
        }
    }
    let words = Words {
        begin: "",
        support: |item| {
            let turn = format!("<end_of_utterance>\nAssistant: {}<end_of_utterance>\n", item.told());
            ["User: Name what this image shows.".into(), turn]
        },
        queries: |_| ["User: Name what this image shows.".into(), "<end_of_utterance>\nAssistant:".into()],
        stop: &[],
        max_new_tokens: 0,
    };
    let case = Case::open("idefics-instruct");
    let set = [case.model.to_str().unwrap(), "--benchmark", "imagenet", "--media", "val", "--queries", "7"];
    folder.run(&[&set[..], &["--shots", "0,2", "--selection", "rices,fixed", "--samples", "2"]].concat());
    let records = folder.records();
    assert_eq!(records.len(), 7 * 2 * 2);
    check(&records, &items, &items, &words, &mut case.flamingo(&Options::default()));
    let of_class: HashMap<&str, &str> = items.iter().map(|item| (&*item.id, item.told())).collect();
    for (series, shots) in [("RICES", 0), ("RICES", 2), ("fixed", 0), ("fixed", 2)] {
        check_score(&folder, series, shots, |record| {
            f64::from(record.choice.as_ref().unwrap().name == of_class[&*record.id])
        });
    }
    let results = folder.results();
    let chance = results["series"][0]["chance"].as_f64().unwrap();
    assert!((chance - 100.0 / 3.0).abs() < 1e-9);
    assert_eq!(results["samples"].as_array().unwrap().len(), 2 * 2 * 2);
}

#[test]
fn own_lines_with_choices_groups_and_a_form() {
    let folder = Folder::new();
    let items = drawn(&folder, "own", 8, |number, item| {
        item.id = format!("\"{number}\" <b>\u{e9}\n{}", number % 2);
        item.group = ["drei", "deux"][number % 2].to_owned();
        item.question = format!("is it {number}?");
        item.choices =
            [&["ja", "nein", "gewiss"][..], &["oui", "non"]][number % 2].iter().map(|&name| name.into()).collect();
        // Any one of its answers is right.
        item.answers = vec![item.choices[number / 2 % 2].clone()];
        item.answers.extend(item.choices.get(2).cloned());
    });
    folder.write("own.jsonl", lines(&items));
    folder.write(
        "form.json",
        json!({"begin": "{}", "support": "Q: {question} {image}A: {answer}", "query": "Q: {question} {image}A:",
            "between": "; ", "choice": " {answer}!"})
        .to_string(),
    );
    let words = Words {
        begin: "{}",
        support: |item| [format!("Q: {} ", item.question), format!("A: {}; ", item.told())],
        queries: |item| [format!("Q: {} ", item.question), "A:".into()],
        stop: &[],
        max_new_tokens: 0,
    };
    let case = Case::open("open_flamingo-mpt");
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl", "--template", "form.json"];
    folder.run(&[&set[..], &["--shots", "0,3", "--selection", "random,rices"]].concat());
    let mut records = folder.records();
    for record in &mut records {
        let group = |id: &str| &items.iter().find(|item| item.id == id).unwrap().group;
        assert!(record.support.iter().all(|id| group(id) == group(&record.id)), "{record:?}");
        // As the form writes the names.
        let choice = record.choice.as_mut().unwrap();
        choice.name = format!(" {}!", choice.name);
        choice.odds.iter_mut().for_each(|(name, _)| *name = format!(" {name}!"));
    }
    let mut weighed = items.clone();
    weighed.iter_mut().flat_map(|item| &mut item.choices).for_each(|name| *name = format!(" {name}!"));
    check(&records, &weighed, &items, &words, &mut case.flamingo(&Options::default()));
    let right: HashMap<&str, &[String]> = items.iter().map(|item| (&*item.id, &item.answers[..])).collect();
    for (series, shots) in [("random", 0), ("random", 3), ("RICES", 0), ("RICES", 3)] {
        check_score(&folder, series, shots, |record| {
            f64::from(right[&*record.id].contains(&record.choice.as_ref().unwrap().name))
        });
    }
    let chance = folder.results()["series"][0]["chance"].as_f64().unwrap();
    assert!((chance - (200.0 / 3.0 + 50.0) / 2.0).abs() < 1e-9, "{chance}");
}

#[test]
fn a_task_that_is_named_is_asked_even_where_there_are_choices() {
    let folder = Folder::new();
    let items = drawn(&folder, "own", 5, |number, item| {
        item.choices = ["a fox", "a dog"].map(str::to_owned).into();
        item.answers = vec![item.choices[number % 2].clone()];
    });
    folder.write("own.jsonl", lines(&items));
    let items: Vec<Item> = items.into_iter().map(|item| Item { choices: Vec::new(), ..item }).collect();
    let case = Case::open("open_flamingo-mpt");
    let set = [case.model.to_str().unwrap(), "--benchmark", "jsonl", "--data", "own.jsonl", "--task", "caption"];
    folder.run(&[&set[..], &["--shots", "2"]].concat());
    check(&folder.records(), &items, &items, &OPEN_FLAMINGO_CAPTIONS, &mut case.flamingo(&Options::default()));
}

#[test]
fn videos() {
    let folder = Folder::new();
    let mut items: Vec<Item> = Vec::new();
    for video in 0..4_usize {
        let frames = (0..3).map(|frame| {
            let name = format!("videos/vid{video}/{frame}.png");
            folder.image(&name);
            folder.path(name)
        });
        let (question, answers) = (format!("who is {video}?"), vec![["someone", "a dog"][video % 2].to_owned()]);
        let id = video.to_string();
        items.push(Item { id, images: frames.collect(), question, answers, ..Item::default() });
    }
    let question =
        |item: &Item| json!({"id": item.id, "video_id": item.id, "question": item.question, "answer": item.answers[0]});
    folder.write("qa.json", json!(items.iter().map(question).collect::<Vec<_>>()).to_string());
    let words = Words {
        begin: "",
        support: |item| {
            let queries = format!("Question:{} Short answer:", item.question);
            ["".into(), format!("{queries}{}<|endofchunk|>\n", item.told())]
        },
        queries: |item| ["".into(), format!("Question:{} Short answer:", item.question)],
        stop: &[],
        max_new_tokens: 5,
    };
    let case = Case::open("open_flamingo-mpt-video");
    let set = [case.model.to_str().unwrap(), "--benchmark", "msvd-qa", "--data", "qa.json", "--media", "videos"];
    folder.run(&[&set[..], &["--shots", "0,2", "--selection", "random,rices"]].concat());
    let records = folder.records();
    check(&records, &items, &items, &words, &mut case.flamingo(&Options::default()));
    for (series, shots) in [("random", 0), ("RICES", 2)] {
        check_score(&folder, series, shots, |record| {
            let item = items.iter().find(|item| item.id == record.id).unwrap();
            f64::from(answers::short_answer(record.text.as_ref().unwrap()) == item.told())
        });
    }
    let results = folder.results();
    let whole = results["samples"].as_array().unwrap().iter().find(|sample| sample["shots"] == 2).unwrap();
    let frames: Vec<_> = whole["prompt"].as_array().unwrap().iter().filter_map(|part| part.get("video")).collect();
    assert!(frames.len() == 3 && frames.iter().all(|video| video["frames"] == 3), "{whole}");
}

#[test]
fn the_model_in_the_box() {
    let folder = Folder::new();
    folder.run(&["--demo", "--queries", "8", "--shots", "0,2", "--seed", "7"]);
    let records = folder.records();
    assert_eq!(records.len(), 3 * 2 * 2 * 8);
    let mut flamingo = Flamingo::demo(&Options::default()).unwrap();
    let mut random = Random::new(7);
    for ways in [2, 5, 8] {
        let (support, queries) = symbols::sets(ways, 8, &mut random).unwrap();
        let find = |set: &'_ flamant::eval::data::Dataset, id: &str| {
            set.examples.iter().find(|example| example.id == id).unwrap().clone()
        };
        for selection in ["random", "RICES"] {
            let series = format!("{ways} ways, {selection}");
            for record in records.iter().filter(|record| record.series == series) {
                let mut prompt = Prompt::new();
                let add = |prompt: &mut Prompt, medium: &Medium| {
                    let Medium::Drawn(image) = medium else { panic!("drawn") };
                    prompt.image((**image).clone()).unwrap();
                };
                for example in record.support.iter().map(|id| find(&support, id)) {
                    if record.shots > 0 {
                        add(&mut prompt, &example.medium);
                    }
                    prompt.text(format!("{}.", example.answers[0])).unwrap();
                }
                let example = find(&queries, &record.id);
                add(&mut prompt, &example.medium);
                let names = example.choices.unwrap();
                let weighed: Vec<String> = names.iter().map(|name| format!("{name}.")).collect();
                let found = flamingo.classify(&prompt, &weighed).unwrap();
                let means: Vec<f64> = found.choices.iter().map(|choice| choice.mean).collect();
                check_choice(record, &names, &means);
            }
            for shots in [0, 2] {
                check_score(&folder, &series, shots, |record| {
                    f64::from(record.choice.as_ref().unwrap().name == find(&queries, &record.id).answers[0])
                });
            }
        }
    }
}

//! What `generation_config.json` says is heeded: each of its end tokens ends an answer, no suppressed token comes.

use std::fs;
use std::path::Path;

use flamant::{Answer, Finish, Flamingo, Generation, Inspection, Options, Prompt, Sampling};
use serde_json::{Value, json};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
/// `</s>` and `.` of the model in the box.
const END: [u32; 2] = [2, 3];

/// A copy of the model in the box with this file, and these end tokens in its `config.json`.
fn model(generation: &Value, configured: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "preprocessor_config.json", "tokenizer.json"] {
        fs::copy(Path::new(DEMO).join(name), folder.path().join(name)).unwrap();
    }
    let config = fs::read(Path::new(DEMO).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["eos_token_id"] = configured.clone();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    fs::write(folder.path().join("generation_config.json"), generation.to_string()).unwrap();
    folder
}

fn prompt() -> Prompt {
    let mut prompt = Prompt::new();
    prompt.text("kep.mo.zu.ra.").unwrap();
    prompt
}

fn write_with(generation: &Value, options: &Generation) -> Answer {
    let folder = model(generation, &json!(END[0]));
    let mut flamingo = Flamingo::open(folder.path(), &Options::default()).unwrap();
    flamingo.generate(&prompt(), options, &mut |_| {}).unwrap()
}

/// Greedy, at random with three seeds, and a beam search.
fn ways() -> Vec<Generation> {
    let hot = |seed| Sampling::default().temperature(3.0).seed(seed);
    let mut ways: Vec<Generation> = [Sampling::default(), hot(1), hot(2), hot(3)]
        .map(|sampling| Generation::default().max_new_tokens(60).sampling(sampling))
        .into();
    ways.push(Generation::default().max_new_tokens(20).num_beams(3));
    ways
}

#[test]
fn each_end_token_ends_an_answer() {
    for way in ways().into_iter().take(4) {
        let free = write_with(&json!({}), &way.clone().ignore_eos(true));
        assert_eq!(free.finish, Finish::Length);
        let letters: std::collections::BTreeSet<u32> = free.ids.iter().copied().collect();
        for &letter in &letters {
            for (end, ends) in [(json!(letter), vec![letter]), (json!([END[0], letter]), vec![END[0], letter])] {
                let answer = write_with(&json!({"eos_token_id": end}), &way);
                let first = free.ids.iter().position(|id| ends.contains(id)).unwrap();
                assert_eq!((&answer.ids[..], answer.finish), (&free.ids[..=first], Finish::Stop), "{end}");
            }
        }
    }
}

#[test]
fn a_search_ends_beams_with_each_end_token() {
    let search = Generation::default().max_new_tokens(20).num_beams(3);
    let long = write_with(&json!({"eos_token_id": 0}), &search);
    assert_eq!((long.finish, long.ids.len()), (Finish::Length, 20));
    let likely = long.ids[0];
    let answers = [json!(likely), json!([likely])].map(|end| write_with(&json!({"eos_token_id": end}), &search));
    assert_eq!(answers[0].ids, answers[1].ids);
    assert!(!answers[0].ids[..answers[0].ids.len() - 1].contains(&likely), "{:?}", answers[0].ids);
    // Whatever comes first ends each beam.
    let letters: Vec<u32> = (3..19).collect();
    let short =
        write_with(&json!({"eos_token_id": letters, "suppress_tokens": (19..30).collect::<Vec<u32>>()}), &search);
    assert_eq!((short.finish, short.ids.len()), (Finish::Stop, 1), "{:?}", short.ids);
}

/// Of what several files say, `generation_config.json` is believed first, then `config.json`, then the tokenizer.
#[test]
fn files_have_an_order() {
    let greedy = Generation::default().max_new_tokens(60);
    let free = write_with(&json!({}), &greedy.clone().ignore_eos(true));
    let (first, second) = (free.ids[0], free.ids.iter().copied().find(|&id| id != free.ids[0]).unwrap());
    let table = [
        (json!({"eos_token_id": first}), json!(second), first),
        (json!({"eos_token_id": second}), json!(first), second),
        (json!({}), json!([second]), second),
        (json!({"eos_token_id": null}), json!(first), first),
    ];
    for (generation, config, expected) in table {
        let folder = model(&generation, &config);
        let mut flamingo = Flamingo::open(folder.path(), &Options::default()).unwrap();
        let answer = flamingo.generate(&prompt(), &greedy, &mut |_| {}).unwrap();
        assert_eq!((answer.ids.last(), answer.finish), (Some(&expected), Finish::Stop), "{generation} {config}");
    }
    let folder = model(&json!({}), &json!(null));
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": "."}"#).unwrap();
    let mut flamingo = Flamingo::open(folder.path(), &Options::default()).unwrap();
    let answer = flamingo.generate(&prompt(), &greedy, &mut |_| {}).unwrap();
    assert_eq!((answer.ids.last(), answer.finish), (Some(&END[1]), Finish::Stop));
}

#[test]
fn suppressed_tokens_never_come() {
    for way in ways() {
        let way = way.ignore_eos(true);
        let free = write_with(&json!({}), &way);
        let suppressed: Vec<u32> = free.ids.iter().take(3).copied().collect();
        let words: Vec<[u32; 1]> = suppressed.iter().map(|&token| [token]).collect();
        let ways_to_say = [
            json!({"suppress_tokens": suppressed}),
            json!({"bad_words_ids": words}),
            json!({"bad_words_ids": [[suppressed[0]], [31]], "suppress_tokens": suppressed}),
        ];
        let answers = ways_to_say.map(|said| write_with(&said, &way));
        for answer in &answers {
            assert!(!answer.ids.iter().any(|id| suppressed.contains(id)), "{suppressed:?} {:?}", answer.ids);
            assert_eq!(answer.ids, answers[0].ids, "{suppressed:?}");
        }
    }
}

/// The first greedy token is the likeliest of those that are left; its likelihood is that among all.
#[test]
fn suppression_leaves_the_other_tokens_as_they_are() {
    let mut flamingo = Flamingo::open(DEMO, &Options::default()).unwrap();
    let mut last = Vec::new();
    flamingo.score_with_logits(&prompt(), |_, logits| last = logits.to_vec()).unwrap();
    // Markers of images are never written.
    let mut tokens: Vec<u32> = (0..30).collect();
    tokens.sort_by(|&a, &b| last[b as usize].total_cmp(&last[a as usize]));
    let total: f64 = last.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
    for (place, &token) in tokens.iter().enumerate().take(8) {
        let said = json!({"suppress_tokens": tokens[..place]});
        let answer = write_with(&said, &Generation::default().max_new_tokens(1));
        assert_eq!(answer.ids, [token]);
        assert!((answer.logprobs[0] - (f64::from(last[token as usize]) - total)).abs() < 1e-5);
    }
}

/// As in transformers, a bad word that ends an answer still comes, and a suppressed end does not.
#[test]
fn an_end_may_be_suppressed_but_is_no_bad_word() {
    let options = Generation::default().max_new_tokens(40);
    let ends = write_with(&json!({"eos_token_id": END, "bad_words_ids": [[END[1]]]}), &options);
    assert_eq!((ends.finish, ends.ids.last()), (Finish::Stop, Some(&END[1])));
    let goes_on = write_with(&json!({"eos_token_id": END[1], "suppress_tokens": END}), &options);
    assert_eq!((goes_on.finish, goes_on.ids.len()), (Finish::Length, 40));
}

#[test]
fn what_is_not_applied_is_named() {
    let folder = model(
        &json!({
            "do_sample": true, "temperature": 0.6, "top_p": 0.9, "max_length": 4096, "no_repeat_ngram_size": 3,
            "min_length": 0, "typical_p": 1.0, "num_return_sequences": 1, "early_stopping": false, "use_cache": true,
            "begin_suppress_tokens": [5], "something_new": "x", "eos_token_id": [2, 9], "bad_words_ids": [[30], [4]],
        }),
        &json!(2),
    );
    let found = Inspection::of(folder.path()).unwrap().generation;
    assert_eq!((found.end_tokens, found.suppressed_tokens), (vec![2, 9], vec![4, 30]));
    let defaults = json!({
        "do_sample": true, "max_length": 4096, "no_repeat_ngram_size": 3, "temperature": 0.6, "top_p": 0.9,
    });
    assert_eq!(Value::Object(found.defaults), defaults);
    let unsupported = json!({"begin_suppress_tokens": [5], "something_new": "x"});
    assert_eq!(Value::Object(found.unsupported), unsupported);
}

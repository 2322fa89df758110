//! Choosing tokens and finding texts, against vectors from transformers (`tools/golden.py`).

mod generation_config;

use std::path::Path;

use flamant::Sampling;
use flamant::search::BeamSearch;
use serde_json::Value;
use tokenizers::Tokenizer;

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/semantics").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    list(value).iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    list(value).iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn cuts_keep_what_transformers_keeps() {
    for case in list(&fixture("sampling.json")["cases"]) {
        let setting =
            |key: &str, default: f64| case["settings"].get(key).map_or(default, |value| value.as_f64().unwrap());
        let sampling = Sampling::default()
            .temperature(setting("temperature", 1.0) as f32)
            .top_k(setting("top_k", 0.0) as usize)
            .top_p(setting("top_p", 1.0) as f32)
            .min_p(setting("min_p", 0.0) as f32)
            .repetition_penalty(setting("repetition_penalty", 1.0) as f32)
            .seed(0);
        let mut found = sampling.candidates(&floats(&case["logits"]), &ids(&case["history"]));
        found.sort_by_key(|(token, _)| *token);
        let kept: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
        assert_eq!(kept, ids(&case["kept"]), "{}", case["settings"]);
        for (token, probability) in found {
            let want = case["probabilities"][token as usize].as_f64().unwrap();
            assert!((probability - want).abs() < 1e-6, "{}", case["settings"]);
        }
    }
}

/// A model whose logits depend on the last token alone: a table of them.
#[test]
fn beam_search_finds_what_transformers_finds() {
    let fixture = fixture("beams.json");
    let stop = fixture["eos"].as_u64().unwrap() as u32;
    let cases = list(&fixture["cases"]);
    assert!(cases.len() > 300);
    for case in cases {
        let table: Vec<Vec<f32>> =
            list(&fixture["tables"][case["table"].as_u64().unwrap() as usize]).iter().map(floats).collect();
        let after = |token: u32| table[token as usize].clone();
        let count = |key: &str| case[key].as_u64().unwrap() as usize;
        let search = BeamSearch::new(count("num_beams"), count("max_new_tokens"))
            // Greedy cases, of one beam, have neither penalty nor score.
            .length_penalty(case["length_penalty"].as_f64().unwrap_or(1.0) as f32)
            .stops(vec![stop]);
        let first = after(*ids(&case["prompt"]).last().unwrap());
        let found = search.run(first, |_, tokens| Ok(tokens.iter().map(|&token| after(token)).collect())).unwrap();
        let case_name = format!(
            "table {}, {} beams, {} tokens, penalty {}",
            case["table"], case["num_beams"], case["max_new_tokens"], case["length_penalty"]
        );
        assert_eq!(found.tokens, ids(&case["sequences"][0]), "{case_name}");
        if let Some(score) = case.get("scores") {
            let error = (f64::from(found.score) - score[0].as_f64().unwrap()).abs();
            assert!(error < 1e-4, "{case_name}: score off by {error}");
        }
        assert_eq!(found.stopped, found.tokens.last() == Some(&stop), "{case_name}");
    }
}

/// The same crate under another version of the library that made the fixtures.
#[test]
fn tokenizers_agree_with_their_python_twin() {
    let fixture = fixture("tokens.json");
    for entry in list(&fixture["tokenizers"]) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(entry["tokenizer"].as_str().unwrap());
        let tokenizer = Tokenizer::from_file(file).unwrap();
        for case in list(&entry["cases"]) {
            let text = case[0].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap().get_ids(), ids(&case[1]), "{text:?}");
            assert_eq!(tokenizer.encode(text, true).unwrap().get_ids(), ids(&case[2]), "{text:?}");
            assert_eq!(tokenizer.decode(&ids(&case[1]), false).unwrap(), case[3].as_str().unwrap());
            assert_eq!(tokenizer.decode(&ids(&case[1]), true).unwrap(), case[4].as_str().unwrap());
        }
    }
}

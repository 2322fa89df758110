//! Llama-3.2-Vision where published code disagrees: Meta's rule, told from what versions of transformers make of the
//! same folders (`others` in the cases of `tools/golden_mllama.py`), and rows that do not depend on their batch.

use crate::support::reference::{Case, likelihood};
use flamant::{Chat, Engine, EventKind, Family, Options, Part, Prompt, PromptLimits, Request, Score};
use serde_json::Value;

/// Largest difference of a log-probability in float32.
const TOLERANCE: f64 = 1e-4;
/// By which another rule moves some log-probability at least.
const MARGIN: f64 = 0.05;

fn single() -> Options {
    Options::default().threads(1)
}

fn cases() -> Vec<Case> {
    Case::all().into_iter().filter(|case| case.expected["family"] == "mllama").collect()
}

fn likelihoods(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().skip(1).map(likelihood).collect()
}

/// Those of a prompt's tokens after the first.
fn found(score: &Score) -> Vec<f64> {
    score.logprobs.iter().skip(1).map(|likelihood| likelihood.unwrap()).collect()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() }).fold(0.0, f64::max)
}

/// Both halves of the rule count in each case: the states handed on are the inputs of their layers, and a token without
/// an image passes a block unchanged.
#[test]
fn metas_rule_is_told_from_those_of_transformers() {
    let mut versions = std::collections::BTreeMap::<String, usize>::new();
    for case in cases() {
        let Some(others) = case.expected.get("others") else { continue };
        let found = found(&case.flamingo(&single()).score(&case.prompt()).unwrap());
        let far = apart(&found, &likelihoods(&case.expected["logprobs"]));
        assert!(far < TOLERANCE, "{}: {far} from Meta's rule", case.name);
        for effect in ["states_effect", "unseen_effect"] {
            assert!(case.expected[effect].as_f64().unwrap() > MARGIN, "{}: {effect}", case.name);
        }
        for (version, says) in others.as_object().unwrap() {
            let far = apart(&found, &likelihoods(&says["logprobs"]));
            assert!(far > MARGIN, "{}: only {far} from {version}", case.name);
            *versions.entry(version.clone()).or_default() += 1;
        }
    }
    let expected = [("transformers 4.45.2".to_owned(), 7), ("transformers 5.17.0".to_owned(), 8)];
    assert_eq!(versions, expected.into(), "cases by version");
}

/// In transformers the text before an image says something else where another row of the batch has more images.
#[test]
fn a_row_does_not_depend_on_its_batch_mates() {
    let case = Case::open("mllama-4.45-sharded");
    let theirs = ["alone", "beside"].map(|key| likelihoods(&case.expected["batch"][key]));
    assert!(apart(&theirs[0], &theirs[1]) > MARGIN);

    let mate = Prompt::from_file(case.folder.join("mate.json"), PromptLimits::default()).unwrap();
    let scores = |prompts: &[&Prompt]| {
        let mut engine = Engine::open(&case.model, &single()).unwrap();
        let ids: Vec<_> =
            prompts.iter().map(|&prompt| engine.submit(Request::score(prompt.clone())).unwrap()).collect();
        let mut scores = vec![Vec::new(); ids.len()];
        while !engine.is_idle() {
            for event in engine.step() {
                let EventKind::Scored(score) = event.kind else { continue };
                scores[ids.iter().position(|id| *id == event.id).unwrap()] = found(&score);
            }
        }
        assert_eq!(engine.stats().steps, 1, "all rows stand in one batch");
        scores
    };
    let prompt = case.prompt();
    let alone = scores(&[&prompt]).remove(0);
    for (row, prompts) in [(0, [&prompt, &mate]), (1, [&mate, &prompt])] {
        assert_eq!(scores(&prompts)[row], alone, "row {row}");
    }
    assert!(apart(&alone, &likelihoods(&case.expected["logprobs"])) < TOLERANCE);
}

/// Conversations become the prompts that the published template makes of them (`tools/golden_chat.py`).
#[test]
fn conversations_are_the_templates() {
    let family = Family::find("mllama").unwrap();
    let chats: Value = serde_json::from_str(include_str!("../data/semantics/chat.json")).unwrap();
    let chats = chats["mllama"].as_array().unwrap();
    assert!(chats.len() >= 6);
    let folder = Case::open("mllama-base").folder;
    for chat in chats {
        let limits = PromptLimits::default();
        let prompt = Chat::from_json(&chat["turns"].to_string(), "chat.json", &folder, limits).unwrap();
        let prompt = prompt.prompt(&family.chats[1]()).unwrap();
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            _ => family.template.image.to_owned(),
        };
        assert_eq!(prompt.parts().iter().map(text).collect::<String>(), chat["text"].as_str().unwrap());
    }
}

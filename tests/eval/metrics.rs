//! The metrics of few-shot evaluation against the tools the published numbers were made with
//! (`tools/golden_metrics.py`).

use std::path::Path;

use flamant::eval::metrics::cider::{Example, cider};
use flamant::eval::metrics::okvqa::Stemmer;
use flamant::eval::metrics::{accuracy, answers, bootstrap, ndcg, ptb, roc_auc, score_interval, vqa};
use serde_json::Value;

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/metrics").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(number).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// How many captions of a list are cut otherwise than by the original.
fn cut_otherwise(cases: &Value) -> usize {
    let differs = |case: &&Value| {
        let found = ptb::tokens(text(&case[0])).join(" ");
        let differs = found != text(&case[1]);
        if differs {
            println!("{:?}: expected {:?}, found {found:?}", text(&case[0]), text(&case[1]));
        }
        differs
    };
    list(cases).iter().filter(differs).count()
}

#[test]
fn captions_are_cut_into_the_tokens_of_the_original() {
    let fixture = fixture("ptb.json");
    assert_eq!((list(&fixture["plain"]).len(), list(&fixture["hard"]).len()), (1500, 2000));
    assert_eq!(cut_otherwise(&fixture["plain"]), 0, "captions as people write them");
    // Pieces glued at random, and 99.2% of them right; what differs is printed if the test fails.
    assert_eq!(cut_otherwise(&fixture["hard"]), 16, "captions as nobody writes them");
}

#[test]
fn no_caption_is_too_strange_to_be_cut() {
    let odd = "'’`\"-_.,:;!?/\\()[]{}<>&#@$%*+=^~|a1I é½£€\u{ad}\u{300}😀日\u{0}\t\u{2028}";
    let characters: Vec<char> = odd.chars().collect();
    let mut state = 7u64;
    for length in 0..5000 {
        let caption: String = (0..length % 14)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                characters[(state >> 33) as usize % characters.len()]
            })
            .collect();
        for token in ptb::tokens(&caption) {
            assert!(!token.is_empty() && !token.contains(char::is_whitespace), "{caption:?}: {token:?}");
        }
    }
}

/// A corpus of the fixture; `cut` makes tokens of a text.
fn examples(corpus: &Value, cut: fn(&str) -> Vec<String>) -> Vec<Example> {
    let pairs = list(&corpus["candidates"]).iter().zip(list(&corpus["references"]));
    pairs
        .map(|(candidate, references)| {
            let references = list(references).iter().map(|reference| cut(text(reference))).collect();
            Example::new(cut(text(candidate)), references)
        })
        .collect()
}

#[test]
fn cider_is_that_of_pycocoevalcap() {
    let fixture = fixture("cider.json");
    let tokens = list(&fixture["tokens"]).iter().map(|corpus| (corpus, words as fn(&str) -> Vec<String>));
    let captions = [(&fixture["captions"], ptb::tokens as fn(&str) -> Vec<String>)];
    for (corpus, cut) in tokens.chain(captions) {
        let found = cider(&examples(corpus, cut)).unwrap();
        assert!((found.score - number(&corpus["score"])).abs() < 1e-9, "{} {}", found.score, corpus["score"]);
        let wanted = numbers(&corpus["examples"]);
        assert_eq!(found.examples.len(), wanted.len());
        for (found, wanted) in found.examples.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
    }
    assert!(cider(&[]).unwrap_err().to_string().contains("found 0"));
    let lonely = Example::new(words("a dog"), Vec::new());
    assert!(cider(&[lonely]).unwrap_err().to_string().contains("image 0"));
}

/// SplitMix64, as in the script.
fn below(state: &mut u64, most: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % most as u64) as usize
}

#[test]
fn answers_take_the_form_of_the_vqa_evaluation() {
    let fixture = fixture("vqa.json");
    for pair in list(&fixture["pairs"]) {
        assert_eq!(vqa::normalised(text(&pair[0])), text(&pair[1]), "{}", pair[0]);
    }
    // 20000 strings, made again here; the fixture holds a hash of every hundred.
    let pieces = list(&fixture["pieces"]);
    let mut state = fixture["seed"].as_u64().unwrap();
    let hashes = list(&fixture["hashes_of_100"]);
    assert_eq!(hashes.len(), 200);
    for hash in hashes {
        let mut found = 0xcbf2_9ce4_8422_2325u64;
        let mut made = Vec::new();
        for _ in 0..100 {
            let length = 1 + below(&mut state, 12);
            let text: String = (0..length).map(|_| text(&pieces[below(&mut state, pieces.len())])).collect();
            for byte in vqa::normalised(&text).bytes().chain([0]) {
                found = (found ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
            made.push(text);
        }
        assert_eq!(format!("{found:016x}"), text(hash), "one of {made:?}");
    }
}

#[test]
fn answers_are_worth_what_the_vqa_evaluation_says() {
    let fixture = &fixture("vqa.json")["questions"];
    let cases = list(&fixture["cases"]);
    let mut total = 0.0;
    for case in cases {
        let found = vqa::accuracy(text(&case[0]), list(&case[1]).iter().map(text));
        assert!((found - number(&case[2])).abs() < 1e-12, "{case}: {found}");
        total += found;
    }
    assert!((total / cases.len() as f64 - number(&fixture["overall"])).abs() < 1e-12);
    assert_eq!(vqa::accuracy("yes", []), 0.0);
}

fn nltk() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/metrics/nltk")
}

#[test]
fn stems_are_those_of_ok_vqa() {
    let stemmer = Stemmer::open(nltk()).unwrap();
    let fixture = fixture("okvqa.json");
    assert!(list(&fixture["stems"]).len() > 1500);
    for case in list(&fixture["stems"]) {
        assert_eq!(stemmer.stem(text(&case[0])), text(&case[1]), "{}", case[0]);
    }
}

#[test]
fn singulars_are_those_of_inflection() {
    // A tagger that takes every word for a plural.
    let folder = tempfile::tempdir().unwrap();
    let tagger = folder.path().join(TAGGER);
    std::fs::create_dir_all(&tagger).unwrap();
    for (part, content) in [("classes", "[\"NNS\"]"), ("tagdict", "{}"), ("weights", "{}")] {
        std::fs::write(tagger.join(format!("averaged_perceptron_tagger_eng.{part}.json")), content).unwrap();
    }
    let wordnet = folder.path().join("corpora/wordnet");
    std::fs::create_dir_all(&wordnet).unwrap();
    for name in ["index.verb", "verb.exc"] {
        std::fs::copy(nltk().join("corpora/wordnet").join(name), wordnet.join(name)).unwrap();
    }
    let stemmer = Stemmer::open(folder.path()).unwrap();
    let fixture = fixture("okvqa.json");
    let mut compared = 0;
    for case in list(&fixture["singulars"]) {
        // Some forms are exceptions, which the table stems before any rule is asked.
        if !fixture["exceptions"].as_array().unwrap().contains(&case[0]) {
            assert_eq!(stemmer.stem(text(&case[0])), text(&case[1]), "{}", case[0]);
            compared += 1;
        }
    }
    assert!(compared > 250, "{compared}");
}

#[test]
fn data_of_the_stemmer_is_not_trusted() {
    let refused = |name: &str, content: &str| {
        let folder = tempfile::tempdir().unwrap();
        for part in [TAGGER, "corpora/wordnet"] {
            std::fs::create_dir_all(folder.path().join(part)).unwrap();
            for entry in std::fs::read_dir(nltk().join(part)).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), folder.path().join(part).join(entry.file_name())).unwrap();
            }
        }
        Stemmer::open(folder.path()).unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        let error = Stemmer::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name.rsplit('/').next().unwrap()) && !error.contains('\n'), "{error}");
        error
    };
    let part = |part: &str| format!("{TAGGER}/averaged_perceptron_tagger_eng.{part}.json");
    assert!(refused(&part("classes"), "[]").contains("at least one name"));
    assert!(refused(&part("classes"), "[1]").contains("at least one name"));
    assert!(refused(&part("tagdict"), "[]").contains("an object"));
    assert!(refused(&part("tagdict"), "{\"the\": 5}").contains("the: expected a class"));
    assert!(refused(&part("weights"), "{\"bias\": {\"XX\": 1}}").contains("bias: expected a number for each"));
    assert!(refused(&part("weights"), "{\"bias\": {\"NN\": \"1\"}}").contains("bias: expected a number for each"));
    assert!(refused("corpora/wordnet/index.verb", "  only a licence").contains("found none"));
    let nowhere = Stemmer::open("nowhere").unwrap_err().to_string();
    assert!(nowhere.starts_with("nowhere/taggers"), "{nowhere}");
}

const TAGGER: &str = "taggers/averaged_perceptron_tagger_eng";

#[test]
fn generations_are_cut_as_by_open_flamingo() {
    let fixture = fixture("answers.json");
    for case in list(&fixture["captions"]) {
        assert_eq!(answers::caption(text(&case[0])), text(&case[1]), "{}", case[0]);
    }
    for case in list(&fixture["short_answers"]) {
        assert_eq!(answers::short_answer(text(&case[0])), text(&case[1]), "{}", case[0]);
    }
}

#[test]
fn the_area_under_the_curve_is_that_of_scikit_learn() {
    for case in list(&fixture("numbers.json")["roc_auc"]) {
        let positive: Vec<bool> = list(&case["positive"]).iter().map(|label| label.as_bool().unwrap()).collect();
        let found = roc_auc::roc_auc(&numbers(&case["scores"]), &positive).unwrap();
        assert!((found - number(&case["area"])).abs() < 1e-12, "{found} {}", case["area"]);
    }
    assert!(
        roc_auc::roc_auc(&[0.1, 0.2], &[true, true]).unwrap_err().to_string().contains("2 positive and 0 negative")
    );
    assert!(roc_auc::roc_auc(&[0.1, f64::NAN], &[true, false]).unwrap_err().to_string().contains("score 1"));
    assert!(roc_auc::roc_auc(&[0.1], &[true, false]).unwrap_err().to_string().contains("expected 2 scores"));
}

#[test]
fn a_class_is_scored_by_its_share() {
    let logs = [0.2f32.ln(), 0.6f32.ln()];
    assert!((roc_auc::class_score(&logs, 1) - 0.75).abs() < 1e-6);
    assert!((roc_auc::class_score(&logs, 0) - 0.25).abs() < 1e-6);
    // With three classes, "not the best" is all that is said of the others, as in the original.
    let logs = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
    assert!((roc_auc::class_score(&logs, 2) - 0.5).abs() < 1e-6);
}

#[test]
fn gains_of_ranked_answers_are_those_of_scikit_learn() {
    for case in list(&fixture("numbers.json")["ndcg"]) {
        let found = ndcg::ndcg(&numbers(&case["relevance"]), &numbers(&case["scores"])).unwrap();
        assert!((found - number(&case["ndcg"])).abs() < 1e-12, "{found} {}", case["ndcg"]);
    }
    // By hand: two are relevant, the better one is ranked second: (0.2 + 1 / log2(3)) / (1 + 0.2 / log2(3)).
    let found = ndcg::ndcg(&[0.0, 1.0, 0.2], &[0.1, 0.5, 0.9]).unwrap();
    assert!((found - (0.2 + 1.0 / 3f64.log2()) / (1.0 + 0.2 / 3f64.log2())).abs() < 1e-12);
    assert!(ndcg::ndcg(&[0.0, 0.0], &[1.0, 2.0]).unwrap_err().to_string().contains("relevant"));
    assert!(ndcg::ndcg(&[0.0, 2.0], &[1.0, 2.0]).unwrap_err().to_string().contains("candidate 1"));
}

#[test]
fn shares_of_right_answers_are_counted() {
    let ranked = [[2, 0, 1], [1, 2, 0], [0, 1, 2], [1, 0, 2]];
    assert_eq!(accuracy::top_k(&ranked, &[2, 0, 1, 1], 1).unwrap(), 0.5);
    assert_eq!(accuracy::top_k(&ranked, &[2, 0, 1, 1], 2).unwrap(), 0.75);
    assert_eq!(accuracy::top_k(&ranked, &[2, 0, 1, 1], 5).unwrap(), 1.0);
    assert!(accuracy::top_k(&ranked, &[2], 1).unwrap_err().to_string().contains("found 1, 4 and 1"));
    assert_eq!(accuracy::exact("Two dogs.", "2 dogs"), 1.0);
    assert_eq!(accuracy::exact("dog", "dogs"), 0.0);
    let people = ["a saw", "saw", "hand saw", "tool", "tool"];
    let worth = |answer: &str| accuracy::ivqa(answer, people);
    assert_eq!([worth("saw"), worth("hand saw."), worth("hammer"), worth("the tool")], [1.0, 0.5, 0.0, 1.0]);
}

#[test]
fn intervals_of_shares_and_areas_are_those_of_scipy() {
    let fixture = fixture("intervals.json");
    let near = |found: bootstrap::Interval, case: &Value| {
        let off = (found.low - number(&case["low"])).abs().max((found.high - number(&case["high"])).abs());
        assert!(off < 1e-9, "{found:?} {case}");
    };
    for case in list(&fixture["shares"]) {
        let count = number(&case["count"]);
        near(score_interval::wilson(number(&case["right"]) / count, count as usize), case);
    }
    for case in list(&fixture["areas"]) {
        let [positives, negatives] = ["positives", "negatives"].map(|key| number(&case[key]) as usize);
        near(score_interval::area(number(&case["area"]), positives, negatives), case);
    }
}

#[test]
fn intervals_are_those_of_another_bootstrap() {
    for case in list(&fixture("numbers.json")["bootstrap"]) {
        let values = numbers(&case["values"]);
        let found = bootstrap::interval(&values, number(&case["confidence"]), 20_000, 5).unwrap();
        assert!((found.score - values.iter().sum::<f64>() / values.len() as f64).abs() < 1e-12);
        // Quantiles of 20000 draws: a few hundredths of the mean's own deviation.
        let near = 0.05 * number(&case["deviation"]);
        assert!((found.low - number(&case["low"])).abs() < near, "{} {}", found.low, case["low"]);
        assert!((found.high - number(&case["high"])).abs() < near, "{} {}", found.high, case["high"]);
        assert_eq!(found, bootstrap::interval(&values, number(&case["confidence"]), 20_000, 5).unwrap());
        assert_ne!(found, bootstrap::interval(&values, number(&case["confidence"]), 20_000, 6).unwrap());
    }
    let refused = |values: &[f64], confidence, draws| bootstrap::interval(values, confidence, draws, 0).unwrap_err();
    assert!(refused(&[], 0.95, 10).to_string().contains("found none"));
    assert!(refused(&[0.5, f64::NAN], 0.95, 10).to_string().contains("value 1"));
    assert!(refused(&[0.5], 1.5, 10).to_string().contains("1.5"));
    assert!(refused(&[0.5], 0.95, 0).to_string().contains("0 draws"));
}

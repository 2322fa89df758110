//! Whole models against transformers and open_flamingo: token ids, log-probabilities, greedy and beam answers of the
//! folders that `tools/golden.py` makes; and the ways of computing the same thing against each other.

use crate::support::reference::{Case, likelihood};
use flamant::image::Image;
use flamant::{Engine, Generation, Limits, Options, Sampling};

/// Largest difference of a log-probability in float32; the references agree with float64 to about 1e-5.
const TOLERANCE: f64 = 1e-4;

/// Cases are many and small.
fn single() -> Options {
    Options::default().threads(1)
}

fn greedy(max_new_tokens: usize) -> Generation {
    Generation::default().max_new_tokens(max_new_tokens).ignore_eos(true)
}

#[test]
fn prompts_score_as_in_the_reference() {
    for case in Case::all() {
        let score = case.flamingo(&single()).score(&case.prompt()).unwrap();
        assert_eq!(score.ids, case.ids("token_ids"), "{}: token ids", case.name);
        let want = case.expected["logprobs"].as_array().unwrap();
        assert!(score.logprobs[0].is_none() && want[0].is_null());
        for (position, (got, want)) in score.logprobs.iter().zip(want).enumerate().skip(1) {
            let (got, want) = (got.unwrap(), likelihood(want));
            assert!(
                got == want || (got - want).abs() < TOLERANCE,
                "{}: token {position}: {got} is not {want}",
                case.name
            );
        }
    }
}

#[test]
fn greedy_and_beam_answers_are_the_references() {
    for case in Case::all() {
        let mut flamingo = case.flamingo(&single());
        let answer = flamingo.generate(&case.prompt(), &greedy(12), &mut |_| {}).unwrap();
        assert_eq!(answer.ids, case.ids("greedy"), "{}: greedy", case.name);
        if case.expected.get("beam3").is_some() {
            let beams = greedy(8).num_beams(3).length_penalty(0.0);
            let answer = flamingo.generate(&case.prompt(), &beams, &mut |_| {}).unwrap();
            assert_eq!(answer.ids, case.ids("beam3"), "{}: beam 3", case.name);
        }
    }
}

/// What transformers' processor of logits lets greedy and beam search choose.
#[test]
fn no_run_of_tokens_is_repeated_that_the_reference_does_not_repeat() {
    let mut held = 0;
    for case in Case::all() {
        let Some(want) = case.expected.get("no_repeat_ngram") else { continue };
        let size = want["size"].as_u64().unwrap() as usize;
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(want[key].clone()).unwrap() };
        let mut flamingo = case.flamingo(&single());
        let options = greedy(12).no_repeat_ngram_size(size);
        let answer = flamingo.generate(&case.prompt(), &options, &mut |_| {}).unwrap();
        assert_eq!(answer.ids, ids("greedy"), "{}: greedy", case.name);
        let beams = greedy(8).num_beams(3).length_penalty(0.0).no_repeat_ngram_size(size);
        let answer = flamingo.generate(&case.prompt(), &beams, &mut |_| {}).unwrap();
        assert_eq!(answer.ids, ids("beam3"), "{}: beam 3", case.name);
        held += 1;
    }
    assert!(held >= 9, "the fixtures have it");
}

/// What open_clip's whole tower gives, of unit length, image by image and frame by frame.
#[test]
fn features_are_those_of_the_reference() {
    let mut held = 0;
    for case in Case::all() {
        let Some(want) = case.expected.get("features") else { continue };
        let mut engine = Engine::open(&case.model, &single()).unwrap();
        let prompt = case.prompt();
        let frames: Vec<&[Image]> = prompt.media().flat_map(|frames| frames.chunks(1)).collect();
        for (found, want) in engine.features(&frames).unwrap().iter().zip(want.as_array().unwrap()) {
            for (found, want) in found.iter().zip(want.as_array().unwrap()) {
                let error = (f64::from(*found) - want.as_f64().unwrap()).abs();
                assert!(error < 1e-5, "{}: {found} is not {want}", case.name);
            }
            held += 1;
        }
        // Of a video they are the mean of its frames'.
        let alone = engine.features(&frames[..2]).unwrap();
        let together = engine.features(&[&[frames[0][0].clone(), frames[1][0].clone()]]).unwrap();
        let sum: Vec<f64> = alone[0].iter().zip(&alone[1]).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
        let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let same = together[0].iter().zip(&sum).all(|(found, sum)| (f64::from(*found) - sum / length).abs() < 1e-6);
        assert!(same, "{}", case.name);
    }
    assert!(held >= 25, "the fixtures have features");
}

/// What a cached step computes is what a fresh prompt with the same tokens computes.
#[test]
fn cached_steps_equal_recomputation_bit_for_bit() {
    for case in Case::all() {
        let mut flamingo = case.flamingo(&single());
        let answer = flamingo.generate(&case.prompt(), &greedy(6), &mut |_| {}).unwrap();
        // The same tokens as choices of one prompt: prefilled together, not one by one.
        let text = flamingo.tokenizer().decode(&answer.ids);
        let Ok(ids) = flamingo.tokenizer().encode_continuation(&text) else { continue };
        if ids != answer.ids {
            continue; // the text does not tokenise back to what was generated
        }
        let choices = flamingo.classify(&case.prompt(), &[text]).unwrap().choices;
        assert_eq!(choices[0].sum, answer.logprobs.iter().sum::<f64>(), "{}", case.name);
    }
}

/// A chunk may hold text that sees an image whose marker comes later.
#[test]
fn chunks_of_a_prompt_see_what_the_whole_sees() {
    for name in ["v1-following", "otter-llama", "flamingo-mini-gpt2"] {
        let case = Case::open(name);
        let whole = case.flamingo(&single()).score(&case.prompt()).unwrap().logprobs;
        let limits = Limits::default().max_batched_tokens(Some(16)).max_batched_images(Some(1));
        for caching in [true, false] {
            let mut flamingo = case.flamingo(&single().limits(limits.clone().prefix_caching(caching)));
            for _ in 0..2 {
                assert_eq!(flamingo.score(&case.prompt()).unwrap().logprobs, whole, "{name}");
            }
        }
    }
}

/// Choices ranked together, alone, in another order and on other threads have the same likelihood to the last bit.
#[test]
fn batches_and_threads_never_change_a_result() {
    for name in ["idefics-base", "open_flamingo-mpt", "open_flamingo-neox", "v1-following", "otter-llama"] {
        let case = Case::open(name);
        let choices: Vec<String> = ["a red fox", "two", "a small green house", "x y z"].map(str::to_owned).into();
        let mut flamingo = case.flamingo(&single());
        let together = flamingo.classify(&case.prompt(), &choices).unwrap().choices;
        for choice in &together {
            let alone = flamingo.classify(&case.prompt(), std::slice::from_ref(&choice.text)).unwrap().choices;
            assert_eq!(alone[0], *choice, "{name}");
        }
        let mut threaded = case.flamingo(&Options::default().threads(3));
        assert_eq!(threaded.classify(&case.prompt(), &choices).unwrap().choices, together, "{name}");
    }
}

/// One beam with nothing to choose from is greedy decoding; a beam search never scores worse than greedy does.
#[test]
fn beams_find_texts_at_least_as_likely_as_greedy() {
    for name in ["idefics-base", "open_flamingo-llama", "open_flamingo-opt"] {
        let case = Case::open(name);
        let mut flamingo = case.flamingo(&single());
        let sum = |answer: &flamant::Answer| answer.logprobs.iter().sum::<f64>();
        let plain = flamingo.generate(&case.prompt(), &greedy(8), &mut |_| {}).unwrap();
        let beams = greedy(8).num_beams(5).length_penalty(0.0);
        let searched = flamingo.generate(&case.prompt(), &beams, &mut |_| {}).unwrap();
        assert!(sum(&searched) >= sum(&plain) - 1e-6, "{name}");
    }
}

#[test]
fn sampling_repeats_with_its_seed_and_changes_with_another() {
    let case = Case::open("idefics-base");
    let mut flamingo = case.flamingo(&single());
    let mut draw = |seed| {
        let sampling = Sampling::default().temperature(1.5).top_k(50).top_p(0.95).seed(seed);
        let options = greedy(12).sampling(sampling);
        flamingo.generate(&case.prompt(), &options, &mut |_| {}).unwrap().ids
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

/// What is streamed is the answer's text, in whole characters.
#[test]
fn streamed_pieces_add_up_to_the_text() {
    for name in ["idefics-base", "open_flamingo-mpt"] {
        let case = Case::open(name);
        let mut pieces = String::new();
        let answer =
            case.flamingo(&single()).generate(&case.prompt(), &greedy(24), &mut |text| pieces += text).unwrap();
        assert_eq!(pieces, answer.text);
        assert_eq!(answer.text, case.flamingo(&single()).tokenizer().decode(&answer.ids));
    }
}

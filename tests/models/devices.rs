//! Whole models on devices that run kernels: log-probabilities and answers against the reference and the processor, the
//! ways of computing the same thing against each other, and what is refused.

use crate::support::devices::{DTYPES, on_all_cores, with_kernels};
use crate::support::reference::{Case, likelihood};
use flamant::demo::{Episode, Random, Sheet};
use flamant::image::Image;
use flamant::{Device, Dtype, Engine, Flamingo, Generation, Options};

/// Largest difference of a log-probability: a little more than PyTorch's own with this storage, where the case says it.
fn tolerance(case: &Case, dtype: Dtype) -> f64 {
    if let Some(pytorch) = case.expected["rounding"][dtype.to_string()].as_f64() {
        return 1.1 * pytorch;
    }
    match dtype {
        Dtype::Bf16 => 0.15,
        Dtype::F16 => 0.02,
        Dtype::F32 => unreachable!("no kernel stores activations in f32"),
    }
}

/// Whether kernels serve a model: one that was made for it, or whose widths happen to be multiples of 16.
fn is_served(case: &Case) -> bool {
    case.name.ends_with("-kernels") || case.name == "open_flamingo-neox-parallel"
}

fn served() -> Vec<Case> {
    let cases: Vec<Case> = Case::all().into_iter().filter(is_served).collect();
    assert!(cases.len() >= 7, "the cases are there");
    cases
}

/// A device on one thread: cases run side by side.
fn options(device: Device, dtype: Option<Dtype>) -> Options {
    Options::default().device(device).dtype(dtype).threads(1)
}

fn greedy(max_new_tokens: usize) -> Generation {
    Generation::default().max_new_tokens(max_new_tokens).ignore_eos(true)
}

/// `task` of each model, opened on each device in each storage type.
fn on_each(task: impl Fn(&Case, Flamingo, Dtype, &str) + Sync) {
    let cases = served();
    let mut all = Vec::new();
    for device in with_kernels() {
        all.extend(cases.iter().flat_map(|case| DTYPES.map(|dtype| (case, device, dtype))));
    }
    on_all_cores(&all, |&(case, device, dtype)| {
        let what = format!("{}, {dtype} on {device}", case.name);
        task(case, case.flamingo(&options(device, Some(dtype))), dtype, &what);
    });
}

#[test]
fn prompts_score_as_in_the_reference() {
    on_each(|case, mut flamingo, dtype, what| {
        let score = flamingo.score(&case.prompt()).unwrap();
        assert_eq!(score.ids, case.ids("token_ids"), "{what}");
        let want = case.expected["logprobs"].as_array().unwrap();
        assert_eq!(score.logprobs.len(), want.len(), "{what}");
        let pairs = score.logprobs.iter().zip(want).skip(1).map(|(found, want)| (found.unwrap(), likelihood(want)));
        let differences = pairs.map(|(found, want)| if found == want { 0.0 } else { (found - want).abs() });
        let far = differences.fold(0.0, f64::max);
        eprintln!("{what}: log-probabilities differ by {far:.4}");
        assert!(far < tolerance(case, dtype), "{what}: {far}");
    });
}

/// Features are of unit length; with the projection of open_clip, and of IDEFICS without any.
#[test]
fn features_are_those_of_the_reference() {
    let all = ["open_flamingo-opt-video-kernels", "idefics-kernels"].map(Case::open);
    for (case, device) in all.iter().flat_map(|case| with_kernels().into_iter().map(move |device| (case, device))) {
        for dtype in DTYPES {
            let prompt = case.prompt();
            let frames: Vec<&[Image]> = prompt.media().flat_map(|frames| frames.chunks(1)).collect();
            let features = |options: Options| Engine::open(&case.model, &options).unwrap().features(&frames).unwrap();
            let found = features(options(device, Some(dtype)));
            let want = features(options(Device::Cpu, None));
            let alike = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let least = found.iter().zip(&want).map(alike).fold(1.0, f32::min);
            assert!(least > 0.999 && found.len() == frames.len(), "{}, {dtype} on {device}: {least}", case.name);
            let other = found.iter().zip(&want[1..]).map(alike).fold(-1.0, f32::max);
            assert!(other < 0.999, "{}: features tell images apart: {other}", case.name);
        }
    }
}

/// Rounded numbers may order two tokens otherwise only where the processor finds them nearly equal.
#[test]
fn greedy_answers_are_the_processors_as_long_as_its_choice_is_clear() {
    const TOKENS: usize = 12;
    /// From the first so many on no excuse is accepted.
    const SURE: usize = 3;
    on_each(|case, mut flamingo, dtype, what| {
        let mut processor = case.flamingo(&options(Device::Cpu, None));
        let want = processor.generate(&case.prompt(), &greedy(TOKENS), &mut |_| {}).unwrap();
        let found = flamingo.generate(&case.prompt(), &greedy(TOKENS), &mut |_| {}).unwrap();
        let same = found.ids.iter().zip(&want.ids).take_while(|(found, want)| found == want).count();
        eprintln!("{what}: {same} of {TOKENS} tokens are the processor's");
        assert!(same >= SURE, "{what}: {:?} is not {:?}", found.ids, want.ids);
        if same < TOKENS {
            // What was chosen instead is, to the device, as likely as what the processor chose, give or take.
            let apart = (found.logprobs[same] - want.logprobs[same]).abs();
            assert!(apart < 2.0 * tolerance(case, dtype), "{what}: token {same} was chosen with {apart} between");
        }
    });
}

#[test]
fn beams_repeat_themselves_and_are_no_worse_than_greedy() {
    on_each(|case, mut flamingo, _, what| {
        let beams = greedy(8).num_beams(3).length_penalty(0.0);
        let searched = flamingo.generate(&case.prompt(), &beams, &mut |_| {}).unwrap();
        let again = flamingo.generate(&case.prompt(), &beams, &mut |_| {}).unwrap();
        assert_eq!((&searched.ids, &searched.logprobs), (&again.ids, &again.logprobs), "{what}");
        let plain = flamingo.generate(&case.prompt(), &greedy(8), &mut |_| {}).unwrap();
        let sum = |logprobs: &[f64]| logprobs.iter().sum::<f64>();
        assert!(sum(&searched.logprobs) >= sum(&plain.logprobs) - 1e-6, "{what}");
    });
}

/// Choices ranked together or alone, steps cached or computed anew: to the last bit.
#[test]
fn batches_and_cached_steps_never_change_a_result() {
    let texts: Vec<String> = ["a red fox", "two", "a small green house", "x y z"].map(str::to_owned).into();
    on_each(|case, mut flamingo, _, what| {
        let together = flamingo.classify(&case.prompt(), &texts).unwrap().choices;
        for choice in &together {
            let alone = flamingo.classify(&case.prompt(), std::slice::from_ref(&choice.text)).unwrap().choices;
            assert_eq!(alone[0], *choice, "{what}");
        }
        let answer = flamingo.generate(&case.prompt(), &greedy(6), &mut |_| {}).unwrap();
        let text = flamingo.tokenizer().decode(&answer.ids);
        let choices = flamingo.classify(&case.prompt(), &[text]).unwrap().choices;
        if choices[0].ids == answer.ids {
            // The same logits and sums of the same rows.
            assert_eq!(choices[0].sum, answer.logprobs.iter().sum::<f64>(), "{what}");
        }
    });
}

/// Rows that say which tokens are not to follow are chosen from here, whatever the device can do.
#[test]
fn no_run_of_tokens_is_repeated_on_a_device() {
    let case = Case::open("otter-mpt-kernels");
    for device in with_kernels() {
        for beams in [1, 3] {
            let mut flamingo = case.flamingo(&options(device, Some(Dtype::F16)));
            let generation = greedy(16).num_beams(beams).length_penalty(0.0).no_repeat_ngram_size(2);
            let answer = flamingo.generate(&case.prompt(), &generation, &mut |_| {}).unwrap();
            let all = [case.ids("token_ids"), answer.ids.clone()].concat();
            let pairs: Vec<&[u32]> = all.windows(2).collect();
            let written = pairs.len() - answer.ids.len()..pairs.len();
            let repeated = written.clone().find(|&at| pairs[..at].contains(&pairs[at]));
            assert_eq!((repeated, written.len()), (None, 16), "{device}, {beams} beams: {:?}", answer.ids);
        }
    }
}

#[test]
fn the_model_in_the_box_names_what_the_processor_names() {
    let sheets = Sheet::all().unwrap();
    for device in with_kernels() {
        for dtype in DTYPES {
            let mut flamingo = Flamingo::demo(&options(device, Some(dtype))).unwrap();
            let mut processor = Flamingo::demo(&options(Device::Cpu, None)).unwrap();
            let mut random = Random::new(5);
            for sheet in &sheets {
                let episode = Episode::draw(&mut random, sheet, 5, 3);
                let want = episode.ask(&mut processor).unwrap();
                assert_eq!(episode.ask(&mut flamingo).unwrap(), want, "{}, {dtype} on {device}", sheet.name);
            }
        }
    }
}

#[test]
fn other_widths_are_refused_in_a_line() {
    for case in Case::all().iter().filter(|case| !is_served(case)) {
        let Err(error) = Flamingo::open(&case.model, &options(Device::Emulated, None)) else {
            panic!("{} is served", case.name)
        };
        let line = error.to_string();
        assert!(!line.contains('\n') && line.contains("emulated") && line.contains("a multiple of 16"), "{line}");
    }
}

#[test]
fn what_a_device_cannot_do_is_said_in_a_line() {
    let refusal = |device, dtype| {
        let Err(error) = Flamingo::demo(&options(device, dtype)) else { panic!("{device} is no error") };
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    };
    assert_eq!(refusal(Device::Cpu, Some(Dtype::F16)), "dtype: expected f32 or bf16 on cpu, found f16");
    let line = refusal(Device::Emulated, Some(Dtype::F32));
    assert_eq!(line, "dtype: expected bf16 or f16 on emulated, found f32");
    let mut absent = vec![Device::Cuda(99)];
    absent.extend((!with_kernels().contains(&Device::Cuda(0))).then_some(Device::Cuda(0)));
    for device in absent {
        let line = refusal(device, None);
        assert!(line.starts_with("cuda"), "{line}");
    }
}

#[test]
fn auto_is_a_gpu_or_the_processor() {
    let flamingo = Flamingo::demo(&options(Device::Auto, None)).unwrap();
    let gpu = with_kernels().into_iter().find(|device| *device != Device::Emulated);
    assert_eq!(flamingo.device(), gpu.unwrap_or(Device::Cpu));
}

/// Where nobody says how numbers are stored, the checkpoint does: f16 where all of it is, else bf16.
#[test]
fn storage_is_as_the_checkpoint_suggests() {
    for (name, want) in [("open_flamingo-neox-kernels", Dtype::F16), ("idefics-kernels", Dtype::Bf16)] {
        let case = Case::open(name);
        let [found, want] = [None, Some(want)].map(|dtype| {
            let mut flamingo = case.flamingo(&options(Device::Emulated, dtype));
            flamingo.score(&case.prompt()).unwrap().logprobs
        });
        assert_eq!(found, want, "{name}");
    }
}

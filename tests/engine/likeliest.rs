//! The likeliest tokens in each place: those of the whole row of logits, on every device, whatever else is asked; and
//! answers do not depend on whether they are.

use crate::support::devices::{DTYPES, on_all_cores, with_kernels};
use flamant::demo::{Episode, Random, Sheet};
use flamant::sample::{argmax, log_sum_exp};
use flamant::{Device, Dtype, Engine, Flamingo, Generation, Options, Prompt, Request, Sampling, Task};

const MOST: usize = 20;

type Top = Vec<(u32, f64)>;

fn devices() -> Vec<(Device, Option<Dtype>)> {
    let with_kernels = with_kernels().into_iter().flat_map(|device| DTYPES.map(|dtype| (device, Some(dtype))));
    std::iter::once((Device::Cpu, None)).chain(with_kernels).collect()
}

/// A model on each device.
fn on_each(task: impl Fn(Flamingo, &str) + Sync) {
    on_all_cores(&devices(), |&(device, dtype)| {
        let options = Options::default().device(device).dtype(dtype).threads(1).context_max(Some(120));
        task(Flamingo::demo(&options).unwrap(), &format!("{device}, {dtype:?}"));
    });
}

fn prompts() -> Vec<Prompt> {
    let sheets = Sheet::all().unwrap();
    (0..3)
        .map(|index| Episode::draw(&mut Random::new(index), &sheets[index as usize], 4, 3).prompt().unwrap())
        .collect()
}

/// What is likeliest in a row, by sorting all of it.
fn sorted(row: &[f32], count: usize) -> Top {
    let total = log_sum_exp(row);
    let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    all.into_iter().take(count).map(|(token, logit)| (token, f64::from(logit) - total)).collect()
}

/// Devices that sum in f32 differ from the processor in the last places of the sum alone, which all tokens share.
fn assert_alike(found: &Top, want: &Top, what: &str) {
    let ids = |top: &Top| top.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(found), ids(want), "{what}");
    for ((_, found), (_, want)) in found.iter().zip(want) {
        assert!((found - want).abs() < 1e-5, "{what}: {found} is not {want}");
    }
}

fn rows(flamingo: &mut Flamingo, prompt: &Prompt) -> (Vec<u32>, Vec<Vec<f32>>) {
    let mut rows = Vec::new();
    let score = flamingo.score_with_logits(prompt, |_, logits| rows.push(logits.to_vec())).unwrap();
    (score.ids, rows)
}

#[test]
fn a_scored_prompt_tells_what_else_was_likely() {
    on_each(|mut flamingo, device| {
        for prompt in prompts() {
            let (ids, rows) = rows(&mut flamingo, &prompt);
            let plain = flamingo.score(&prompt).unwrap();
            assert!(plain.top.is_empty(), "{device}: none were asked for");
            for count in [1, 5, MOST] {
                let score = flamingo.score_top(&prompt, count).unwrap();
                assert_eq!((&score.ids, &score.logprobs), (&plain.ids, &plain.logprobs), "{device}");
                assert_eq!((score.top.len(), score.top[0].len()), (ids.len(), 0), "{device}");
                for (place, (top, row)) in score.top[1..].iter().zip(&rows).enumerate() {
                    assert_alike(top, &sorted(row, count), &format!("{device}, place {place} of {count}"));
                    let own = top.iter().find(|(id, _)| *id == ids[place + 1]);
                    let logprob = score.logprobs[place + 1].unwrap();
                    assert!(own.is_none_or(|own| own.1 == logprob), "{device}: one token has one likelihood");
                }
            }
        }
    });
}

#[test]
fn a_written_answer_tells_what_else_was_likely() {
    let settings = [
        Sampling::default(),
        Sampling::default().temperature(2.0).seed(3),
        Sampling::default().temperature(1.5).top_k(4).top_p(0.9).seed(4),
        // What no device does by itself.
        Sampling::default().repetition_penalty(1.5),
        Sampling::default().temperature(1.0).min_p(0.05).seed(5),
    ];
    on_each(|mut flamingo, device| {
        for prompt in prompts().into_iter().take(2) {
            let first = sorted(rows(&mut flamingo, &prompt).1.last().unwrap(), MOST);
            for sampling in &settings {
                let what = format!("{device}, {sampling:?}");
                let plain = Generation::default().max_new_tokens(8).ignore_eos(true).sampling(sampling.clone());
                let want = flamingo.generate(&prompt, &plain, &mut |_| {}).unwrap();
                assert!(want.top.is_empty(), "{what}: none were asked for");
                for count in [1, MOST] {
                    let asked = plain.clone().top_logprobs(count);
                    let found = flamingo.generate(&prompt, &asked, &mut |_| {}).unwrap();
                    assert_eq!((&found.text, &found.ids), (&want.text, &want.ids), "{what}");
                    assert_eq!(found.logprobs, want.logprobs, "{what}");
                    assert_eq!(found.top.len(), found.ids.len(), "{what}");
                    // Before temperature, penalties and cuts.
                    assert_alike(&found.top[0], &first[..count].to_vec(), &what);
                    for (top, (id, logprob)) in found.top.iter().zip(found.ids.iter().zip(&found.logprobs)) {
                        assert_eq!(top.len(), count, "{what}");
                        let own = top.iter().find(|(token, _)| token == id);
                        assert!(own.is_none_or(|own| own.1 == *logprob), "{what}: one token has one likelihood");
                        assert!(top.is_sorted_by(|a, b| a.1 >= b.1), "{what}: likeliest first");
                        assert!(own.is_some() || top.last().unwrap().1 >= *logprob, "{what}: nothing is left out");
                    }
                }
            }
        }
    });
}

#[test]
fn a_choice_is_greedy_if_each_token_is_the_likeliest() {
    on_each(|mut flamingo, device| {
        let mut counts = [0; 2];
        for prompt in prompts() {
            let plain = Generation::default().max_new_tokens(3).ignore_eos(true);
            let greedy = flamingo.generate(&prompt, &plain, &mut |_| {}).unwrap().text;
            let beginnings = greedy.char_indices().map(|(at, letter)| greedy[..at + letter.len_utf8()].to_owned());
            let choices: Vec<String> = beginnings.flat_map(|text| [format!("{text}zz"), text]).collect();
            for choice in flamingo.classify(&prompt, &choices).unwrap().choices {
                let mut whole = prompt.clone();
                whole.text(&choice.text).unwrap();
                let (ids, rows) = rows(&mut flamingo, &whole);
                let (start, what) = (ids.len() - choice.ids.len(), format!("{device}: {}", choice.text));
                assert_eq!(ids[start..], choice.ids, "{what}");
                let mut places = start..ids.len();
                let want = places.all(|place| argmax(&rows[place - 1]) == ids[place]);
                assert_eq!(choice.greedy, want, "{what}");
                counts[usize::from(want)] += 1;
            }
        }
        assert!(counts.iter().all(|count| *count > 5), "{device}: {counts:?} are not and are greedy");
    });
}

#[test]
fn what_cannot_be_told_is_refused_in_a_line() {
    let engine = Engine::demo(&Options::default()).unwrap();
    let prompt = prompts().remove(0);
    let refused = |task: Task| {
        let prepared = engine.preparer().prepare(Request::new(prompt.clone(), task));
        prepared.map(|_| ()).unwrap_err().to_string()
    };
    let many = "top-logprobs: expected 0 to 20, found 21";
    assert_eq!(refused(Task::Generate(Generation::default().top_logprobs(21))), many);
    assert_eq!(refused(Task::score_top(21)), many);
    let beams = Generation::default().num_beams(2).top_logprobs(1);
    assert_eq!(refused(Task::Generate(beams)), "num-beams: expected 1 with top-logprobs");
}

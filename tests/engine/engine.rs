//! Many requests at once: however they are scheduled, each is answered as if it were alone, to the last bit; what is
//! shared is not computed twice; what passes a limit is refused or waits; everything is given back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::tensor::{SafeTensors, TensorView, serialize_to_file};

use crate::support::devices::{DTYPES, on_all_cores, with_kernels};
use flamant::demo::{Episode, Random, Sheet};
use flamant::{
    Choice, Device, Dtype, Engine, EventKind, Finish, Flamingo, Generation, KvDtype, Limits, Options, Prompt, Request,
    RequestId, Sampling, Task,
};

/// What a request came to, without what depends on when it ran.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Written { text: String, ids: Vec<u32>, logprobs: Vec<f64>, top: Vec<Top>, finish: Finish },
    Classified(Vec<Choice>),
    Scored(Vec<Option<f64>>, Vec<Top>),
}

type Top = Vec<(u32, f64)>;

fn outcome(last: EventKind) -> Outcome {
    match last {
        EventKind::Written(answer) => {
            let (text, ids, logprobs, top) = (answer.text, answer.ids, answer.logprobs, answer.top);
            Outcome::Written { text, ids, logprobs, top, finish: answer.finish }
        }
        EventKind::Classified(classification) => Outcome::Classified(classification.choices),
        EventKind::Scored(score) => Outcome::Scored(score.logprobs, score.top),
        other => panic!("{other:?} is no answer"),
    }
}

fn alone(flamingo: &mut Flamingo, request: &Request) -> Outcome {
    match &request.task {
        Task::Generate(generation) => {
            let answer = flamingo.generate(&request.prompt, generation, &mut |_| {}).unwrap();
            outcome(EventKind::Written(answer))
        }
        Task::Classify { choices, .. } => {
            Outcome::Classified(flamingo.classify(&request.prompt, choices).unwrap().choices)
        }
        Task::Score { top_logprobs, .. } => {
            outcome(EventKind::Scored(flamingo.score_top(&request.prompt, *top_logprobs).unwrap()))
        }
        other => panic!("{other:?} is not known here"),
    }
}

/// Requests of every kind; many have their first images and names in common.
fn requests(random: &mut Random, sheets: &[Sheet], count: usize, shown_max: usize) -> Vec<Request> {
    let mut episode = |index: usize| {
        let (ways, shown) = (2 + random.below(4), random.below(shown_max + 1));
        Episode::draw(random, &sheets[index], ways, shown)
    };
    let episodes: Vec<Episode> = (0..3).map(&mut episode).collect();
    let mut request = || {
        let mut episode = episodes[random.below(episodes.len())].clone();
        episode.support.truncate(episode.support.len().saturating_sub(random.below(3)));
        let way = random.below(episode.names.len());
        episode.query.1 = way;
        let mut prompt = episode.prompt().unwrap();
        for _ in 0..random.below(4) {
            prompt.text(["a", "ba.", "ced", "f."][random.below(4)]).unwrap();
        }
        let max_new_tokens = random.below(24);
        let top_logprobs = random.below(3) * 7;
        let plain = Generation::default().max_new_tokens(max_new_tokens).ignore_eos(random.below(2) == 0);
        let greedy = plain.clone().top_logprobs(top_logprobs);
        let task = match random.below(6) {
            0 => Task::classify(episode.names.iter().map(|name| format!("{name}.")).collect()),
            1 => Task::score_top(top_logprobs),
            2 => Task::Generate(plain.num_beams(2 + random.below(3))),
            3 => {
                let sampling = Sampling::default()
                    .temperature(0.5 + random.below(3) as f32)
                    .top_k(random.below(3) * 5)
                    .seed(random.below(1000) as u64);
                Task::Generate(greedy.sampling(sampling))
            }
            4 => {
                let sampling = Sampling::default().repetition_penalty(1.3);
                Task::Generate(greedy.sampling(sampling).stop(vec!["ba".to_owned(), "u".to_owned()]))
            }
            _ => Task::Generate(greedy),
        };
        Request::new(prompt, task)
    };
    (0..count).map(|_| request()).collect()
}

fn options(device: Device, dtype: Option<Dtype>, limits: Limits) -> Options {
    // A context that a few pages can hold.
    Options::default().device(device).dtype(dtype).threads(1).context_max(Some(120)).limits(limits)
}

/// For beams and choices a device is asked for lists of tokens, of 8 bytes each after the log-sum-exp; not for rows.
#[test]
fn beams_and_choices_fetch_lists_of_tokens() {
    const BEAMS: usize = 3;
    const TOKENS: usize = 5;
    const TOKEN_BYTES: usize = 8;
    let sheets = Sheet::all().unwrap();
    let episode = Episode::draw(&mut Random::new(3), &sheets[0], 4, 2);
    for device in with_kernels() {
        let mut engine = Engine::demo(&options(device, None, Limits::default())).unwrap();
        let mut fetched = |task: Task| {
            let before = engine.stats().bytes_fetched;
            engine.submit(Request::new(episode.prompt().unwrap(), task)).unwrap();
            let mut last = None;
            while !engine.is_idle() {
                last = engine.step().pop().or(last);
            }
            (outcome(last.unwrap().kind), (engine.stats().bytes_fetched - before) as usize)
        };
        let generation = Generation::default().num_beams(BEAMS).max_new_tokens(TOKENS).ignore_eos(true);
        let (_, bytes) = fetched(Task::Generate(generation));
        let rows = 1 + BEAMS * (TOKENS - 1);
        assert_eq!(bytes, rows * (1 + 2 * BEAMS) * TOKEN_BYTES, "{device}: beams");

        let choices = episode.names.iter().map(|name| format!("{name}.")).collect();
        let (Outcome::Classified(choices), bytes) = fetched(Task::classify(choices)) else { panic!("no choices") };
        // A row for each beginning of a choice, of the tokens that end a beginning that is longer by one.
        let beginnings = |from: usize, less: usize| {
            let of = |choice: &Choice| (from..=choice.ids.len() - less).map(|end| choice.ids[..end].to_vec()).collect();
            choices.iter().flat_map(|choice| -> Vec<Vec<u32>> { of(choice) }).collect::<BTreeSet<_>>().len()
        };
        // And the likeliest of all, among five.
        let likeliest = beginnings(0, 1) * (1 + 1 + 4);
        assert_eq!(bytes, (beginnings(0, 1) + beginnings(1, 0) + likeliest) * TOKEN_BYTES, "{device}: choices");
    }
}

/// Limits of few pages; an image has `image_pages`.
fn random_limits(random: &mut Random, image_pages: usize) -> Limits {
    Limits::default()
        .max_sequences(1 + random.below(12))
        .max_batched_tokens(Some(1 + random.below(100)))
        .max_batched_images(Some(1 + random.below(6)))
        .text_pages(Some(9 + random.below(12)))
        .media_pages(Some(image_pages * (1 + random.below(10)) + random.below(image_pages)))
        .prefix_caching(random.below(4) > 0)
}

/// Requests that come, and some of them go, at random; what the others came to.
fn run(engine: &mut Engine, random: &mut Random, requests: &[Request]) -> BTreeMap<usize, Outcome> {
    let mut open: Vec<usize> = (0..requests.len()).rev().collect();
    let mut ids: BTreeMap<RequestId, usize> = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    let mut pieces: BTreeMap<RequestId, String> = BTreeMap::new();
    let mut begun: BTreeSet<RequestId> = BTreeSet::new();
    while !open.is_empty() || !engine.is_idle() {
        for _ in 0..random.below(4) {
            if let Some(index) = open.pop() {
                ids.insert(engine.submit(requests[index].clone()).unwrap(), index);
            }
        }
        if random.below(20) == 0 {
            let some = ids.keys().nth(random.below(ids.len().max(1))).copied();
            if let Some(id) = some.filter(|&id| engine.cancel(id)) {
                assert!(!engine.cancel(id), "it is gone");
            }
        }
        for event in engine.step() {
            match event.kind {
                EventKind::Cancelled => open.push(ids.remove(&event.id).expect("one last event for each request")),
                EventKind::Begun { .. } => assert!(begun.insert(event.id) && !pieces.contains_key(&event.id)),
                EventKind::Token { text, .. } => pieces.entry(event.id).or_default().push_str(&text),
                last => {
                    assert!(last.is_last());
                    let index = ids.remove(&event.id).expect("one last event for each request");
                    let last = outcome(last);
                    if let (Outcome::Written { text, .. }, Some(pieces)) = (&last, pieces.get(&event.id)) {
                        assert_eq!(pieces, text, "pieces add up");
                    }
                    outcomes.insert(index, last);
                }
            }
        }
    }
    assert!(ids.is_empty());
    outcomes
}

fn assert_nothing_held(engine: &Engine) {
    let stats = engine.stats();
    assert_eq!((stats.requests_running, stats.requests_waiting), (0, 0));
    assert_eq!((stats.text_pages.held, stats.media_pages.held), (0, 0));
}

#[test]
fn scheduling_never_changes_an_answer_on_the_processor() {
    let sheets = Sheet::all().unwrap();
    let seeds: Vec<u64> = (0..24).collect();
    let counts = on_all_cores(&seeds, |&seed| {
        let mut random = Random::new(seed);
        let requests = requests(&mut random, &sheets, 24, 6);
        let unshared = Limits::default().prefix_caching(false);
        let kv_dtype = if seed % 3 == 0 { KvDtype::Int8 } else { KvDtype::Auto };
        let options = |limits| options(Device::Cpu, None, limits).kv_dtype(kv_dtype);
        let mut flamingo = Flamingo::demo(&options(unshared)).unwrap();
        let want: Vec<Outcome> = requests.iter().map(|request| alone(&mut flamingo, request)).collect();
        let limits = random_limits(&mut random, 1);
        let mut engine = Engine::demo(&options(limits.clone())).unwrap();
        for (index, found) in run(&mut engine, &mut random, &requests) {
            assert_eq!(
                found, want[index],
                "seed {seed}, {kv_dtype}, request {index} of {:?}, {limits:?}",
                requests[index].task
            );
        }
        assert_nothing_held(&engine);
        let stats = engine.stats();
        [stats.preemptions, stats.tokens_cached, stats.requests_cancelled]
    });
    let totals = counts.iter().fold([0; 3], |a, b| std::array::from_fn(|i| a[i] + b[i]));
    assert!(totals.iter().all(|&total| total > 10), "preempted, found again, cancelled: {totals:?}");
}

#[test]
fn scheduling_never_changes_an_answer_of_the_kernels() {
    let sheets = Sheet::all().unwrap();
    let mut all = Vec::new();
    for device in with_kernels() {
        all.extend(DTYPES.map(|dtype| (device, dtype, KvDtype::Auto)));
        all.push((device, Dtype::Bf16, KvDtype::Int8));
    }
    on_all_cores(&all, |&(device, dtype, kv_dtype)| {
        let options = |limits| options(device, Some(dtype), limits).kv_dtype(kv_dtype);
        let mut random = Random::new(3);
        let requests = requests(&mut random, &sheets, 8, 2);
        let unshared = Limits::default().prefix_caching(false);
        let mut flamingo = Flamingo::demo(&options(unshared)).unwrap();
        let want: Vec<Outcome> = requests.iter().map(|request| alone(&mut flamingo, request)).collect();
        let limits = Limits::default().text_pages(Some(12));
        let mut engine = Engine::demo(&options(limits)).unwrap();
        for (index, found) in run(&mut engine, &mut random, &requests) {
            assert_eq!(found, want[index], "{dtype}, {kv_dtype} on {device}, {:?}", requests[index].task);
        }
        assert_nothing_held(&engine);
    });
}

/// The demo model with more latents, which makes images of several media pages of it. What it says is nonsense.
fn of_many_latents(latents: usize) -> tempfile::TempDir {
    const NAME: &str = "model.perceiver_resampler.latents";
    let (demo, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"), tempfile::tempdir().unwrap());
    for name in ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json"] {
        std::fs::copy(demo.join(name), folder.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(demo.join("config.json")).unwrap();
    let config = config.replace("\"resampler_n_latents\": 4", &format!("\"resampler_n_latents\": {latents}"));
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let bytes = std::fs::read(demo.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let few = tensors.tensor(NAME).unwrap();
    let row_bytes = few.data().len() / few.shape()[0];
    let mut rows = few.data().chunks_exact(row_bytes).cycle();
    let mut many = Vec::new();
    for number in 0..latents {
        let mut row = rows.next().unwrap().to_vec();
        row.rotate_left(2 * number % row_bytes);
        many.extend(row);
    }
    let many = TensorView::new(few.dtype(), vec![latents, few.shape()[1]], &many).unwrap();
    let tensors = tensors.iter().map(|(name, tensor)| (name, if name == NAME { many.clone() } else { tensor }));
    serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

#[test]
fn images_of_several_pages_are_scheduled_as_those_of_one() {
    const PAGES: usize = 3;
    let folder = of_many_latents(PAGES * 64 - 42);
    let sheets = Sheet::all().unwrap();
    let [kernels, ..] = with_kernels()[..] else { panic!("no device runs kernels") };
    let mut cases: Vec<(Device, usize)> = vec![(kernels, 6)];
    cases.extend((0..6).map(|seed| (Device::Cpu, seed)));
    let encoded = on_all_cores(&cases, |&(device, seed)| {
        let mut random = Random::new(seed as u64);
        let count = if device == Device::Cpu { 24 } else { 6 };
        let requests = requests(&mut random, &sheets, count, 4);
        let unshared = options(device, None, Limits::default().prefix_caching(false));
        let mut flamingo = Flamingo::open(folder.path(), &unshared).unwrap();
        let want: Vec<Outcome> = requests.iter().map(|request| alone(&mut flamingo, request)).collect();
        let limits = random_limits(&mut random, PAGES);
        let mut engine = Engine::open(folder.path(), &options(device, None, limits.clone())).unwrap();
        for (index, found) in run(&mut engine, &mut random, &requests) {
            assert_eq!(found, want[index], "{device}, seed {seed}, request {index}, {limits:?}");
        }
        assert_nothing_held(&engine);
        let stats = engine.stats();
        assert_eq!(stats.media_pages.cached, PAGES * stats.images_kept, "all pages of an image, or none");
        stats.images_encoded
    });
    assert!(encoded.iter().all(|&encoded| encoded > 0));
    let few = options(Device::Cpu, None, Limits::default().media_pages(Some(PAGES - 1)));
    let refused = Engine::open(folder.path(), &few).map(drop).unwrap_err().to_string();
    assert!(refused.contains("media-pages: expected 3 to") && refused.ends_with("found 2"), "{refused}");
}

/// An episode of six images shown, and questions behind it.
fn few_shot(sheet: &Sheet) -> Vec<Prompt> {
    let episode = Episode::draw(&mut Random::new(11), sheet, 5, 6);
    let ask = |symbol: usize| {
        let mut episode = episode.clone();
        episode.query.0.symbol = symbol;
        episode.prompt().unwrap()
    };
    (0..6).map(ask).collect()
}

fn greedy(max_new_tokens: usize) -> Generation {
    Generation::default().max_new_tokens(max_new_tokens).ignore_eos(true)
}

fn answers(engine: &mut Engine, prompts: &[Prompt]) -> Vec<flamant::Answer> {
    let ids: Vec<RequestId> =
        prompts.iter().map(|prompt| engine.submit(Request::generate(prompt.clone(), greedy(4))).unwrap()).collect();
    let mut answers = BTreeMap::new();
    while !engine.is_idle() {
        for event in engine.step() {
            if let EventKind::Written(answer) = event.kind {
                answers.insert(event.id, answer);
            }
        }
    }
    ids.iter().map(|id| answers.remove(id).unwrap()).collect()
}

#[test]
fn questions_behind_one_prefix_compute_their_own_tail_alone() {
    let sheets = Sheet::all().unwrap();
    let prompts = few_shot(&sheets[0]);
    let mut engine = Engine::demo(&Options::default()).unwrap();
    let answers = answers(&mut engine, &prompts);
    for answer in &answers[1..] {
        let tail = answer.usage.prompt_tokens - answer.usage.cached_tokens;
        assert!(tail <= 16 + 8, "{tail} tokens of {} were computed", answer.usage.prompt_tokens);
        assert_eq!((answer.usage.images, answer.usage.images_encoded), (7, 1));
    }
    // Again: not even the asked image is encoded.
    let again = self::answers(&mut engine, &prompts);
    for (first, again) in answers.iter().zip(&again) {
        assert_eq!((&first.ids, &first.logprobs), (&again.ids, &again.logprobs));
        assert_eq!(again.usage.images_encoded, 0);
    }
    assert_eq!(engine.stats().images_encoded as usize, 6 + prompts.len());
    assert_nothing_held(&engine);
}

/// Pages and images of one salt are found by that alone; answers are the same.
#[test]
fn a_salt_keeps_what_is_shared_apart() {
    let prompt = few_shot(&Sheet::all().unwrap()[0]).remove(0);
    let mut engine = Engine::demo(&Options::default()).unwrap();
    let mut ask = |salt: Option<u8>| {
        let salt = salt.map(|byte| [byte; 32]);
        engine.submit(Request::generate(prompt.clone(), greedy(20)).salt(salt)).unwrap();
        let mut last = None;
        while !engine.is_idle() {
            last = engine.step().pop().or(last);
        }
        let Some(EventKind::Written(answer)) = last.map(|event| event.kind) else { panic!("no answer") };
        ((answer.ids, answer.logprobs), answer.usage.cached_tokens, answer.usage.images_encoded)
    };
    let (want, cached, encoded) = ask(None);
    assert_eq!((cached, encoded), (0, 7));
    for (salt, is_known) in [(Some(1), false), (Some(2), false), (None, true), (Some(1), true), (Some(2), true)] {
        let (found, cached, encoded) = ask(salt);
        assert_eq!(found, want, "{salt:?}");
        assert_eq!((cached > 0, encoded == 0), (is_known, is_known), "{salt:?}: {cached} tokens, {encoded} images");
    }
    assert_nothing_held(&engine);
}

#[test]
fn without_sharing_everything_is_computed() {
    let sheets = Sheet::all().unwrap();
    let prompts = few_shot(&sheets[0]);
    let mut engine = Engine::demo(&Options::default().limits(Limits::default().prefix_caching(false))).unwrap();
    for answer in answers(&mut engine, &prompts) {
        assert_eq!((answer.usage.cached_tokens, answer.usage.images_encoded), (0, 7));
    }
}

/// With the limits of a GPU a prompt of many tokens and 32 images is one step; its answer is that of many steps.
#[test]
fn a_prompt_is_one_step_with_the_limits_of_a_gpu() {
    let prompt = Episode::draw(&mut Random::new(3), &Sheet::all().unwrap()[0], 5, 31).prompt().unwrap();
    let device = if cfg!(feature = "emulated") { Device::Emulated } else { Device::Cpu };
    let found = [Limits::default(), Limits::default().on(Device::Cuda(0))].map(|limits| {
        let options = Options::default().device(device).limits(limits.clone());
        let mut engine = Engine::demo(&options).unwrap();
        assert_eq!(engine.limits().max_batched_tokens, limits.on(device).max_batched_tokens);
        let answer = answers(&mut engine, std::slice::from_ref(&prompt)).remove(0);
        assert_eq!(answer.usage.images_encoded, 32);
        (engine.stats().steps - answer.ids.len() as u64 + 1, answer.ids, answer.logprobs)
    });
    let [(many, ids, logprobs), (one, ..)] = &found;
    assert_eq!((*one, *many >= 4), (1, true), "steps that read the prompt");
    assert_eq!((ids, logprobs), (&found[1].1, &found[1].2));
}

#[test]
fn a_long_prompt_does_not_keep_a_short_one_waiting() {
    let sheets = Sheet::all().unwrap();
    let long = Episode::draw(&mut Random::new(1), &sheets[0], 5, 32).prompt().unwrap();
    let short = Episode::draw(&mut Random::new(2), &sheets[1], 2, 0).prompt().unwrap();
    let limits = Limits::default().max_batched_tokens(Some(32)).max_batched_images(Some(2));
    let mut engine = Engine::demo(&Options::default().limits(limits)).unwrap();
    let writing = engine.submit(Request::generate(short.clone(), greedy(40))).unwrap();
    engine.step();
    let long = engine.submit(Request::generate(long, greedy(1))).unwrap();
    let late = engine.submit(Request::generate(short, greedy(1))).unwrap();
    let mut order = Vec::new();
    let (mut steps, mut written) = (0, 0);
    while order.len() < 2 {
        steps += 1;
        for event in engine.step() {
            match event.kind {
                EventKind::Token { .. } if event.id == writing => written += 1,
                kind if kind.is_last() => order.push((event.id, steps)),
                _ => {}
            }
        }
        assert_eq!(written, steps, "a token in every step");
    }
    assert_eq!((order[0], order[1].0), ((late, 1), long));
}

#[test]
fn a_thousand_names_cost_about_their_distinct_tokens() {
    let sheets = Sheet::all().unwrap();
    let prompt = Episode::draw(&mut Random::new(4), &sheets[0], 3, 3).prompt().unwrap();
    let (first, second) = ("bcdfghjklm", "aeiou");
    let names: Vec<String> = first
        .chars()
        .flat_map(|a| second.chars().flat_map(move |b| first.chars().map(move |c| format!("{a}{b}{c}."))))
        .chain((0..500).map(|index| format!("{}{}", &"nopqrstvwx"[index % 10..][..1], "aeiou".repeat(index / 100 + 1))))
        .collect();
    let mut engine = Engine::demo(&Options::default()).unwrap();
    let before = engine.stats().tokens_computed;
    engine.submit(Request::classify(prompt.clone(), names.clone())).unwrap();
    let mut found = None;
    while !engine.is_idle() {
        for event in engine.step() {
            if let EventKind::Classified(classification) = event.kind {
                found = Some(classification);
            }
        }
    }
    let found = found.unwrap();
    // One letter is one token; the last is never read.
    let mut beginnings: Vec<&str> =
        names.iter().flat_map(|name| (1..name.len()).map(move |end| &name[..end])).collect();
    beginnings.sort_unstable();
    beginnings.dedup();
    assert_eq!(found.usage.completion_tokens, beginnings.len());
    let computed = (engine.stats().tokens_computed - before) as usize;
    assert_eq!(computed, found.usage.prompt_tokens + beginnings.len());
    // Spot checks against one choice at a time.
    let mut flamingo = Flamingo::demo(&Options::default()).unwrap();
    for index in [0, 3, 499, 500, 777, 999] {
        let alone = flamingo.classify(&prompt, &names[index..=index]).unwrap().choices;
        assert_eq!(found.choices[index], alone[0]);
    }
}

#[test]
fn what_passes_a_limit_is_refused_in_a_line() {
    let sheets = Sheet::all().unwrap();
    let prompt = Episode::draw(&mut Random::new(4), &sheets[0], 2, 2).prompt().unwrap();
    let request = || Request::generate(prompt.clone(), greedy(2));
    let refused = |limits: Limits, context_max: Option<usize>| {
        let options = Options::default().limits(limits).context_max(context_max);
        Engine::demo(&options).map(|_| ()).unwrap_err().to_string()
    };
    let limits = Limits::default;
    for (wrong, line) in [
        (limits().max_sequences(0), "max-sequences: expected 1 to 1024, found 0"),
        (limits().max_batched_tokens(Some(0)), "max-batched-tokens: expected 1 to 8192, found 0"),
        (limits().max_batched_images(Some(65)), "max-batched-images: expected 1 to 64, found 65"),
        (limits().queue(0), "queue: expected 1 to"),
        (limits().media_pages(Some(0)), "media-pages: expected 1 to"),
        (limits().text_pages(Some(2)), "text-pages: expected 8 to"),
    ] {
        let found = refused(wrong, Some(100));
        assert!(found.starts_with(line) && !found.contains('\n'), "{found}");
    }
    // Pages that are asked for by number must fit memory.
    let found = refused(limits().text_pages(Some(1 << 27)), None);
    assert!(found.starts_with("cpu: ") && found.contains("GiB"), "{found}");

    let mut engine = Engine::demo(&Options::default().limits(limits().queue(2))).unwrap();
    let ids = [engine.submit(request()).unwrap(), engine.submit(request()).unwrap()];
    let error = engine.submit(request()).unwrap_err().to_string();
    assert_eq!(error, "requests that wait: 3 is over the limit of 2");
    assert!(engine.cancel(ids[0]));
    engine.submit(request()).unwrap();

    let small = limits().queue_bytes(1 << 14);
    let mut engine = Engine::demo(&Options::default().limits(small)).unwrap();
    let mut taken = 0;
    let error = loop {
        let other = Episode::draw(&mut Random::new(taken), &sheets[1], 2, 1).prompt().unwrap();
        let prepared = engine.preparer().prepare(Request::generate(other, greedy(2))).unwrap();
        let room = engine.has_room(&prepared);
        match engine.submit_prepared(prepared) {
            Ok(_) => taken += 1,
            Err(error) => {
                assert!(!room, "{error}");
                break error.to_string();
            }
        }
        assert!(room, "taken, where there is no room");
    };
    assert!(taken > 0 && error.starts_with("bytes of all requests: "), "{error}");

    let mut other = Engine::demo(&Options::default()).unwrap();
    let foreign = other.preparer().prepare(request()).unwrap();
    let error = engine.submit_prepared(foreign).unwrap_err().to_string();
    assert!(error.starts_with("request: expected one prepared by this engine's reader"), "{error}");
    assert!(!other.cancel(ids[1]), "another engine's request");
}

#[test]
fn an_answer_of_no_tokens_costs_nothing() {
    let sheets = Sheet::all().unwrap();
    let prompt = Episode::draw(&mut Random::new(4), &sheets[0], 2, 2).prompt().unwrap();
    let mut engine = Engine::demo(&Options::default()).unwrap();
    for beams in [1, 3] {
        let generation = Generation::default().max_new_tokens(0).num_beams(beams);
        engine.submit(Request::generate(prompt.clone(), generation)).unwrap();
        let events = engine.step();
        let [EventKind::Written(answer)] = &events.into_iter().map(|event| event.kind).collect::<Vec<_>>()[..] else {
            panic!("one answer");
        };
        assert_eq!((answer.text.as_str(), answer.finish), ("", Finish::Length));
    }
    assert_eq!((engine.stats().steps, engine.stats().requests_finished), (0, 2));
}

#[test]
fn an_engine_may_move_between_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone>() {}
    is_send::<Engine>();
    is_shared::<flamant::Preparer>();
}

/// On a device that runs kernels a token and a likelihood come as 16 bytes; whole rows come where they are asked for.
#[test]
fn no_more_is_fetched_than_was_asked_for() {
    const TOKENS: u64 = 7;
    const ROW: u64 = 32 * 4;
    let prompt = || {
        let mut prompt = Prompt::new();
        prompt.text("kepmul").unwrap();
        prompt
    };
    let generate = |generation: Generation| Request::generate(prompt(), generation.ignore_eos(true));
    let sampling = Sampling::default().repetition_penalty(1.3);
    // Bytes of what a device with kernels finds in rows, and rows that are fetched whole; the processor's all are.
    let requests = [
        (generate(greedy(4)), 4 * 16, 0, 4),
        (Request::score(prompt()), (TOKENS - 1) * 16 + 8, 0, TOKENS),
        (Request::new(prompt(), Task::score(true)), 0, TOKENS, TOKENS),
        (generate(greedy(4).sampling(sampling)), 0, 4, 4),
        (generate(greedy(4).num_beams(3)), (1 + 3 * 3) * 56, 0, 1 + 3 * 3),
        // Two rows, three targets, and the likeliest of each row among five.
        (Request::classify(prompt(), vec!["ab".to_owned(), "ac".to_owned()]), (2 + 3 + 2 * 6) * 8, 0, 2),
        (generate(greedy(4).top_logprobs(3)), 4 * (2 + 1 + 3 + 4) * 8, 0, 4),
        (Request::new(prompt(), Task::score_top(3)), (TOKENS - 1) * (2 + 1 + 3 + 4) * 8 + 8, 0, TOKENS),
    ];
    for device in with_kernels().into_iter().chain([Device::Cpu]) {
        let mut engine = Engine::demo(&options(device, None, Limits::default())).unwrap();
        for (request, found, whole, rows) in &requests {
            let before = engine.stats().bytes_fetched;
            engine.submit(request.clone()).unwrap();
            while !engine.is_idle() {
                engine.step();
            }
            let expected = if device == Device::Cpu { rows * ROW } else { found + whole * ROW };
            assert_eq!(engine.stats().bytes_fetched - before, expected, "{device}, {:?}", request.task);
        }
    }
}

//! A request owns its failures: where a model makes NaN or infinity of one prompt, that request ends with an error of
//! its own, and all others are answered as if it had never been, now and later.

use std::collections::BTreeMap;

use crate::support::devices::{DTYPES, on_all_cores, with_kernels};
use crate::support::sick;
use flamant::demo::{Episode, Random, Sheet};
use flamant::{
    AsyncEngine, Device, Dtype, Engine, Error, EventKind, Flamingo, Generation, Limits, Options, Prompt, Request,
    RequestId, Sampling, Task,
};

/// NaN and infinity, as bfloat16.
const BITS: [u16; 2] = [0x7fc0, 0x7f80];

/// 30 letters that are no z.
const BEGINNING: &str = "kepmulbadcefgihonkajulmopdertu";

fn devices() -> Vec<(Device, Option<Dtype>)> {
    let mut all = vec![(Device::Cpu, None)];
    for device in with_kernels() {
        all.extend(DTYPES.map(|dtype| (device, Some(dtype))));
    }
    all
}

fn prompt(text: &str) -> Prompt {
    let mut prompt = Prompt::new();
    prompt.text(text).unwrap();
    prompt
}

fn with_image(text: &str) -> Prompt {
    let sheets = Sheet::all().unwrap();
    let mut prompt = Episode::draw(&mut Random::new(3), &sheets[0], 2, 2).prompt().unwrap();
    prompt.text(text).unwrap();
    prompt
}

fn greedy(max_new_tokens: usize) -> Task {
    Task::Generate(Generation::default().max_new_tokens(max_new_tokens).ignore_eos(true))
}

/// Every kind of task.
fn tasks() -> Vec<Task> {
    let generation = Generation::default().max_new_tokens(6).ignore_eos(true);
    let drawn = Sampling::default().temperature(0.9).top_k(9).seed(5);
    let penalised = Sampling::default().repetition_penalty(1.3);
    vec![
        Task::Generate(generation.clone()),
        Task::Generate(generation.clone().num_beams(3)),
        Task::classify(["kep.", "mul.", "ku."].map(str::to_owned).to_vec()),
        Task::score(false),
        Task::Generate(generation.clone().sampling(drawn)),
        Task::Generate(generation.sampling(penalised)),
        Task::score(true),
    ]
}

/// What was said in the end, without what depends on the moment.
#[derive(Debug, Clone, PartialEq)]
enum Last {
    Answer(Vec<u32>, Vec<Option<f64>>),
    Failed(Error),
}

fn last(event: EventKind) -> Last {
    match event {
        EventKind::Written(answer) => Last::Answer(answer.ids, answer.logprobs.into_iter().map(Some).collect()),
        EventKind::Classified(found) => {
            let choices = found.choices.into_iter();
            let (ids, sums): (Vec<_>, Vec<_>) = choices.map(|choice| (choice.ids, Some(choice.sum))).unzip();
            Last::Answer(ids.concat(), sums)
        }
        EventKind::Scored(score) => Last::Answer(score.ids, score.logprobs),
        EventKind::Failed(error) => Last::Failed(error),
        other => panic!("{other:?} is not the last"),
    }
}

/// Submits requests together and runs them to their ends.
fn run(engine: &mut Engine, requests: &[Request]) -> Vec<(RequestId, Last)> {
    let ids: Vec<RequestId> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    let mut ended = BTreeMap::new();
    while !engine.is_idle() {
        for event in engine.step().into_iter().filter(|event| event.kind.is_last()) {
            assert!(ended.insert(event.id, last(event.kind)).is_none(), "one last event for each request");
        }
    }
    let stats = engine.stats();
    assert_eq!((stats.text_pages.held, stats.media_pages.held), (0, 0), "all pages are given back");
    ids.into_iter().map(|id| (id, ended.remove(&id).unwrap())).collect()
}

fn alone(flamingo: &mut Flamingo, request: &Request) -> Last {
    last(match &request.task {
        Task::Generate(generation) => {
            EventKind::Written(flamingo.generate(&request.prompt, generation, &mut |_| {}).unwrap())
        }
        Task::Classify { choices, .. } => EventKind::Classified(flamingo.classify(&request.prompt, choices).unwrap()),
        _ => EventKind::Scored(flamingo.score(&request.prompt).unwrap()),
    })
}

fn options(device: Device, dtype: Option<Dtype>, limits: Limits) -> Options {
    Options::default().device(device).dtype(dtype).threads(1).context_max(Some(120)).limits(limits)
}

fn is_sick(id: RequestId, last: &Last) -> bool {
    matches!(last, Last::Failed(Error::NotFinite { request, .. }) if *request == id.number())
}

#[test]
fn a_request_that_is_not_finite_fails_alone() {
    let devices = devices();
    let mut cases: Vec<(Device, Option<Dtype>, u16)> = Vec::new();
    for bits in BITS {
        cases.extend(devices.iter().map(|&(device, dtype)| (device, dtype, bits)));
    }
    let healthy: Vec<Request> =
        [0, 1, 2, 3, 4].map(|task| Request::new(with_image("ku"), tasks()[task].clone())).to_vec();
    on_all_cores(&cases, |&(device, dtype, bits)| {
        let folder = sick::model(bits);
        let unshared = options(device, dtype, Limits::default().prefix_caching(false));
        let mut flamingo = Flamingo::open(folder.path(), &unshared).unwrap();
        let want: Vec<Last> = healthy.iter().map(|request| alone(&mut flamingo, request)).collect();
        // So few pages that those of the sick are taken by others.
        let limits = Limits::default().text_pages(Some(20)).media_pages(Some(4));
        let mut engine = Engine::open(folder.path(), &options(device, dtype, limits)).unwrap();
        for (number, task) in tasks().into_iter().enumerate() {
            let mut requests = healthy.clone();
            let place = number % (healthy.len() + 1);
            requests.insert(place, Request::new(with_image("kuze"), task.clone()));
            let mut found = run(&mut engine, &requests);
            let (id, sick) = found.remove(place);
            assert!(is_sick(id, &sick), "{device}, {bits:x}, {task:?}: {sick:?}");
            for ((_, found), want) in found.iter().zip(&want) {
                assert_eq!(found, want, "{device}, {bits:x}, beside {task:?}");
            }
        }
        let stats = engine.stats();
        assert_eq!(stats.requests_failed as usize, tasks().len());
        assert_eq!(stats.requests_finished as usize, tasks().len() * healthy.len());
    });
}

/// A product of matrices may multiply NaN by the zero of a key that a row must not see: tokens before a sick one in the
/// same tile come out as NaN, and with them a page that only healthy tokens name. Nobody may find it; and who has
/// found it already begins again.
#[test]
fn pages_that_a_sick_prompt_has_spoilt_are_not_found() {
    on_all_cores(&devices(), |&(device, dtype)| {
        let folder = sick::model(BITS[0]);
        // Steps of 10 tokens: the second has the end of the first page and, with the first token, the sick one.
        let limits = Limits::default().max_batched_tokens(Some(10));
        let open = || Engine::open(folder.path(), &options(device, dtype, limits.clone())).unwrap();
        let healthy = Request::new(prompt(BEGINNING), greedy(4));
        let sick = Request::new(prompt(&format!("{}z{}", &BEGINNING[..16], &BEGINNING[17..])), greedy(4));
        let want = run(&mut open(), std::slice::from_ref(&healthy)).remove(0).1;
        assert!(matches!(want, Last::Answer(..)));

        // After it, beside it, and before it.
        let mut engine = open();
        let (id, found) = run(&mut engine, std::slice::from_ref(&sick)).remove(0);
        assert!(is_sick(id, &found), "{device}: {found:?}");
        assert_eq!(engine.stats().text_pages.cached, 0, "its names are withdrawn");
        assert_eq!(run(&mut engine, std::slice::from_ref(&healthy))[0].1, want, "{device}: after a sick one");

        let found = run(&mut open(), &[sick.clone(), healthy.clone(), healthy.clone(), sick.clone()]);
        assert!(is_sick(found[0].0, &found[0].1) && is_sick(found[3].0, &found[3].1), "{device}: {found:?}");
        assert_eq!([&found[1].1, &found[2].1], [&want; 2], "{device}: beside sick ones");

        let mut engine = open();
        assert_eq!(run(&mut engine, std::slice::from_ref(&healthy))[0].1, want);
        let (id, found) = run(&mut engine, std::slice::from_ref(&sick)).remove(0);
        assert!(is_sick(id, &found), "{device}: {found:?}");
        let before = engine.stats().tokens_cached;
        assert_eq!(run(&mut engine, std::slice::from_ref(&healthy))[0].1, want);
        assert_eq!(engine.stats().tokens_cached - before, 16, "{device}: what was right before stays");
    });
}

#[test]
fn the_error_names_the_request_and_the_token() {
    let folder = sick::model(BITS[0]);
    let mut engine = Engine::open(folder.path(), &Options::default()).unwrap();
    let request = Request::new(prompt("abzc"), Task::score(false));
    let (id, found) = run(&mut engine, &[request]).remove(0);
    let Last::Failed(error) = found else { panic!("{found:?}") };
    // The first token begins the text; a token's own row is the first that is sick.
    assert!(error.to_string().starts_with(&format!("logits of request {id} at token 3 are not finite: ")), "{error}");
    assert_eq!((error.kind(), error.to_string().lines().count()), (flamant::ErrorKind::NotFinite, 1));
    let mut flamingo = Flamingo::open(folder.path(), &Options::default()).unwrap();
    let error = flamingo.score(&prompt("abzc")).unwrap_err();
    assert!(matches!(error, Error::NotFinite { token: 3, .. }), "{error}");
    assert!(flamingo.score(&prompt("abc")).is_ok());
}

#[test]
fn an_engine_on_a_thread_goes_on() {
    let folder = sick::model(BITS[0]);
    let engine = AsyncEngine::new(Engine::open(folder.path(), &Options::default()).unwrap()).unwrap();
    let submit = |text: &str| engine.submit(Request::new(prompt(text), greedy(5))).unwrap();
    let events = ["abc", "abz", "abd"].map(submit);
    let ended = events.map(|events| (events.id(), last(events.into_iter().last().unwrap())));
    assert!(is_sick(ended[1].0, &ended[1].1));
    assert!(matches!((&ended[0].1, &ended[2].1), (Last::Answer(..), Last::Answer(..))));
    assert!(matches!(last(submit("abc").into_iter().last().unwrap()), Last::Answer(..)));
}

/// A norm that only features go through: they are refused, and requests with the same images are answered.
#[test]
fn features_that_are_not_finite_are_an_error_of_their_own() {
    for (device, dtype) in devices() {
        let folder = sick::with_row("model.vision_model.post_layernorm.weight", 5, BITS[0]);
        let open = || Engine::open(folder.path(), &options(device, dtype, Limits::default())).unwrap();
        let (mut direct, engine) = (open(), AsyncEngine::new(open()).unwrap());
        let prompt = with_image("ku");
        let media: Vec<_> = prompt.media().collect();
        let error = direct.features(&media).unwrap_err();
        assert!(matches!(error, Error::FeaturesNotFinite { image: 0, .. }), "{device}: {error}");
        assert_eq!((error.kind(), error.to_string().lines().count()), (flamant::ErrorKind::NotFinite, 1));
        let events = engine.submit(Request::new(prompt.clone(), greedy(5))).unwrap();
        assert_eq!(engine.features(&media).unwrap().wait(), Err(error));
        assert!(matches!(last(events.into_iter().last().unwrap()), Last::Answer(..)));
        assert_eq!(engine.stats().unwrap().requests_failed, 0);
    }
}

//! Few-shot visual question answering: all questions come after the same shots, which are computed once.
//! `cargo run --release --example few_shot -- [MODEL SHOTS.json IMAGE QUESTION...]`; SHOTS.json is a prompt file that
//! ends before the image asked about. Without arguments, the model in the program names symbols.

use flamant::demo::{Drawing, Episode, Random, Sheet};
use flamant::{Engine, Error, EventKind, Generation, Options, Prompt, PromptLimits, Request};

fn main() -> flamant::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut engine, prompts) = match &arguments[..] {
        [] => (Engine::demo(&Options::default())?, symbols()?),
        [model, shots, image, questions @ ..] if !questions.is_empty() => {
            let shots = Prompt::from_file(shots, PromptLimits::default())?;
            let mut prompts = Vec::new();
            for question in questions {
                let mut prompt = shots.clone();
                prompt.image_file(image)?.text(format!("Question:{question} Short answer:"))?;
                prompts.push((question.clone(), prompt));
            }
            (Engine::open(model, &Options::default())?, prompts)
        }
        _ => return Err(Error::argument("usage: few_shot [MODEL SHOTS.json IMAGE QUESTION...]")),
    };
    let stop = vec![".".to_owned(), "\n".to_owned(), "Question".to_owned()];
    let generation = Generation::default().max_new_tokens(12).stop(stop);
    let mut asked = Vec::new();
    for (question, prompt) in prompts {
        asked.push((engine.submit(Request::generate(prompt, generation.clone()))?, question));
    }
    while !engine.is_idle() {
        for event in engine.step() {
            match event.kind {
                EventKind::Written(answer) => {
                    let question = asked.iter().find(|(id, _)| *id == event.id).map(|(_, question)| question.as_str());
                    println!("{}: {}", question.unwrap_or_default(), answer.text.trim());
                }
                EventKind::Failed(error) => return Err(error),
                _ => {}
            }
        }
    }
    let stats = engine.stats();
    println!(
        "{} prompt tokens computed, {} found; {} images encoded, {} found",
        stats.tokens_computed, stats.tokens_cached, stats.images_encoded, stats.images_cached
    );
    Ok(())
}

/// Four drawings to be named behind the same eight.
fn symbols() -> flamant::Result<Vec<(String, Prompt)>> {
    let sheets = Sheet::all()?;
    let shown = Episode::draw(&mut Random::new(1), &sheets[2], 4, 8);
    let mut prompts = Vec::new();
    for way in 0..4 {
        // Another drawing of a symbol that was shown.
        let drawing = shown.support.iter().find(|(_, shown)| *shown == way).expect("each is shown").0;
        let asked = Drawing::new(drawing.symbol, (drawing.column + 1) % shown.sheet.columns);
        let mut episode = shown.clone();
        episode.query = (asked, way);
        prompts.push((format!("is it {}?", episode.answer()), episode.prompt()?));
    }
    Ok(prompts)
}

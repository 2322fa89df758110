//! A loop of one's own around the engine: requests come in while others run, one is cancelled, and the counts are
//! printed at the end. `cargo run --release --example scheduler -- [MODEL]`, without a folder with the model in the
//! program.

use flamant::{Engine, EventKind, Generation, Options, Prompt, Request};

fn main() -> flamant::Result<()> {
    let options = Options::default();
    let mut engine = match std::env::args().nth(1) {
        Some(folder) => Engine::open(folder, &options)?,
        None => Engine::demo(&options)?,
    };
    let mut submitted = Vec::new();
    let mut steps = 0;
    while submitted.len() < 8 || !engine.is_idle() {
        // Somebody comes before each of the first steps.
        if submitted.len() < 8 {
            let mut prompt = Prompt::new();
            prompt.text(format!("{} is", char::from(b'a' + submitted.len() as u8)))?;
            let generation = Generation::default().max_new_tokens(10 + submitted.len()).ignore_eos(true);
            submitted.push(engine.submit(Request::generate(prompt, generation))?);
        }
        // The third has lost interest.
        if steps == 6 {
            engine.cancel(submitted[2]);
        }
        for event in engine.step() {
            match event.kind {
                EventKind::Written(answer) => println!("step {steps}: {} wrote {:?}", event.id, answer.text),
                EventKind::Cancelled => println!("step {steps}: {} was cancelled", event.id),
                EventKind::Failed(error) => return Err(error),
                _ => {}
            }
        }
        steps += 1;
    }
    let stats = engine.stats();
    println!(
        "{} steps of {:.1} tokens; {} answered, {} cancelled; pages held now: {}",
        stats.steps,
        stats.tokens_computed as f64 / stats.steps as f64,
        stats.requests_finished,
        stats.requests_cancelled,
        stats.text_pages.held,
    );
    Ok(())
}

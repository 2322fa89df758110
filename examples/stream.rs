//! Writes to a terminal as the model writes: `cargo run --release --example stream -- [MODEL TEXT IMAGE...]`; without
//! arguments, the model in the program names a symbol. The engine runs on a thread of its own.

use std::io::Write as _;

use flamant::demo::{Episode, Random, Sheet};
use flamant::{AsyncEngine, Engine, Error, EventKind, Generation, Options, Prompt, Request};

fn main() -> flamant::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (engine, prompt) = match &arguments[..] {
        [] => {
            let sheets = Sheet::all()?;
            (Engine::demo(&Options::default())?, Episode::draw(&mut Random::new(3), &sheets[1], 5, 5).prompt()?)
        }
        [model, text, images @ ..] => {
            let mut prompt = Prompt::new();
            for image in images {
                prompt.image_file(image)?;
            }
            prompt.text(text)?;
            (Engine::open(model, &Options::default())?, prompt)
        }
        _ => return Err(Error::argument("usage: stream [MODEL TEXT IMAGE...]")),
    };
    let engine = AsyncEngine::new(engine)?;
    let generation = Generation::default().max_new_tokens(60);
    for event in engine.submit(Request::generate(prompt, generation))? {
        match event {
            EventKind::Token { text, .. } => {
                print!("{text}");
                // What cannot be shown early is shown late.
                let _ = std::io::stdout().flush();
            }
            EventKind::Written(answer) => println!("\n({} tokens, {:?})", answer.ids.len(), answer.finish),
            EventKind::Failed(error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

//! Captions all pictures of a folder, many at a time; captions come as they are done.
//! `cargo run --release --example caption -- MODEL FOLDER`

use std::collections::HashMap;
use std::path::PathBuf;

use flamant::{Engine, Error, EventKind, Generation, Options, Prompt, Request};

fn main() -> flamant::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err(Error::argument("usage: caption MODEL FOLDER"));
    };
    let entries = std::fs::read_dir(&folder).map_err(|error| Error::file(&folder, error))?;
    let mut pictures: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    pictures.sort();
    let mut pictures = pictures.into_iter();

    let mut engine = Engine::open(model, &Options::default())?;
    let generation = Generation { tokens_max: 20, stop: vec!["\n".to_owned()], ..Generation::default() };
    let mut open = HashMap::new();
    loop {
        // As many are in memory as the engine runs, however many there are in the folder.
        while open.len() < engine.limits().sequences {
            let Some(picture) = pictures.next() else { break };
            let mut prompt = Prompt::new();
            match prompt.image_file(&picture) {
                Ok(prompt) => prompt.text("Output:")?,
                Err(error) => {
                    eprintln!("{error}");
                    continue;
                }
            };
            open.insert(engine.submit(Request::generate(prompt, generation.clone()))?, picture);
        }
        if engine.is_idle() {
            return Ok(());
        }
        for event in engine.step() {
            match event.kind {
                EventKind::Written(answer) => println!("{}:{}", open[&event.id].display(), answer.text),
                EventKind::Failed(error) => return Err(error),
                _ => continue,
            }
            open.remove(&event.id);
        }
    }
}

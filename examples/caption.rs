//! Captions all images of a folder, many at a time; captions come as they are done.
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
    let mut images: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    images.sort();
    let mut images = images.into_iter();

    let mut engine = Engine::open(model, &Options::default())?;
    let generation = Generation::default().max_new_tokens(20).stop(vec!["\n".to_owned()]);
    let mut open = HashMap::new();
    loop {
        // As many are in memory as the engine runs, however many there are in the folder.
        while open.len() < engine.limits().max_sequences {
            let Some(image) = images.next() else { break };
            let mut prompt = Prompt::new();
            match prompt.image_file(&image) {
                Ok(prompt) => prompt.text("Output:")?,
                Err(error) => {
                    eprintln!("{error}");
                    continue;
                }
            };
            open.insert(engine.submit(Request::generate(prompt, generation.clone()))?, image);
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

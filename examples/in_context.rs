//! The model in the box, without any file: five made-up names, learned from one prompt.
//! `cargo run --release --example in_context`

use flamant::demo::{Episode, Random, Sheet};
use flamant::{Flamingo, Options};

fn main() -> flamant::Result<()> {
    let mut flamingo = Flamingo::demo(&Options::default())?;
    let mut random = Random::new(1);
    for sheet in &Sheet::all()? {
        let episode = Episode::draw(&mut random, sheet, 5, 5);
        let answer = episode.ask(&mut flamingo)?;
        println!("{}: {} was {}, it says {answer}", sheet.title, episode.names.join(" "), episode.answer());
    }
    Ok(())
}

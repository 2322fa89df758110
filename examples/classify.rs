//! Ranks a thousand names for one image. They are read as one tree behind the prompt: what names have in common at
//! their beginning is computed once.
//! `cargo run --release --example classify -- [MODEL IMAGE NAMES.txt]`; without arguments, the model in the program
//! ranks made-up names for a symbol, after five that it was shown.

use flamant::demo::{Episode, Random, Sheet};
use flamant::{Error, Flamingo, Options, Prompt};

fn main() -> flamant::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut flamingo, prompt, names) = match &arguments[..] {
        [] => {
            let sheets = Sheet::all()?;
            let episode = Episode::draw(&mut Random::new(2), &sheets[0], 5, 5);
            println!("shown were {}; right is {}", episode.names.join(", "), episode.answer());
            let mut names: Vec<String> = made_up().take(1000).collect();
            names.extend(episode.names.iter().map(|name| format!("{name}.")));
            (Flamingo::demo(&Options::default())?, episode.prompt()?, names)
        }
        [model, image, file] => {
            let names = std::fs::read_to_string(file).map_err(|error| Error::file(file, error))?;
            let mut prompt = Prompt::new();
            prompt.image_file(image)?.text("Output: a photo of")?;
            let names = names.lines().map(|name| format!(" {name}")).collect();
            (Flamingo::open(model, &Options::default())?, prompt, names)
        }
        _ => return Err(Error::argument("usage: classify [MODEL IMAGE NAMES.txt]")),
    };
    let classification = flamingo.classify(&prompt, &names)?;
    let mut choices = classification.choices;
    choices.sort_by(|a, b| b.sum.total_cmp(&a.sum));
    for choice in choices.iter().take(5) {
        println!("{:9.4} {}", choice.sum, choice.text);
    }
    let tokens: usize = choices.iter().map(|choice| choice.ids.len()).sum();
    let read = classification.usage.completion_tokens;
    println!("{} names of {tokens} tokens, {read} of which were computed", choices.len());
    Ok(())
}

/// Consonant, vowel, consonant, full stop.
fn made_up() -> impl Iterator<Item = String> {
    let consonants = "bcdfghjklmnpqrstvwxz".chars();
    consonants.clone().flat_map(move |first| {
        let last = consonants.clone();
        "aeiou".chars().flat_map(move |vowel| last.clone().map(move |last| format!("{first}{vowel}{last}.")))
    })
}

//! Captions the pictures named on the command line, word by word:
//! `cargo run --release --example caption -- MODEL a.jpg b.png`

use std::io::Write;

use flamant::{Flamingo, Generation, Options, Prompt};

fn main() -> flamant::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or_else(|| flamant::Error::argument("usage: caption MODEL PICTURE..."))?;
    let mut flamingo = Flamingo::open(model, &Options::default())?;
    let options = Generation { tokens_max: 20, stop: vec!["\n".to_owned()], ..Generation::default() };
    for picture in arguments {
        let mut prompt = Prompt::new();
        prompt.image_file(&picture)?.text("Output:")?;
        print!("{picture}:");
        flamingo.generate(&prompt, &options, &mut |text| {
            print!("{text}");
            // A caption that cannot be shown early is shown late.
            let _ = std::io::stdout().flush();
        })?;
        println!();
    }
    Ok(())
}

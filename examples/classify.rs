//! Few-shot classification: shows a few pictures with their labels, then ranks the labels for another picture:
//! `cargo run --release --example classify -- MODEL cat=a.png dog=b.png cat=c.png ?=d.png`

use flamant::{Error, Flamingo, Options, Prompt};

fn main() -> flamant::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or_else(|| Error::argument("usage: classify MODEL LABEL=PICTURE... ?=PICTURE"))?;
    let mut flamingo = Flamingo::open(model, &Options::default())?;
    let mut prompt = Prompt::new();
    let mut labels: Vec<String> = Vec::new();
    for argument in arguments {
        let (label, picture) = argument.split_once('=').ok_or_else(|| Error::argument("expected LABEL=PICTURE"))?;
        prompt.image_file(picture)?;
        if label == "?" {
            prompt.text("Output:")?;
            let choices = flamingo.classify(&prompt, &labels)?.choices;
            let best = choices.iter().max_by(|a, b| a.mean.total_cmp(&b.mean));
            println!("{picture}: {}", best.map_or("no label was shown", |choice| &choice.text));
            return Ok(());
        }
        prompt.text(format!("Output:{label}<|endofchunk|>"))?;
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_owned());
        }
    }
    Err(Error::argument("expected ?=PICTURE at the end"))
}

//! A batch of requests and an evaluation, into files that outlive a kill: started again, both go on where they stopped.
//! `cargo run --example batch [FOLDER]`, on the model in the program.

use std::path::PathBuf;

use flamant::batch::Batch;
use flamant::eval::shots::Selection;
use flamant::eval::{Evaluation, Progress, Settings};
use flamant::{Engine, Error, Options, Result};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("flamant-batch"), PathBuf::from);
    std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
    let mut engine = Engine::demo(&Options::default())?;

    let input = folder.join("requests.jsonl");
    let requests = [
        r#"{"id": "first", "prompt": [{"text": "kep. mul. kep."}], "max_new_tokens": 4}"#,
        r#"{"id": "second", "prompt": [{"text": "kep."}], "task": "classify", "choices": ["mul.", "kep."]}"#,
        r#"{"id": "third", "prompt": [{"image": "none.png"}]}"#,
    ];
    std::fs::write(&input, requests.join("\n")).map_err(|error| Error::file(&input, error))?;
    let batch = Batch::open(&input, folder.join("answers.jsonl"))?;
    println!("{} of {:?} requests were answered before", batch.answered_before(), batch.total());
    let summary = batch.run(&mut engine, |_| {})?;
    println!("{} answered now, {} of them with an error", summary.answered, summary.errors);

    let mut settings = Settings::symbols();
    settings.queries = Some(8);
    settings.shots = vec![0, 4];
    settings.selections = vec![Selection::Random];
    let evaluation = Evaluation::open(settings)?;
    let report = evaluation.run(&mut engine, folder.join("evaluation"), |progress| {
        if let Progress::Note(note) = progress {
            eprintln!("{note}");
        }
    })?;
    println!("{} questions answered now", report.answers);
    for series in &report.results.series {
        let scores: Vec<String> = series.points.iter().map(|point| format!("{:.0} %", point.score)).collect();
        println!("{}: {}", series.label, scores.join(", "));
    }
    Ok(())
}

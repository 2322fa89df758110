//! The task of the model in the box as sets: a few symbols of an alphabet that it has never seen get names that are
//! made up; some drawings of them can be shown, others are to be named. Each episode is a group of its own.

use std::sync::Arc;

use super::data::{Dataset, Example, Medium, Task};
use crate::demo::{ALPHABETS, Drawing, Random, Sheet};
use crate::error::Result;

/// Drawings of each symbol that can be shown; the others are asked for.
const SUPPORT: usize = 8;
/// Drawings asked for in an episode.
const ASKED: usize = 8;

/// Drawings to show and `query` drawings to ask for, from all held-out alphabets in turn; `ways`
/// symbols are in play.
///
/// # Errors
/// None but for a program that was built from broken files.
pub fn sets(ways: usize, query: usize, random: &mut Random) -> Result<(Dataset, Dataset)> {
    let sheets = Sheet::all()?;
    let alphabets: Vec<&Sheet> = sheets.iter().filter(|sheet| ALPHABETS.contains(&sheet.name.as_str())).collect();
    let (mut to_show, mut to_ask) = (Vec::new(), Vec::new());
    for number in 0..query.div_ceil(ASKED) {
        let sheet = alphabets[number % alphabets.len()];
        let symbols = random.distinct(sheet.rows, ways);
        let names: Arc<[String]> = random.names(ways).into();
        let columns: Vec<Vec<usize>> = symbols.iter().map(|_| random.distinct(sheet.columns, sheet.columns)).collect();
        let group: Arc<str> = format!("{}, episode {number}", sheet.name).into();
        let example = |way: usize, column: usize| -> Result<Example> {
            let drawing = Drawing { symbol: symbols[way], column: columns[way][column] };
            Ok(Example {
                id: format!("{group}, {} {}", names[way], drawing.column),
                medium: Medium::Drawn(Arc::new(sheet.image(drawing)?)),
                question: String::new(),
                answers: vec![names[way].clone()],
                choices: Some(names.clone()),
                group: Some(group.clone()),
            })
        };
        for way in 0..ways {
            to_show.extend((0..SUPPORT).map(|column| example(way, column)).collect::<Result<Vec<_>>>()?);
        }
        let left = sheet.columns - SUPPORT;
        for place in random.distinct(ways * left, ASKED.min(query - to_ask.len())) {
            to_ask.push(example(place / left, SUPPORT + place % left)?);
        }
    }
    let set = |examples| Dataset { task: Task::Classify, examples, choices: Arc::default() };
    Ok((set(to_show), set(to_ask)))
}

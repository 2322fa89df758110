//! The model in the program and its task: naming drawings of symbols it has never seen, by names that were made up for
//! the prompt (after Tsimpoukelli et al. 2021, "fast concept binding"). `tools/demo_model` trains it; `models/demo`
//! holds it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::engine::Generation;
use crate::engine::built_in::demo_files;
use crate::error::{Error, Result};
use crate::flamingo::Flamingo;
use crate::image::{self, Image};
use crate::prompt::Prompt;
use crate::sample::uniform;

/// The test images: one sheet of drawings for each alphabet.
const SHEETS: &[(&str, &[u8])] = demo_files![
    "symbols/symbols.json",
    "symbols/armenian.png",
    "symbols/georgian.png",
    "symbols/tifinagh.png",
    "symbols/nko.png",
    "symbols/syllabics.png",
    "symbols/procedural.png",
];

/// The alphabets whose mean is quoted; the sheet of made-up symbols stands beside them.
pub const ALPHABETS: [&str; 5] = ["armenian", "georgian", "tifinagh", "nko", "syllabics"];

/// All drawings of one alphabet: a symbol a row, a drawing of it a column.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sheet {
    /// Short name, as the command line takes it.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// Side of one drawing, pixels.
    pub tile: usize,
    /// Symbols.
    pub rows: usize,
    /// Drawings of each symbol.
    pub columns: usize,
    /// The symbols' code points; empty for made-up ones.
    pub code_points: Vec<u32>,
    /// Grey levels of the whole sheet, row by row.
    levels: Vec<u8>,
}

impl Sheet {
    /// The sheets that are part of the program.
    ///
    /// # Errors
    /// None but for a program that was built from broken files.
    pub fn all() -> Result<Vec<Sheet>> {
        let file = |name: &str| {
            let found = SHEETS.iter().find(|(file, _)| file.strip_prefix("symbols/") == Some(name));
            found.map(|(_, bytes)| *bytes).ok_or_else(|| Error::file(name, "no such sheet in the program"))
        };
        let list: Value =
            serde_json::from_slice(file("symbols.json")?).map_err(|error| Error::file("symbols.json", error))?;
        let sheets = list["sheets"].as_array().into_iter().flatten();
        sheets.map(|sheet| Sheet::read(sheet, file(sheet["file"].as_str().unwrap_or_default())?)).collect()
    }

    fn read(entry: &Value, png: &[u8]) -> Result<Sheet> {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let count = |key: &str| entry[key].as_u64().unwrap_or_default() as usize;
        let code_point = |value: &Value| u32::from_str_radix(value.as_str()?.strip_prefix("U+")?, 16).ok();
        let image = image::decode(png, &text("file"), &image::Limits::default())?;
        let (tile, rows, columns) = (count("tile"), count("rows"), count("columns"));
        let size = (image.width() as usize, image.height() as usize);
        if tile == 0 || size != (columns * tile, rows * tile) {
            let expected = format!("{columns} x {rows} drawings of {tile} pixels");
            return Err(Error::invalid(text("file"), "size", expected, format!("{size:?}")));
        }
        let code_points = entry["code_points"].as_array().into_iter().flatten().filter_map(code_point).collect();
        let levels = image.to_rgb().chunks_exact(3).map(|pixel| pixel[0]).collect();
        Ok(Sheet { name: text("name"), title: text("title"), tile, rows, columns, code_points, levels })
    }

    /// Grey levels of one drawing, (tile, tile).
    pub fn levels(&self, drawing: Drawing) -> Vec<u8> {
        let line = |y: usize| ((drawing.symbol * self.tile + y) * self.columns + drawing.column) * self.tile;
        (0..self.tile).flat_map(|y| self.levels[line(y)..line(y) + self.tile].iter().copied()).collect()
    }

    /// One drawing.
    pub(crate) fn image(&self, drawing: Drawing) -> Result<Image> {
        let pixels = self.levels(drawing).into_iter().flat_map(|level| [level; 3]).collect();
        Image::from_rgb(self.tile as u32, self.tile as u32, pixels)
    }
}

/// One drawing of a sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drawing {
    /// Which symbol: a row.
    pub symbol: usize,
    /// Which drawing of it: a column.
    pub column: usize,
}

impl Drawing {
    /// The drawing of `symbol` in a column.
    pub fn new(symbol: usize, column: usize) -> Self {
        Drawing { symbol, column }
    }
}

/// A few drawings with made-up names, and one more to be named.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Episode<'a> {
    /// Where the drawings are from.
    pub sheet: &'a Sheet,
    /// The names in play, one for each symbol.
    pub names: Vec<String>,
    /// The drawings shown, each with the number of its name.
    pub support: Vec<(Drawing, usize)>,
    /// The drawing to be named, with the number of its name.
    pub query: (Drawing, usize),
}

impl<'a> Episode<'a> {
    /// Drawings of a sheet with the numbers of their names: those shown, and the one to be named.
    pub fn new(sheet: &'a Sheet, names: Vec<String>, support: Vec<(Drawing, usize)>, query: (Drawing, usize)) -> Self {
        Episode { sheet, names, support, query }
    }
}

impl<'a> Episode<'a> {
    /// Draws `ways` symbols of a sheet at random and shows `support` drawings: each symbol once before any is repeated,
    /// no drawing twice while others are left, in random order. Any of the symbols may be asked for.
    pub fn draw(random: &mut Random, sheet: &'a Sheet, ways: usize, support: usize) -> Episode<'a> {
        let symbols = random.distinct(sheet.rows, ways);
        let mut order = random.distinct(ways, ways);
        order.truncate(support);
        order.extend((ways..support).map(|_| random.below(ways)).collect::<Vec<_>>());
        let places = random.distinct(order.len(), order.len());
        let mut order: Vec<usize> = places.into_iter().map(|place| order[place]).collect();
        order.push(random.below(ways));
        let columns: Vec<Vec<usize>> = (0..ways).map(|_| random.distinct(sheet.columns, sheet.columns)).collect();
        let mut used = vec![0; ways];
        let mut drawings: Vec<(Drawing, usize)> = order
            .into_iter()
            .map(|way| {
                let column = columns[way][used[way] % sheet.columns];
                used[way] += 1;
                (Drawing { symbol: symbols[way], column }, way)
            })
            .collect();
        let query = drawings.pop().expect("one drawing is always asked for");
        Episode { sheet, names: random.names(ways), support: drawings, query }
    }

    /// The name that is right.
    pub fn answer(&self) -> &str {
        &self.names[self.query.1]
    }

    /// The same with the drawings shown replaced by drawings of symbols that are not in play. What the prompt says can
    /// then no longer be known from its images.
    pub fn unrelated(&self, random: &mut Random) -> Episode<'a> {
        let in_play: BTreeSet<usize> =
            self.support.iter().chain([&self.query]).map(|(drawing, _)| drawing.symbol).collect();
        let others: Vec<usize> = (0..self.sheet.rows).filter(|symbol| !in_play.contains(symbol)).collect();
        let picked = random.distinct(others.len(), self.names.len());
        let replaced = |(drawing, way): &(Drawing, usize)| (Drawing { symbol: others[picked[*way]], ..*drawing }, *way);
        Episode { support: self.support.iter().map(replaced).collect(), ..self.clone() }
    }

    /// The same with the asked symbol's name and another one's changed round. The right answer is then the other name.
    pub fn swapped(&self, random: &mut Random) -> Episode<'a> {
        let (query, step) = (self.query.1, 1 + random.below(self.names.len() - 1));
        let mut names = self.names.clone();
        names.swap(query, (query + step) % self.names.len());
        Episode { names, ..self.clone() }
    }

    /// The episode as a prompt: each image followed by its name and a full stop, the asked one by nothing.
    pub fn prompt(&self) -> Result<Prompt> {
        let mut prompt = Prompt::new();
        for (drawing, way) in &self.support {
            prompt.image(self.sheet.image(*drawing)?)?.text(format!("{}.", self.names[*way]))?;
        }
        prompt.image(self.sheet.image(self.query.0)?)?;
        Ok(prompt)
    }

    /// What the model calls the asked drawing: it spells the name letter by letter, free to write anything.
    pub fn ask(&self, flamingo: &mut Flamingo) -> Result<String> {
        let options = Generation { max_new_tokens: 4, stop: vec![".".to_owned()], ..Generation::default() };
        Ok(flamingo.generate(&self.prompt()?, &options, &mut |_| {})?.text)
    }

    /// The odds of each name, in order; they add up to 1.
    pub fn odds(&self, flamingo: &mut Flamingo) -> Result<Vec<f64>> {
        let answers: Vec<String> = self.names.iter().map(|name| format!("{name}.")).collect();
        let choices = flamingo.classify(&self.prompt()?, &answers)?.choices;
        let likelihoods: Vec<f64> = choices.iter().map(|choice| choice.sum.exp()).collect();
        let total: f64 = likelihoods.iter().sum();
        Ok(likelihoods.into_iter().map(|likelihood| likelihood / total).collect())
    }

    /// Which name the model thinks likeliest of those in play.
    pub fn ranked(&self, flamingo: &mut Flamingo) -> Result<usize> {
        let odds = self.odds(flamingo)?;
        Ok((0..odds.len()).max_by(|&a, &b| odds[a].total_cmp(&odds[b])).expect("there are names"))
    }
}

/// Random choices that a seed repeats.
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    /// The choices of this seed.
    pub fn new(seed: u64) -> Self {
        Random { seed, drawn: 0 }
    }

    /// A whole number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        (uniform(self.seed, self.drawn) * bound as f64) as usize
    }

    /// `count` different numbers below `bound`, in random order.
    pub(crate) fn distinct(&mut self, bound: usize, count: usize) -> Vec<usize> {
        assert!(count <= bound);
        let mut all: Vec<usize> = (0..bound).collect();
        for place in 0..count {
            let other = place + self.below(bound - place);
            all.swap(place, other);
        }
        all.truncate(count);
        all
    }

    /// Different names of consonant, vowel, consonant.
    pub(crate) fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        while names.len() < count {
            let name: String =
                [CONSONANTS, VOWELS, CONSONANTS].map(|set| char::from(set[self.below(set.len())])).iter().collect();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxz";
const VOWELS: &[u8] = b"aeiou";

//! Names as tables: a family says in lines of text what its checkpoints call the weights of the model.

use crate::weights::{Layout, Names, Part, Sources};

/// The model's names on the left, the checkpoint's on the right. `{}` is a number (of a layer, of a block), `%` is
/// `weight` or `bias`, `+` stacks rows, and a trailing `?` marks a part that may be absent.
pub(super) type Table = &'static [(&'static str, &'static str)];

/// A table, and where in the checkpoint its names stand.
#[derive(Debug)]
pub(super) struct Section {
    /// What stands before all of them; may have `{}` too.
    prefix: String,
    table: Table,
    /// Tensors behind the prefix that checkpoints have and no model needs, as `{}` patterns.
    harmless: &'static [&'static str],
    /// The checkpoint's number of our 0, 1, 2, ...; none: the same.
    numbers: Option<Vec<usize>>,
    wrapped: Option<Wrapped>,
    /// What names of the table begin with and the checkpoint's do not.
    without: &'static str,
}

/// Layers that stand one level deeper, beside the block before them.
#[derive(Debug)]
struct Wrapped {
    /// What the names of all layers begin with, before the number.
    layers: &'static str,
    /// The level between.
    level: &'static str,
    /// Those that stand so.
    numbers: Vec<usize>,
}

impl Wrapped {
    /// A name of the table as it is in the checkpoint.
    fn name(&self, name: &str, number: Option<usize>) -> String {
        let prefix = format!("{}.{{}}.", self.layers);
        match name.strip_prefix(&prefix) {
            Some(rest) if number.is_some_and(|number| self.numbers.contains(&number)) => {
                format!("{prefix}{}.{rest}", self.level)
            }
            _ => name.to_owned(),
        }
    }
}

impl Section {
    /// A table of names behind a prefix.
    pub fn new(prefix: impl Into<String>, table: Table) -> Section {
        Section { prefix: prefix.into(), table, harmless: &[], numbers: None, wrapped: None, without: "" }
    }

    /// Tensors behind the prefix that may be there for nothing.
    pub fn harmless(self, harmless: &'static [&'static str]) -> Section {
        Section { harmless, ..self }
    }

    /// Names stand in the checkpoint without this beginning.
    pub fn without(self, without: &'static str) -> Section {
        Section { without, ..self }
    }

    /// Names that begin with `layers` and one of the `numbers` have a `level` after it.
    pub fn wrapped(self, layers: &'static str, level: &'static str, numbers: Vec<usize>) -> Section {
        Section { wrapped: Some(Wrapped { layers, level, numbers }), ..self }
    }

    /// Our 0, 1, 2, ... have these numbers in the checkpoint.
    pub fn numbered(self, numbers: Vec<usize>) -> Section {
        Section { numbers: Some(numbers), ..self }
    }
}

/// All names of a model.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub sections: Vec<Section>,
    /// What the names of all of the model's own tensors begin with.
    pub own: &'static [&'static str],
    /// Weights, by our pattern, that do not stand in the file as they are wanted.
    pub layouts: Vec<(&'static str, Layout)>,
}

impl Names for Tables {
    fn sources(&self, name: &str) -> Option<Sources> {
        let (name, kind) = name.strip_suffix(".bias").map_or((name, "weight"), |name| (name, "bias"));
        let (pattern, number) = generalised(name);
        let found =
            |section: &Section| section.table.iter().find(|(ours, _)| *ours == pattern).map(|(_, theirs)| *theirs);
        let (section, theirs) = self.sections.iter().find_map(|section| Some((section, found(section)?)))?;
        let of_layer = number;
        let number = match &section.numbers {
            Some(numbers) => number.map(|number| numbers.get(number).copied()).unwrap_or_default(),
            None => number,
        };
        let number = number.map(|number| number.to_string()).unwrap_or_default();
        let part = |theirs: &str| {
            let (tensor, optional) = theirs.strip_suffix('?').map_or((theirs, false), |tensor| (tensor, true));
            let tensor = tensor.strip_prefix(section.without).unwrap_or(tensor);
            let wrapped = section.wrapped.as_ref().map(|wrapped| wrapped.name(tensor, of_layer));
            let tensor = wrapped.as_deref().unwrap_or(tensor);
            let tensor = format!("{}{tensor}", section.prefix).replace("{}", &number).replace('%', kind);
            Part { tensor, optional }
        };
        let layout = self.layouts.iter().find(|(ours, _)| *ours == pattern).map_or(Layout::Rows, |(_, layout)| *layout);
        Some(Sources { parts: theirs.split('+').map(part).collect(), layout })
    }

    fn owns(&self, tensor: &str) -> bool {
        let (pattern, _) = generalised(tensor);
        let harmless = |section: &Section| {
            let Some(rest) = pattern.strip_prefix(&section.prefix) else { return false };
            let plain = section.wrapped.as_ref().map(|wrapped| rest.replacen(&format!(".{}.", wrapped.level), ".", 1));
            let plain = plain.as_deref().unwrap_or(rest);
            section.harmless.iter().any(|harmless| harmless.strip_prefix(section.without).unwrap_or(harmless) == plain)
        };
        self.own.iter().any(|prefix| tensor.starts_with(prefix)) && !self.sections.iter().any(harmless)
    }
}

/// "vision.layers.3.qkv" to ("vision.layers.{}.qkv", 3).
pub(super) fn generalised(name: &str) -> (String, Option<usize>) {
    let mut number = None;
    let pattern = name.split('.').map(|piece| match piece.parse() {
        Ok(found) => {
            number = Some(found);
            "{}"
        }
        Err(_) => piece,
    });
    let pattern = pattern.collect::<Vec<_>>().join(".");
    (pattern, number)
}

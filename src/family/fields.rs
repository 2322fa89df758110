//! Reading a configuration file: every complaint names the file, the key, what was expected and what was found.

use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::kind;
use crate::config::{Activation, RopeScaling};
use crate::error::{Error, Result};

/// A JSON object that knows its file and its path inside it, so that every complaint can name both.
pub struct Fields<'a> {
    file: &'a Path,
    path: String,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    pub fn new(file: &'a Path, root: &'a Value) -> Result<Self> {
        match root {
            Value::Object(map) => Ok(Fields { file, path: String::new(), map: Some(map) }),
            other => Err(Error::invalid(file, "the whole file", "a JSON object", kind(other))),
        }
    }

    /// A nested object; absent or null is an empty one.
    pub fn section(&self, key: &str) -> Result<Fields<'a>> {
        let map = match self.get(key) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => return Err(self.invalid(key, "an object", kind(other))),
        };
        Ok(Fields { file: self.file, path: format!("{}{key}.", self.path), map })
    }

    /// All keys with a value, null being none.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let all = self.map.into_iter().flatten().map(|(key, value)| (key.as_str(), value));
        all.filter(|(_, value)| !value.is_null())
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    pub fn invalid(&self, key: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::invalid(self.file, format!("{}{key}", self.path), expected, found)
    }

    pub fn missing(&self, key: &str, expected: &str) -> Error {
        self.invalid(key, expected, "nothing")
    }

    /// A whole number from 1 to `most`.
    pub fn count(&self, key: &str, default: Option<usize>, most: usize) -> Result<usize> {
        let expected = || format!("a whole number from 1 to {most}");
        match self.get(key) {
            None => default.ok_or_else(|| self.missing(key, &expected())),
            Some(value) => match value.as_u64() {
                Some(number) if (1..=most as u64).contains(&number) => Ok(number as usize),
                _ => Err(self.invalid(key, expected(), value)),
            },
        }
    }

    pub fn number(&self, key: &str, default: Option<f32>, range: std::ops::RangeInclusive<f32>) -> Result<f32> {
        match (self.optional_number(key, range)?, default) {
            (Some(number), _) | (None, Some(number)) => Ok(number),
            (None, None) => Err(self.missing(key, "a number")),
        }
    }

    pub fn optional_number(&self, key: &str, range: std::ops::RangeInclusive<f32>) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().map(|number| number as f32) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.invalid(key, format!("a number from {} to {}", range.start(), range.end()), value)),
        }
    }

    /// Positions of a decoder without a table of them: what the file says, or the 2048 that the whole family was made
    /// for, where a file says less or nothing.
    pub fn positions(&self, key: &str) -> Result<usize> {
        Ok(self.count(key, Some(2048), 1 << 20)?.max(2048))
    }

    pub fn epsilon(&self, key: &str, default: f32) -> Result<f32> {
        self.number(key, Some(default), 1e-12..=1e-1)
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.invalid(key, "true or false", other)),
        }
    }

    pub fn text(&self, key: &str, default: Option<&str>) -> Result<String> {
        match (self.get(key), default) {
            (Some(Value::String(text)), _) => Ok(text.clone()),
            (Some(other), _) => Err(self.invalid(key, "a string", other)),
            (None, Some(text)) => Ok(text.to_owned()),
            (None, None) => Err(self.missing(key, "a string")),
        }
    }

    /// The one of `known` that a text names.
    pub fn one_of<'t, T>(&self, key: &str, known: &'t [T], name: impl Fn(&T) -> &'static str) -> Result<&'t T> {
        let found = self.text(key, None)?;
        known.iter().find(|known| name(known) == found).ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|known| quoted(name(known))).collect();
            let (last, others) = names.split_last().expect("something is known");
            self.invalid(key, format!("{} or {last}", others.join(", ")), quoted(&found))
        })
    }

    pub fn activation(&self, key: &str, default: Option<&str>) -> Result<Activation> {
        match self.text(key, default)?.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "quick_gelu" => Ok(Activation::QuickGelu),
            "relu" => Ok(Activation::Relu),
            "relu2" => Ok(Activation::SquaredRelu),
            "silu" | "swish" => Ok(Activation::Silu),
            other => Err(self.invalid(key, "\"gelu\", \"quick_gelu\", \"relu\" or \"silu\"", quoted(other))),
        }
    }

    /// Base of the rotary frequencies: `rope_parameters.rope_theta` (transformers 5), `rope_theta`, or 10000.
    pub fn rope_theta(&self) -> Result<f32> {
        let parameters = self.section("rope_parameters")?;
        let kind = parameters.text("rope_type", Some("default"))?;
        if kind != "default" {
            return Err(parameters.invalid("rope_type", "\"default\"", quoted(&kind)));
        }
        if let Some(scaling) = self.get("rope_scaling") {
            return Err(self.invalid("rope_scaling", "null", scaling));
        }
        match parameters.optional_number("rope_theta", 1.0..=1e9)? {
            Some(theta) => Ok(theta),
            None => self.number("rope_theta", Some(10_000.0), 1.0..=1e9),
        }
    }

    /// Base of the rotary frequencies, and how they are scaled: `rope_parameters` (transformers 5), or `rope_theta` and
    /// `rope_scaling`.
    pub fn rope(&self, theta: f32) -> Result<(f32, Option<RopeScaling>)> {
        let parameters = self.section("rope_parameters")?;
        let scaling = match parameters.map {
            Some(_) => parameters,
            None => self.section("rope_scaling")?,
        };
        let theta = match scaling.optional_number("rope_theta", 1.0..=1e9)? {
            Some(theta) => theta,
            None => self.number("rope_theta", Some(theta), 1.0..=1e9)?,
        };
        // An older spelling.
        let key = if scaling.get("rope_type").is_none() { "type" } else { "rope_type" };
        match scaling.text(key, Some("default"))?.as_str() {
            "default" => Ok((theta, None)),
            "llama3" => {
                let scaling = RopeScaling {
                    factor: scaling.number("factor", None, 1.0..=1e6)?,
                    low_turns: scaling.number("low_freq_factor", None, 1e-6..=1e6)?,
                    high_turns: scaling.number("high_freq_factor", None, 1e-6..=1e6)?,
                    old_context: scaling.count("original_max_position_embeddings", None, 1 << 24)?,
                };
                match scaling.low_turns < scaling.high_turns {
                    true => Ok((theta, Some(scaling))),
                    false => {
                        let expected = format!("more than the low_freq_factor {}", scaling.low_turns);
                        Err(self.invalid("high_freq_factor", expected, scaling.high_turns))
                    }
                }
            }
            other => Err(scaling.invalid(key, "\"default\" or \"llama3\"", quoted(other))),
        }
    }

    /// A list of whole numbers.
    pub fn numbers(&self, key: &str, found: &Value) -> Result<Vec<usize>> {
        let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        let numbers = found.as_array().filter(|list| list.len() <= 4096);
        let numbers = numbers.and_then(|list| list.iter().map(number).collect());
        numbers.ok_or_else(|| self.invalid(key, "an array of whole numbers", found))
    }

    pub fn divides(&self, key: &str, divisor: usize, of: &str, number: usize) -> Result<()> {
        if number.is_multiple_of(divisor) {
            return Ok(());
        }
        Err(self.invalid(key, format!("a divisor of {of} {number}"), divisor))
    }

    /// Heads that divide the width into an even number of entries, which rotate in pairs.
    pub fn rotates(&self, key: &str, heads: usize, width: usize) -> Result<()> {
        self.divides(key, heads, "hidden_size", width)?;
        if (width / heads).is_multiple_of(2) {
            return Ok(());
        }
        Err(self.invalid(key, "heads of even width", format!("{heads} heads of {}", width / heads)))
    }

    /// That nothing is said of how weights were quantised but in the key that opening them heeds.
    pub fn refuse_other_quantisation(&self) -> Result<()> {
        self.refuse_quantisation(&["quantization", "compression_config"])
    }

    /// That weights are numbers: what is said of how they were quantised must be absent or null.
    pub fn refuse_quantised(&self) -> Result<()> {
        self.refuse_quantisation(&["quantization_config"])?;
        self.refuse_other_quantisation()
    }

    fn refuse_quantisation(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            if let Some(found) = self.get(key) {
                let expected = "none: weights quantised so are not read; take the model before it was quantised";
                let method = found.get("quant_method").and_then(Value::as_str);
                return Err(self.invalid(key, expected, method.map_or_else(|| found.to_string(), quoted)));
            }
        }
        Ok(())
    }

    /// A key that must be absent, null or `false`: what it would ask for is not supported.
    pub fn absent(&self, key: &str) -> Result<()> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(other) => Err(self.invalid(key, "null", other)),
        }
    }
}

pub fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

//! What a text goes through before the model cuts it: the normalizers and pre-tokenizers that published models use,
//! each with how much longer it may make a text; and the tokens that stand around it.

use serde_json::Value;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Prepend, Replace, Sequence as Normalizers, Strip, StripAccents,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::charsmap;
use super::component::Component;
use crate::error::{Error, Result};

/// How many times as long a text may become.
pub const GROWTH_MAX: u64 = 64;
/// Most bytes of what is put before a text or in another one's place.
const CONTENT_BYTES_MAX: usize = 64;
/// Most tokens around a text.
const AROUND_MAX: usize = 64;
/// One past the largest id.
pub const ID_MAX: u32 = 1 << 24;

/// The expressions of GPT-2 and of Llama 3: how they are written, no other is known.
const SPLITS: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
];
/// The expression by which SentencePiece's models make runs of spaces one.
const SPACES: &str = " {2,}";

/// A step, and how many times as long it makes a text at most.
struct Step<T> {
    does: T,
    growth: u64,
}

fn step<T>(does: impl Into<T>, growth: u64) -> Result<Step<T>> {
    Ok(Step { does: does.into(), growth })
}

/// The normalizer that a file describes, and how many times as long it may make a text, which is at most
/// [`GROWTH_MAX`].
///
/// # Errors
/// One that is not on the list, or makes a text too long.
pub fn normalizer(component: Option<Component>) -> Result<(Option<NormalizerWrapper>, u64)> {
    bounded(component, normalizer_step)
}

/// As [`normalizer`], of the pre-tokenizer.
pub fn pre_tokenizer(component: Option<Component>) -> Result<(Option<PreTokenizerWrapper>, u64)> {
    bounded(component, pre_tokenizer_step)
}

fn bounded<T>(component: Option<Component>, read: impl Fn(&Component) -> Result<Step<T>>) -> Result<(Option<T>, u64)> {
    let Some(component) = component else { return Ok((None, 1)) };
    let Step { does, growth } = read(&component)?;
    if growth > GROWTH_MAX {
        let expected = format!("what makes a text at most {GROWTH_MAX} times as long");
        return Err(component.invalid("type", expected, format!("{growth} times")));
    }
    Ok((Some(does), growth))
}

/// The steps of a sequence, and how many times as long they make a text one after the other.
fn steps<T>(component: &Component, key: &str, read: impl Fn(&Component) -> Result<Step<T>>) -> Result<Step<Vec<T>>> {
    component.only(&[key])?;
    let (mut all, mut growth) = (Vec::new(), 1_u64);
    for part in component.parts(key)? {
        if part.field("type") == Some("Sequence") {
            return Err(part.invalid("type", "a step that is no Sequence itself", "a Sequence"));
        }
        let step = read(&part)?;
        growth = growth.saturating_mul(step.growth);
        all.push(step.does);
    }
    Ok(Step { does: all, growth })
}

fn normalizer_step(component: &Component) -> Result<Step<NormalizerWrapper>> {
    const KINDS: &[&str] = &[
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "Prepend",
        "Replace",
        "Sequence",
        "Strip",
        "StripAccents",
    ];
    let kind = component.kind(KINDS)?;
    if ["Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents"].contains(&kind) {
        component.only(&[])?;
    }
    // The largest factors of Unicode's normal forms in UTF-8.
    match kind {
        "NFC" => step(NFC, 3),
        "NFD" => step(NFD, 3),
        "NFKC" => step(NFKC, 11),
        "NFKD" => step(NFKD, 11),
        "Lowercase" => step(Lowercase, 2),
        "Nmt" => step(Nmt, 1),
        "StripAccents" => step(StripAccents, 1),
        "Strip" => {
            component.only(&["strip_left", "strip_right"])?;
            step(Strip::new(component.flag("strip_left", true)?, component.flag("strip_right", true)?), 1)
        }
        "Prepend" => {
            component.only(&["prepend"])?;
            let text = short(component, "prepend")?;
            if text.is_empty() {
                return Err(component.invalid("prepend", "a text", "an empty one"));
            }
            step(Prepend::new(text.to_owned()), 1 + text.len() as u64)
        }
        "Replace" => replace(component),
        "Precompiled" => {
            component.only(&["precompiled_charsmap"])?;
            let (normalizer, growth) = charsmap::read(component, "precompiled_charsmap")?;
            step(normalizer, growth)
        }
        _ => {
            let all = steps(component, "normalizers", normalizer_step)?;
            step(Normalizers::new(all.does), all.growth)
        }
    }
}

fn replace(component: &Component) -> Result<Step<NormalizerWrapper>> {
    component.only(&["pattern", "content"])?;
    let content = short(component, "content")?;
    let (pattern, least) = match component.pattern()? {
        ("String", text) => (ReplacePattern::String(text.to_owned()), text.len()),
        (_, SPACES) => (ReplacePattern::Regex(SPACES.to_owned()), 2),
        (_, other) => return Err(component.invalid("pattern", format!("a String or the Regex {SPACES:?}"), other)),
    };
    let replace = Replace::new(pattern, content).map_err(|reason| component.invalid("pattern", "a pattern", reason))?;
    step(replace, content.len().div_ceil(least).max(1) as u64)
}

fn pre_tokenizer_step(component: &Component) -> Result<Step<PreTokenizerWrapper>> {
    const KINDS: &[&str] = &["ByteLevel", "Digits", "Metaspace", "Sequence", "Split", "WhitespaceSplit"];
    match component.kind(KINDS)? {
        "ByteLevel" => {
            component.only(&["add_prefix_space", "trim_offsets", "use_regex"])?;
            let [space, offsets, regex] = ["add_prefix_space", "trim_offsets", "use_regex"];
            let byte_level = ByteLevel::new(
                component.flag(space, true)?,
                component.flag(offsets, true)?,
                component.flag(regex, true)?,
            );
            // Two bytes for each byte, and for the space before each piece.
            step(byte_level, 4)
        }
        "Digits" => {
            component.only(&["individual_digits"])?;
            step(Digits::new(component.flag("individual_digits", false)?), 1)
        }
        "Metaspace" => {
            let (replacement, scheme) = component.metaspace()?;
            let scheme = match scheme {
                "first" => PrependScheme::First,
                "never" => PrependScheme::Never,
                _ => PrependScheme::Always,
            };
            // Before a piece of one byte, or in its place.
            step(Metaspace::new(replacement, scheme, component.flag("split", true)?), 1 + replacement.len_utf8() as u64)
        }
        "Split" => step(split(component)?, 1),
        "WhitespaceSplit" => {
            component.only(&[])?;
            step(WhitespaceSplit, 1)
        }
        _ => {
            let all = steps(component, "pretokenizers", pre_tokenizer_step)?;
            step(PreTokenizers::new(all.does), all.growth)
        }
    }
}

fn split(component: &Component) -> Result<Split> {
    component.only(&["pattern", "behavior", "invert"])?;
    let known = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];
    let behavior = match component.choice("behavior", &known)? {
        "Removed" => SplitDelimiterBehavior::Removed,
        "Isolated" => SplitDelimiterBehavior::Isolated,
        "MergedWithPrevious" => SplitDelimiterBehavior::MergedWithPrevious,
        "MergedWithNext" => SplitDelimiterBehavior::MergedWithNext,
        _ => SplitDelimiterBehavior::Contiguous,
    };
    let pattern = match component.pattern()? {
        ("String", text) if text.len() > CONTENT_BYTES_MAX => {
            let found = format!("{} bytes", text.len());
            return Err(component.invalid("pattern", format!("at most {CONTENT_BYTES_MAX} bytes"), found));
        }
        ("String", text) => SplitPattern::String(text.to_owned()),
        (_, known) if SPLITS.contains(&known) => SplitPattern::Regex(known.to_owned()),
        (_, other) => {
            return Err(component.invalid(
                "pattern",
                "a String or the Regex of GPT-2 or Llama 3",
                format!("{other:?}"),
            ));
        }
    };
    let split = Split::new(pattern, behavior, component.flag("invert", false)?);
    split.map_err(|reason| component.invalid("pattern", "a pattern", reason))
}

/// A text that is put into others.
fn short<'a>(component: &Component<'a>, key: &str) -> Result<&'a str> {
    let text = component.text(key)?;
    if text.len() > CONTENT_BYTES_MAX {
        let found = format!("{} bytes", text.len());
        return Err(component.invalid(key, format!("at most {CONTENT_BYTES_MAX} bytes"), found));
    }
    Ok(text)
}

/// The tokens before and after a text.
#[derive(Debug, Default)]
pub struct Around {
    /// Before.
    pub before: Vec<u32>,
    /// After.
    pub after: Vec<u32>,
}

impl Around {
    /// What the post-processor that a file describes puts around a text. What it does to positions in the text is
    /// nothing to us, nor what it does to pairs of texts.
    ///
    /// # Errors
    /// One that is not on the list; a template without the text, or with too much around it.
    pub fn read(component: Option<Component>) -> Result<Self> {
        let mut around = Around::default();
        if let Some(component) = component {
            around.add(&component)?;
        }
        Ok(around)
    }

    fn add(&mut self, component: &Component) -> Result<()> {
        match component.kind(&["ByteLevel", "Sequence", "TemplateProcessing"])? {
            "ByteLevel" => component.only(&["add_prefix_space", "trim_offsets", "use_regex"]),
            "Sequence" => {
                component.only(&["processors"])?;
                for part in component.parts("processors")? {
                    if part.field("type") == Some("Sequence") {
                        return Err(part.invalid("type", "a step that is no Sequence itself", "a Sequence"));
                    }
                    self.add(&part)?;
                }
                Ok(())
            }
            _ => {
                component.only(&["single", "pair", "special_tokens"])?;
                let (before, after) = template(component)?;
                self.before.splice(..0, before);
                self.after.extend(after);
                if self.before.len() + self.after.len() > AROUND_MAX {
                    return Err(component.invalid("single", format!("at most {AROUND_MAX} tokens"), "more"));
                }
                Ok(())
            }
        }
    }
}

/// The tokens before and after the text in a template.
fn template(component: &Component) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut before, mut after, mut texts) = (Vec::new(), Vec::new(), 0);
    for (key, piece) in component.list("single")? {
        let invalid = |expected: &str, found: &str| Err(Error::invalid(component.file(), &key, expected, found));
        let name = |kind: &str| piece.get(kind).and_then(|piece| piece.get("id")).and_then(Value::as_str);
        match (name("Sequence"), name("SpecialToken")) {
            (Some("A"), None) => texts += 1,
            (None, Some(name)) => {
                let ids = special(component, name)?;
                let place = if texts == 0 { &mut before } else { &mut after };
                if place.len() + ids.len() > AROUND_MAX {
                    return invalid(&format!("at most {AROUND_MAX} tokens"), "more");
                }
                place.extend(ids);
            }
            _ => return invalid("the Sequence A or a SpecialToken", "something else"),
        }
    }
    match texts {
        1 => Ok((before, after)),
        _ => Err(component.invalid("single", "the Sequence A once", format!("{texts} of it"))),
    }
}

/// The ids of a template's token.
fn special(component: &Component, name: &str) -> Result<Vec<u32>> {
    let token = component.value("special_tokens").and_then(|tokens| tokens.get(name));
    let ids = token.and_then(|token| token.get("ids")).and_then(Value::as_array);
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < ID_MAX);
    let ids = ids.filter(|ids| ids.len() <= AROUND_MAX);
    let ids = ids.and_then(|ids| ids.iter().map(id).collect::<Option<Vec<u32>>>());
    ids.ok_or_else(|| {
        let expected = format!("at most {AROUND_MAX} ids below {ID_MAX} of the token {name:?}");
        component.invalid("special_tokens", expected, "something else")
    })
}

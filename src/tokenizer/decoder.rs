//! From tokens to text, piece by piece: the decoders that published models use, in our own words. Each is a state that
//! takes one token after the other, so that the pieces of a text are the whole text.

use super::component::Component;
use crate::error::Result;

/// Most bytes of what a decoder puts in another text's place.
const CONTENT_BYTES_MAX: usize = 16;

/// How tokens become text.
#[derive(Debug)]
pub enum Decoder {
    /// Tokens stand with a space between them.
    Spaced,
    /// Each character of a token stands for a byte.
    ByteLevel,
    /// A character stands for the space before a word.
    Metaspace {
        /// The character.
        replacement: char,
        /// Whether the first token has lost the space before it.
        first_has_none: bool,
    },
    /// What SentencePiece does, step by step.
    Chain(Chain),
}

/// The steps of a chain, in the order in which they are done. None of them has to be there.
#[derive(Debug, Default)]
pub struct Chain {
    /// Texts that others take the place of, within a token.
    replaced: Vec<(String, String)>,
    /// Whether tokens such as `<0xE2>` are bytes.
    byte_fallback: bool,
    /// Whether what follows is done once with the whole text, instead of with each token.
    fused: bool,
    /// A character that is taken away from the beginning, so often at most.
    stripped: Option<(char, usize)>,
}

/// What the tokens so far leave for the next.
#[derive(Debug, Default)]
pub struct State {
    /// Bytes that are no whole text yet.
    bytes: Vec<u8>,
    /// Whether there was a token.
    begun: bool,
    /// Whether the beginning of the text is over, or how much of it was taken away.
    over: bool,
    taken: usize,
}

impl Decoder {
    /// The decoder that a file describes.
    ///
    /// # Errors
    /// One that is not on the list; steps in another order.
    pub fn read(component: Option<Component>) -> Result<Self> {
        let Some(component) = component else { return Ok(Decoder::Spaced) };
        match component.kind(&["ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "Strip"])? {
            "ByteLevel" => {
                component.only(&["add_prefix_space", "trim_offsets", "use_regex"])?;
                Ok(Decoder::ByteLevel)
            }
            "Metaspace" => {
                let (replacement, scheme) = component.metaspace()?;
                Ok(Decoder::Metaspace { replacement, first_has_none: scheme != "never" })
            }
            "Sequence" => {
                component.only(&["decoders"])?;
                let parts = component.parts("decoders")?;
                match parts.as_slice() {
                    [part] if matches!(part.field("type"), Some("ByteLevel" | "Metaspace")) => {
                        Decoder::read(Some(parts.into_iter().next().expect("one part")))
                    }
                    _ => Chain::read(parts).map(Decoder::Chain),
                }
            }
            _ => Chain::read(vec![component]).map(Decoder::Chain),
        }
    }

    /// The text that a token completes.
    pub fn push(&self, state: &mut State, token: &str) -> String {
        let is_first = !std::mem::replace(&mut state.begun, true);
        match self {
            Decoder::Spaced if is_first => token.to_owned(),
            Decoder::Spaced => format!(" {token}"),
            Decoder::ByteLevel => {
                match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
                    Some(bytes) => state.bytes.extend(bytes),
                    None => state.bytes.extend(token.as_bytes()),
                }
                whole_characters(&mut state.bytes)
            }
            Decoder::Metaspace { replacement, first_has_none: true } if is_first => token.replace(*replacement, ""),
            Decoder::Metaspace { replacement, .. } => token.replace(*replacement, " "),
            Decoder::Chain(chain) => chain.push(state, token),
        }
    }

    /// The bytes that a token stands for within a text.
    pub fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            Decoder::Spaced => format!(" {token}").into_bytes(),
            Decoder::ByteLevel => {
                let bytes = token.chars().map(byte_of).collect::<Option<Vec<u8>>>();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Decoder::Metaspace { replacement, .. } => token.replace(*replacement, " ").into_bytes(),
            Decoder::Chain(chain) => {
                let mut token = token.to_owned();
                for (from, to) in &chain.replaced {
                    token = token.replace(from, to);
                }
                match byte_token(&token).filter(|_| chain.byte_fallback) {
                    Some(byte) => vec![byte],
                    None => token.into_bytes(),
                }
            }
        }
    }

    /// What is left when no more tokens come. The state begins anew.
    pub fn finish(&self, state: &mut State) -> String {
        let mut state = std::mem::take(state);
        match self {
            Decoder::Spaced | Decoder::Metaspace { .. } => String::new(),
            Decoder::ByteLevel => String::from_utf8_lossy(&state.bytes).into_owned(),
            Decoder::Chain(chain) => chain.end_of_run(&mut state),
        }
    }
}

impl Chain {
    fn read(parts: Vec<Component>) -> Result<Self> {
        const ORDER: &[&str] = &["Replace", "ByteFallback", "Fuse", "Strip"];
        let mut chain = Chain::default();
        let mut last = 0;
        for part in parts {
            let kind = part.kind(ORDER)?;
            let place = ORDER.iter().position(|step| *step == kind).expect("a kind of the list");
            if place < last {
                return Err(part.invalid("type", "Replace, ByteFallback, Fuse, Strip in this order", kind));
            }
            last = place;
            match kind {
                "Replace" => {
                    let (from, to) = part.replace()?;
                    if to.len() > CONTENT_BYTES_MAX {
                        let expected = format!("at most {CONTENT_BYTES_MAX} bytes");
                        return Err(part.invalid("content", expected, format!("{} bytes", to.len())));
                    }
                    chain.replaced.push((from.to_owned(), to.to_owned()));
                    // Each may make what the next one finds.
                    if chain.replaced.len() > 2 {
                        return Err(part.invalid("type", "at most 2 of Replace", "more"));
                    }
                }
                "ByteFallback" => {
                    part.only(&[])?;
                    chain.byte_fallback = true;
                }
                "Fuse" => {
                    part.only(&[])?;
                    chain.fused = true;
                }
                _ => {
                    part.only(&["content", "start", "stop"])?;
                    if part.count("stop")? != 0 {
                        return Err(part.invalid("stop", "0", part.count("stop")?));
                    }
                    if chain.stripped.replace((part.character("content")?, part.count("start")?)).is_some() {
                        return Err(part.invalid("type", "one Strip", "two"));
                    }
                }
            }
        }
        Ok(chain)
    }

    fn push(&self, state: &mut State, token: &str) -> String {
        let mut token = token.to_owned();
        for (from, to) in &self.replaced {
            token = token.replace(from, to);
        }
        if let Some(byte) = byte_token(&token).filter(|_| self.byte_fallback) {
            state.bytes.push(byte);
            return String::new();
        }
        let mut text = self.end_of_run(state);
        text += self.strip(state, &token);
        text
    }

    /// The text of the bytes before a token that is none, or before the end: whether they are text shows only there.
    fn end_of_run(&self, state: &mut State) -> String {
        let bytes = std::mem::take(&mut state.bytes);
        if bytes.is_empty() {
            return String::new();
        }
        match String::from_utf8(bytes) {
            Ok(text) => self.strip(state, &text).to_owned(),
            Err(wrong) => wrong.as_bytes().iter().map(|_| self.strip(state, "\u{fffd}")).collect(),
        }
    }

    /// A token, or the next piece of the whole text, without what is taken away at its beginning.
    fn strip<'a>(&self, state: &mut State, token: &'a str) -> &'a str {
        let Some((character, most)) = self.stripped else { return token };
        if !self.fused {
            (state.over, state.taken) = (false, 0);
        }
        let mut rest = token;
        while !state.over && state.taken < most {
            match rest.strip_prefix(character) {
                Some(after) => {
                    rest = after;
                    state.taken += 1;
                }
                None if rest.is_empty() => break,
                None => state.over = true,
            }
        }
        rest
    }
}

/// The byte that a character stands for in GPT-2's alphabet: printable ones stand for themselves, the characters from
/// U+0100 on for the others in their order.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    Some(byte as u8)
}

/// The byte of a token such as `<0xE2>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 { None } else { u8::from_str_radix(digits, 16).ok() }
}

/// Takes the whole characters from the beginning of these bytes; bytes that are none become U+FFFD, as
/// [`String::from_utf8_lossy`] has it.
fn whole_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        taken += chunk.valid().len();
        let wrong = chunk.invalid();
        let is_cut_off = str::from_utf8(wrong).is_err_and(|error| error.error_len().is_none());
        if wrong.is_empty() || is_cut_off {
            break;
        }
        text.push('\u{fffd}');
        taken += wrong.len();
    }
    bytes.drain(..taken);
    text
}

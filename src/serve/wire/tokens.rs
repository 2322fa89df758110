//! Tokens of answers and prompts as clients read them: their text, their bytes, their log-probabilities.

use serde_json::{Map, Value, json};

use crate::tokenizer::Tokenizer;

/// A token's text; bytes that are no whole character are shown as such.
pub fn text(tokenizer: &Tokenizer, id: u32) -> String {
    String::from_utf8_lossy(&tokenizer.bytes(id)).into_owned()
}

fn entry(tokenizer: &Tokenizer, id: u32, logprob: f64) -> Value {
    let bytes = tokenizer.bytes(id);
    json!({"token": String::from_utf8_lossy(&bytes), "logprob": logprob, "bytes": bytes})
}

/// A token of a chat's answer, with the likeliest in its place.
pub fn of_chat(tokenizer: &Tokenizer, id: u32, logprob: f64, top: &[(u32, f64)]) -> Value {
    let mut told = entry(tokenizer, id, logprob);
    told["top_logprobs"] = top.iter().map(|&(id, logprob)| entry(tokenizer, id, logprob)).collect();
    told
}

/// Tokens of a completion, as they come.
pub struct Listed {
    tokens: Vec<String>,
    logprobs: Vec<Option<f64>>,
    top: Vec<Value>,
    offsets: Vec<usize>,
    /// Characters of the text before the next token.
    at: usize,
}

impl Listed {
    /// No tokens yet; the next one's text begins after so many characters.
    pub fn new(at: usize) -> Listed {
        Listed { tokens: Vec::new(), logprobs: Vec::new(), top: Vec::new(), offsets: Vec::new(), at }
    }

    /// Adds a token whose text begins after so many characters.
    fn add_at(&mut self, tokenizer: &Tokenizer, at: usize, id: u32, logprob: Option<f64>, top: &[(u32, f64)]) {
        let token = text(tokenizer, id);
        let Some(logprob) = logprob else {
            // The first of a prompt: nothing stands before it.
            self.push(at, token, None, Value::Null);
            return;
        };
        let mut likely = Map::new();
        for &(id, logprob) in top.iter().chain([&(id, logprob)]) {
            // Of tokens with the same text, the likeliest.
            likely.entry(text(tokenizer, id)).or_insert(logprob.into());
        }
        self.push(at, token, Some(logprob), Value::Object(likely));
    }

    fn push(&mut self, at: usize, token: String, logprob: Option<f64>, top: Value) {
        self.offsets.push(at);
        self.tokens.push(token);
        self.logprobs.push(logprob);
        self.top.push(top);
    }

    /// Adds a token that was written.
    pub fn add(&mut self, tokenizer: &Tokenizer, id: u32, logprob: f64, top: &[(u32, f64)]) {
        let at = self.at;
        self.add_at(tokenizer, at, id, Some(logprob), top);
        self.at += self.tokens.last().map_or(0, |token| token.chars().count());
    }

    /// Adds the tokens of a prompt, whose text is `text`.
    pub fn prompt(&mut self, tokenizer: &Tokenizer, text: &str, score: &crate::engine::Score) {
        let begin = self.at;
        let mut read = 0;
        for (place, (&id, &logprob)) in score.ids.iter().zip(&score.logprobs).enumerate() {
            let at = begin + characters(&text.as_bytes()[..read]);
            self.add_at(tokenizer, at, id, logprob, score.top.get(place).map_or(&[], |top| &top[..]));
            read += step(&text.as_bytes()[read..], &tokenizer.bytes(id));
        }
        self.at = begin + text.chars().count();
    }

    /// As clients read it.
    pub fn json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        })
    }
}

/// Characters that begin in these bytes of a text.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

/// How far a token reads on in a text: not at all if it is one that the tokenizer has put there. The first word of a
/// text may lack the space that its token has.
fn step(text: &[u8], token: &[u8]) -> usize {
    let bare = token.strip_prefix(b" ").unwrap_or(token);
    [token, bare].into_iter().find(|token| text.starts_with(token)).map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_again_in_their_text() {
        assert_eq!(step(b"a dog", b" a"), 1, "the first word");
        assert_eq!(step(b" dog", b" dog"), 4);
        assert_eq!(step(b"a dog", b"<s>"), 0, "what the tokenizer has put there");
        // A character of two tokens begins with the first.
        let text = "\u{e9}a".as_bytes();
        assert_eq!((step(text, &[0xC3]), step(&text[1..], &[0xA9])), (1, 1));
        assert_eq!((characters(&text[..0]), characters(&text[..1]), characters(&text[..2])), (0, 1, 1));
    }
}

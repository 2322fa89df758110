//! Text of tokens as they come.

use super::Tokenizer;
use super::decoder::State;

/// Turns tokens into text as they come, in whole characters: the pieces are together what [`Tokenizer::decode`] makes
/// of all tokens. A run of tokens that are single bytes is held back until it ends.
#[derive(Debug, Default)]
pub struct TextStream {
    state: State,
}

impl TextStream {
    /// The text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        match tokenizer.written(id) {
            Some(token) => tokenizer.decoder().push(&mut self.state, &token),
            None => String::new(),
        }
    }

    /// What is left when no more tokens come. A text that begins after it is another one.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> String {
        tokenizer.decoder().finish(&mut self.state)
    }
}

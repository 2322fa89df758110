//! Stop texts, looked for while a text grows: each byte of it is looked at once for each of them, whatever their length
//! (Knuth, Morris and Pratt 1977).

/// Stop texts, and how much of each the text ends with.
pub struct Stops(Vec<Stop>);

struct Stop {
    text: Box<[u8]>,
    /// For each length of a beginning, the next shorter beginning that it ends with.
    shorter: Box<[usize]>,
    /// Bytes of the beginning that the text ends with.
    matched: usize,
}

impl Stops {
    /// These texts, none of which is empty.
    pub fn new(texts: &[String]) -> Stops {
        Stops(texts.iter().map(|text| Stop::new(text.as_bytes())).collect())
    }

    /// Takes the next `piece` of a text that had `before` bytes; where the first stop text begins, if one is whole.
    pub fn push(&mut self, before: usize, piece: &str) -> Option<usize> {
        self.0.iter_mut().filter_map(|stop| stop.push(before, piece.as_bytes())).min()
    }

    /// Bytes at the end of the text that may still become a stop text.
    pub fn held(&self) -> usize {
        self.0.iter().map(|stop| stop.matched).max().unwrap_or(0)
    }
}

impl Stop {
    fn new(text: &[u8]) -> Stop {
        let mut stop = Stop { text: text.into(), shorter: vec![0; text.len()].into(), matched: 0 };
        for (at, &byte) in text.iter().enumerate().skip(1) {
            stop.step(byte);
            stop.shorter[at] = stop.matched;
        }
        stop.matched = 0;
        stop
    }

    /// Takes a byte; the beginning that was matched is not the whole text.
    fn step(&mut self, byte: u8) {
        while self.matched > 0 && self.text[self.matched] != byte {
            self.matched = self.shorter[self.matched - 1];
        }
        self.matched += usize::from(self.text[self.matched] == byte);
    }

    fn push(&mut self, before: usize, piece: &[u8]) -> Option<usize> {
        for (at, &byte) in piece.iter().enumerate() {
            self.step(byte);
            if self.matched == self.text.len() {
                return Some(before + at + 1 - self.text.len());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of two letters, where beginnings recur, in pieces of any length.
    #[test]
    fn the_first_stop_text_is_found_in_whatever_pieces() {
        let mut seed = 1_u64;
        let mut below = |count: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % count
        };
        for _ in 0..20_000 {
            let mut word = |least: usize, most: usize| -> String {
                (0..least + below(most)).map(|_| ["a", "b", "\u{e9}", "\u{e8}"][below(3) + below(2)]).collect()
            };
            let (texts, pieces): (Vec<String>, Vec<String>) =
                ((0..3).map(|_| word(1, 4)).collect(), (0..5).map(|_| word(0, 4)).collect());
            let (mut stops, mut text) = (Stops::new(&texts), String::new());
            for piece in &pieces {
                let found = stops.push(text.len(), piece);
                text += piece;
                let want = texts.iter().filter_map(|stop| text.find(stop.as_str())).min();
                assert_eq!(found, want, "{texts:?} in {pieces:?}");
                if found.is_some() {
                    break;
                }
                let beginnings = texts.iter().flat_map(|stop| stop.char_indices().map(move |(at, _)| &stop[..at]));
                let held = beginnings.filter(|beginning| text.ends_with(beginning)).map(str::len).max();
                assert_eq!(stops.held(), held.unwrap_or(0), "{texts:?} in {pieces:?}");
            }
        }
    }
}

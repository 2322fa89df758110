//! A prompt in numbers.

use blake3::{Hash, Hasher};

use crate::kv::{self, MediaSeen, PAGE_TOKENS};

/// An image or video of a prompt.
#[derive(Debug, Clone, Copy)]
pub struct PromptImage {
    /// What is in it: no two images of one content differ in anything else.
    pub content: Hash,
    /// Of how many frames it is.
    pub frames: usize,
    /// Rows of keys and values that stand for it.
    pub rows: usize,
}

impl PromptImage {
    /// Media pages that it takes.
    pub fn pages(&self) -> usize {
        kv::media_pages(self.rows)
    }
}

/// A prompt in numbers.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Its tokens, at least one.
    pub ids: Vec<u32>,
    /// For each token the images of the prompt that it sees. The last entry is that of all tokens after it, which may
    /// stand behind the prompt's own.
    pub sees: Vec<MediaSeen>,
    /// The images, in order.
    pub images: Vec<PromptImage>,
    /// Names of the full pages.
    pub pages: Vec<Hash>,
    /// What goes into all names, if they are to be found only by prompts that have the same.
    pub(super) salt: Option<Salt>,
}

/// Keeps names apart that are else the same.
pub type Salt = [u8; 32];

/// What makes names: of other names where the salt is another.
pub fn hasher(salt: Option<&Salt>) -> Hasher {
    salt.map_or_else(Hasher::new, Hasher::new_keyed)
}

impl Tokens {
    /// Names a prompt's pages: each by all tokens up to its end and the images they see.
    pub fn new(ids: Vec<u32>, sees: Vec<MediaSeen>, images: Vec<PromptImage>) -> Tokens {
        Tokens::salted(ids, sees, images, None)
    }

    /// As [`Tokens::new`], with names that are found by the same salt only.
    pub fn salted(ids: Vec<u32>, sees: Vec<MediaSeen>, images: Vec<PromptImage>, salt: Option<Salt>) -> Tokens {
        let mut tokens = Tokens { ids, sees, images, pages: Vec::new(), salt };
        while tokens.pages.len() < tokens.ids.len() / PAGE_TOKENS {
            tokens.hash_next(&[]);
        }
        tokens
    }

    /// Names the next page, which ends among the tokens of `suffix` after the prompt.
    pub(super) fn hash_next(&mut self, suffix: &[u32]) {
        let mut hasher = hasher(self.salt.as_ref());
        if let Some(before) = self.pages.last() {
            hasher.update(before.as_bytes());
        }
        let first = self.pages.len() * PAGE_TOKENS;
        let positions = first..first + PAGE_TOKENS;
        for position in positions.clone() {
            hasher.update(&self.id_at(position, suffix).to_le_bytes());
        }
        // Images are seen from some token on.
        let mut last = None;
        for (place, seen) in positions.map(|position| self.seen_at(position)).enumerate() {
            if last != Some(seen) {
                hasher.update(&[place as u8]).update(&seen.images.to_le_bytes());
                self.images_of(seen).iter().for_each(|image| {
                    hasher.update(image.content.as_bytes());
                });
                last = Some(seen);
            }
        }
        self.pages.push(hasher.finalize());
    }

    /// The token at a position, of the prompt or of `suffix` after it.
    pub(super) fn id_at(&self, position: usize, suffix: &[u32]) -> u32 {
        self.ids.get(position).copied().unwrap_or_else(|| suffix[position - self.ids.len()])
    }

    /// The images that the token at a position sees.
    pub fn seen_at(&self, position: usize) -> MediaSeen {
        self.sees[position.min(self.sees.len() - 1)]
    }

    pub(super) fn images_of(&self, seen: MediaSeen) -> &[PromptImage] {
        &self.images[seen.range()]
    }

    /// The images of the first token that sees any.
    pub(super) fn first_seen(&self) -> MediaSeen {
        let mut seen = self.sees[..if self.images.is_empty() { 0 } else { self.sees.len() }].iter();
        seen.find(|seen| seen.images > 0).copied().unwrap_or_default()
    }

    /// Media pages without which a prompt cannot be read: those of all images that one token sees, at most.
    pub fn media_pages(&self) -> usize {
        let runs = self.sees.chunk_by(|a, b| a == b).map(|run| run[0]);
        runs.map(|seen| self.images_of(seen).iter().map(PromptImage::pages).sum()).max().unwrap_or(0)
    }
}

//! A request in numbers: the sequences that share its prompt, and the images that it holds.

use super::tokens::{PromptImage, Tokens};
use crate::kv::{MediaSeen, PAGE_TOKENS, PagePool, PageTable};

/// One sequence of a request: the prompt, and what follows it.
#[derive(Debug, Default)]
pub struct Sequence {
    /// Tokens after the prompt.
    pub suffix: Vec<u32>,
    /// The first position whose logits are still wanted.
    pub(super) wanted: usize,
    /// Pages of what is computed.
    pub(super) table: PageTable,
    /// Tokens of the step that is being put together.
    pub(super) scheduled: usize,
}

impl Sequence {
    /// Its pages, those of the coming step included.
    pub fn pages(&self) -> &[u32] {
        self.table.pages()
    }

    /// Another sequence with the same past, which goes on with `tokens`; logits are wanted after each of them.
    pub fn fork(&self, prompt: &Tokens, tokens: &[u32], pool: &mut PagePool) -> Sequence {
        let wanted = prompt.ids.len() + self.suffix.len();
        let suffix = [&self.suffix, tokens].concat();
        Sequence { suffix, wanted, table: self.table.fork(pool), scheduled: 0 }
    }

    /// Goes on with a token, after which logits are wanted.
    pub fn push(&mut self, prompt: &Tokens, token: u32) {
        self.suffix.push(token);
        self.wanted = prompt.ids.len() + self.suffix.len() - 1;
    }

    /// Gives its pages back.
    pub fn clear(&mut self, pool: &mut PagePool) {
        self.table.clear(pool);
    }

    /// Whether all logits that were wanted are given out.
    pub fn is_read(&self, prompt: &Tokens) -> bool {
        self.wanted == prompt.ids.len() + self.suffix.len()
    }

    /// Tokens to run until all wanted logits are there.
    pub(super) fn left(&self, prompt: &Tokens) -> usize {
        if self.is_read(prompt) { 0 } else { prompt.ids.len() + self.suffix.len() - self.table.length() }
    }
}

/// How a request uses its sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceKind {
    /// One sequence that grows by what is written: its pages get hashes beyond the prompt.
    Decode,
    /// Sequences that grow together, token by token.
    BeamSearch,
    /// Sequences of known tokens, to be read when there is room.
    Prefill,
}

/// A request in numbers, with whatever its owner keeps beside it.
#[derive(Debug)]
pub struct RequestState<T> {
    /// Its number: later ones came later.
    pub number: u64,
    /// The prompt.
    pub prompt: Tokens,
    /// Its sequences; later ones are read first.
    pub sequences: Vec<Sequence>,
    /// Tokens that were found instead of computed.
    pub tokens_reused: usize,
    /// Images that were encoded.
    pub images_encoded: usize,
    /// Its owner's.
    pub work: T,
    pub(super) kind: SequenceKind,
    /// Images whose pages it holds, in their order.
    pub(super) held: Vec<Held>,
    /// Whether it has reused a page that was not confirmed then.
    pub(super) leans: bool,
    /// Whether it reuses only confirmed pages.
    pub(super) careful: bool,
}

/// An image of a request that has its pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// Which of the request's.
    pub(super) image: u32,
    /// Its entry in the pool.
    pub(super) entry: u32,
}

impl<T> RequestState<T> {
    /// A request of one sequence, the prompt; logits are wanted from position `wanted` on.
    /// There will be at most `room` tokens in it.
    pub fn new(number: u64, mut prompt: Tokens, kind: SequenceKind, wanted: usize, room: usize, work: T) -> Self {
        prompt.pages.reserve(room / PAGE_TOKENS - prompt.pages.len());
        let table = PageTable::with_room(room);
        let sequence = Sequence { suffix: Vec::with_capacity(room - prompt.ids.len()), wanted, table, scheduled: 0 };
        let (sequences, held, leans, careful) = (vec![sequence], Vec::new(), false, false);
        RequestState {
            number,
            prompt,
            sequences,
            tokens_reused: 0,
            images_encoded: 0,
            work,
            kind,
            held,
            leans,
            careful,
        }
    }

    pub(super) fn is_scheduled(&self) -> bool {
        self.sequences.iter().any(|sequence| sequence.scheduled > 0)
    }

    /// Gives up images that no sequence's next token sees, of sequences that have one to run.
    pub(super) fn release_seen(&mut self, media: &mut PagePool) {
        let RequestState { prompt, sequences, held, .. } = self;
        held.retain(|&Held { image, entry }| {
            // A sequence that has all its rows waits for others: it may have given up its pages, and wants none now.
            let mut open = sequences.iter().filter(|sequence| sequence.left(prompt) > 0);
            let needed =
                open.any(|sequence| prompt.seen_at(sequence.table.length()).range().contains(&(image as usize)));
            if !needed {
                media.release(entry);
            }
            needed
        });
    }

    /// Whether an image has its pages, or where it comes among those that have.
    pub(super) fn place_of(&self, image: usize) -> Result<usize, usize> {
        self.held.binary_search_by_key(&image, |held| held.image as usize)
    }

    /// The images that a token sees, if all of them have their pages.
    pub(super) fn held_of(&self, seen: MediaSeen) -> Option<&[Held]> {
        let Some(first) = seen.range().next() else { return Some(&[]) };
        let place = self.place_of(first).ok()?;
        let held = self.held.get(place..place + seen.images as usize)?;
        (held.last()?.image as usize + 1 == seen.range().end).then_some(held)
    }

    /// The images that a token sees and that have no pages.
    pub(super) fn missing(&self, seen: MediaSeen) -> impl Iterator<Item = &PromptImage> {
        seen.range().filter(|&image| self.place_of(image).is_err()).map(|image| &self.prompt.images[image])
    }

    /// Whether it takes an image that is there already. `prefix_caching`: see [`Bounds::prefix_caching`].
    pub(super) fn reuses(&self, image: &PromptImage, media: &PagePool, prefix_caching: bool) -> bool {
        prefix_caching && media.has(&image.content) && (!self.careful || media.is_confirmed(&image.content))
    }

    pub(super) fn release_all(&mut self, text: &mut PagePool, media: &mut PagePool) {
        self.sequences.iter_mut().for_each(|sequence| sequence.clear(text));
        self.held.drain(..).for_each(|held| media.release(held.entry));
    }
}

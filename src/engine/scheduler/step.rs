//! A step as the scheduler puts it together.

use super::request::Held;
use super::tokens::Tokens;
use crate::kv::{ImagePages, MediaSeen, PageCopy, PagePool};

/// No place in a list.
const NONE: u32 = u32::MAX;

/// Some tokens of one line, as rows of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// The request, by its place among those that run.
    pub request: usize,
    /// The sequence, by its place in the request.
    pub sequence: usize,
    /// The first row.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Of how many rows at the end logits are wanted.
    pub wanted: usize,
}

/// An image to be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encode {
    /// The number of the request whose image it is.
    pub request: u64,
    /// Which of its images.
    pub image: u32,
    /// Its entry in the pool of media pages, which is the number of its first page.
    pub entry: u32,
}

/// Images with their pages, in one list.
#[derive(Debug, Default)]
pub struct ImageLists {
    pub(super) pages: Vec<u32>,
    /// Where the pages of each image end, and the rows in them.
    pub(super) images: Vec<(usize, u32)>,
}

impl ImageLists {
    pub(super) fn clear(&mut self) {
        self.pages.clear();
        self.images.clear();
    }

    pub(super) fn push(&mut self, pages: impl Iterator<Item = u32>, rows: usize) {
        self.pages.extend(pages);
        self.images.push((self.pages.len(), rows as u32));
    }

    /// Each image.
    pub fn iter(&self) -> impl Iterator<Item = ImagePages<'_>> {
        (0..self.images.len()).map(|image| ImagePages { pages: self.pages_of(image), rows: self.images[image].1 })
    }

    pub(super) fn pages_of(&self, image: usize) -> &[u32] {
        let first = image.checked_sub(1).map_or(0, |before| self.images[before].0);
        &self.pages[first..self.images[image].0]
    }
}

/// A step: first pages are copied, then images encoded, then tokens run.
#[derive(Debug, Default)]
pub struct Step {
    /// Pages to copy, in order.
    pub copies: Vec<PageCopy>,
    /// Images to encode.
    pub encode: Vec<Encode>,
    /// The pages of each of them.
    pub encoded: ImageLists,
    /// Frames of all these.
    pub frames: usize,
    /// Token of each row.
    pub ids: Vec<u32>,
    /// Its position.
    pub positions: Vec<u32>,
    /// Which of `rows` it belongs to.
    pub sequences: Vec<u32>,
    /// Which of `images` it sees.
    pub media: Vec<MediaSeen>,
    /// Images that tokens see, those of one token side by side.
    pub images: ImageLists,
    /// Which rows are whose.
    pub rows: Vec<Rows>,
    /// Text pages that got a hash for what this step will put there.
    pub(super) hashed: Vec<u32>,
    /// For each entry of media pages, where it stands in `images`, if it does.
    pub(super) places: Vec<u32>,
}

impl Step {
    pub(super) fn clear(&mut self) {
        let Step { copies, encode, encoded, frames, ids, positions, sequences, media, images, rows, hashed, places } =
            self;
        *frames = 0;
        (0..images.images.len()).for_each(|image| places[images.pages_of(image)[0] as usize] = NONE);
        [ids, positions, sequences, hashed].into_iter().for_each(Vec::clear);
        [encoded, images].into_iter().for_each(ImageLists::clear);
        copies.clear();
        encode.clear();
        media.clear();
        rows.clear();
    }

    /// Where images that a token sees stand among those of the step, side by side: those of an earlier token, if they
    /// are the same or begin as its last ones do; else they are added.
    pub(super) fn list(&mut self, held: &[Held], prompt: &Tokens, pool: &PagePool) -> MediaSeen {
        let Some(first) = held.first() else { return MediaSeen::NOTHING };
        self.places.resize(pool.total(), NONE);
        let end = self.images.images.len();
        let known = self.places[first.entry as usize].min(end as u32) as usize;
        let common = held.iter().zip(known..end).take_while(|(held, at)| self.images.pages_of(*at)[0] == held.entry);
        let common = common.count();
        let is_there = common == held.len() || known + common == end;
        let (first, rest) = if is_there { (known, &held[common..]) } else { (end, held) };
        for held in rest {
            self.places[held.entry as usize] = self.images.images.len() as u32;
            self.images.push(pool.pages_of(held.entry), prompt.images[held.image as usize].rows);
        }
        MediaSeen { first: first as u32, images: held.len() as u32 }
    }
}

/// What is left of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) tokens: usize,
    /// How many frames the step may come to.
    pub(super) frames_end: usize,
}

impl Left {
    /// Whether images that have so many frames can be encoded in the step: what is too much for any is encoded where
    /// nothing else is.
    pub(super) fn has_room(&self, step: &Step, frames: usize) -> bool {
        step.encode.is_empty() || step.frames + frames <= self.frames_end
    }
}

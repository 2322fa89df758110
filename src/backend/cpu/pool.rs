//! Pages of keys and values in memory. A page has its rows head by head, so that what a head attends to is one strip of
//! memory: rows of a whole token stand so far apart that neither caches nor prefetching do well.

use std::ops::Range;

use half::bf16;

use super::attention::{Rows, Strip};
use crate::backend::PoolShape;
use crate::kv::{KvDtype, PageCopy, quantise};

/// Pages of keys and values, (heads, rows, head width) each. A page has memory from its first writing on.
pub(super) struct Pool {
    keys: Pages,
    values: Pages,
    /// Rows of a page.
    rows: usize,
    kv_heads: usize,
    head_width: usize,
}

/// Pages by number.
#[derive(Clone)]
enum Pages {
    Plain(Vec<Vec<f32>>),
    Int8(Vec<Int8Page>),
}

/// Codes (heads, rows, head width), and scales (heads, rows).
#[derive(Clone, Default)]
struct Int8Page {
    codes: Vec<i8>,
    scales: Vec<bf16>,
}

impl Pool {
    /// No pages yet, of `rows` rows each.
    pub fn new(rows: usize, &PoolShape { kv_heads, head_width, .. }: &PoolShape, kv_dtype: KvDtype) -> Self {
        let none = match kv_dtype {
            KvDtype::Auto => Pages::Plain(Vec::new()),
            KvDtype::Int8 => Pages::Int8(Vec::new()),
        };
        Pool { keys: none.clone(), values: none, rows, kv_heads, head_width }
    }

    /// Adds keys `range` of one head of keys, of a sequence or image with these pages, to `strips`.
    pub fn strips<'a>(&'a self, table: &[u32], head: usize, range: Range<usize>, strips: &mut Vec<Strip<'a>>) {
        let mut from = range.start;
        while from < range.end {
            let (page, row) = (table[from / self.rows], from % self.rows);
            let count = (self.rows - row).min(range.end - from);
            let first = head * self.rows + row;
            let rows = |pages: &'a Pages| pages.rows(page, first..first + count, self.head_width);
            strips.push(Strip { keys: rows(&self.keys), values: rows(&self.values), count });
            from += count;
        }
    }

    /// Writes one row of a page.
    pub fn write(&mut self, page: u32, row: usize, key: &[f32], value: &[f32]) {
        for (pages, from) in [(&mut self.keys, key), (&mut self.values, value)] {
            pages.make(page, self.kv_heads * self.rows, self.head_width);
            for (head, from) in from.chunks_exact(self.head_width).enumerate() {
                pages.write(page, head * self.rows + row, from);
            }
        }
    }

    /// Copies a whole page.
    pub fn copy(&mut self, copy: PageCopy) {
        for pages in [&mut self.keys, &mut self.values] {
            match pages {
                Pages::Plain(pages) => copy_page(pages, copy),
                Pages::Int8(pages) => copy_page(pages, copy),
            }
        }
    }
}

impl Pages {
    /// Rows of a page, all heads' one after the other.
    fn rows(&self, page: u32, rows: Range<usize>, width: usize) -> Rows<'_> {
        let numbers = rows.start * width..rows.end * width;
        match self {
            Pages::Plain(pages) => Rows::Plain { values: &pages[page as usize][numbers], stride: width },
            Pages::Int8(pages) => {
                let Int8Page { codes, scales } = &pages[page as usize];
                Rows::Int8 { codes: &codes[numbers], scales: &scales[rows] }
            }
        }
    }

    /// Gives a page its memory if it has none yet.
    fn make(&mut self, page: u32, rows: usize, width: usize) {
        match self {
            Pages::Plain(pages) => page_of(pages, page).resize(rows * width, 0.0),
            Pages::Int8(pages) => {
                let page = page_of(pages, page);
                page.codes.resize(rows * width, 0);
                page.scales.resize(rows, bf16::ZERO);
            }
        }
    }

    /// Writes a row of a page that has memory.
    fn write(&mut self, page: u32, row: usize, from: &[f32]) {
        let numbers = row * from.len()..(row + 1) * from.len();
        match self {
            Pages::Plain(pages) => pages[page as usize][numbers].copy_from_slice(from),
            Pages::Int8(pages) => {
                let page = &mut pages[page as usize];
                page.scales[row] = quantise(from, &mut page.codes[numbers]);
            }
        }
    }
}

/// A page, which may be the first of its number.
fn page_of<P: Default>(pages: &mut Vec<P>, page: u32) -> &mut P {
    if pages.len() <= page as usize {
        pages.resize_with(page as usize + 1, P::default);
    }
    &mut pages[page as usize]
}

fn copy_page<P: Default + Clone>(pages: &mut Vec<P>, copy: PageCopy) {
    let from = std::mem::take(&mut pages[copy.from as usize]);
    page_of(pages, copy.to).clone_from(&from);
    pages[copy.from as usize] = from;
}

//! Pages of keys and values in memory. A page has its rows head by head, so that what a head attends to is one strip of
//! memory: rows of a whole token stand so far apart that neither caches nor prefetching do well.

use std::ops::Range;

use super::attention::{Rows, Strip};
use crate::backend::PoolShape;
use crate::kv::PageCopy;

/// Pages of keys and values, (heads, rows, head width) each. A page has memory from its first writing on.
pub(super) struct Pool {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// Rows of a page.
    rows: usize,
    kv_heads: usize,
    head_width: usize,
}

impl Pool {
    /// No pages yet, of `rows` rows each.
    pub fn new(rows: usize, &PoolShape { kv_heads, head_width, .. }: &PoolShape) -> Self {
        Pool { keys: Vec::new(), values: Vec::new(), rows, kv_heads, head_width }
    }

    /// Adds keys `range` of one head of keys, of a sequence or image with these pages, to `strips`.
    pub fn strips<'a>(&'a self, table: &[u32], head: usize, range: Range<usize>, strips: &mut Vec<Strip<'a>>) {
        let mut from = range.start;
        while from < range.end {
            let (page, row) = (table[from / self.rows] as usize, from % self.rows);
            let count = (self.rows - row).min(range.end - from);
            let start = (head * self.rows + row) * self.head_width;
            let rows = |pages: &'a [Vec<f32>]| {
                let values = &pages[page][start..][..count * self.head_width];
                Rows { values, stride: self.head_width }
            };
            strips.push(Strip { keys: rows(&self.keys), values: rows(&self.values), count });
            from += count;
        }
    }

    /// Writes one row of a page.
    pub fn write(&mut self, page: u32, row: usize, key: &[f32], value: &[f32]) {
        let head_size = self.rows * self.head_width;
        for (pages, from) in [(&mut self.keys, key), (&mut self.values, value)] {
            let page = page_of(pages, page);
            page.resize(self.kv_heads * head_size, 0.0);
            for (head, from) in page.chunks_exact_mut(head_size).zip(from.chunks_exact(self.head_width)) {
                head[row * self.head_width..][..self.head_width].copy_from_slice(from);
            }
        }
    }

    /// Copies a whole page.
    pub fn copy(&mut self, copy: PageCopy) {
        for pages in [&mut self.keys, &mut self.values] {
            let from = std::mem::take(&mut pages[copy.from as usize]);
            page_of(pages, copy.to).clone_from(&from);
            pages[copy.from as usize] = from;
        }
    }
}

/// A page, which may be the first of its number.
fn page_of(pages: &mut Vec<Vec<f32>>, page: u32) -> &mut Vec<f32> {
    if pages.len() <= page as usize {
        pages.resize_with(page as usize + 1, Vec::new);
    }
    &mut pages[page as usize]
}

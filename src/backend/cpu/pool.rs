//! Pages of keys and values in memory.

use std::ops::Range;

use crate::kv::PageCopy;

/// Pages of keys and values, (rows, width) each. A page has memory from its first writing on.
#[derive(Default)]
pub struct Pool {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// Rows of a page.
    pub rows: usize,
    width: usize,
}

impl Pool {
    pub fn new(rows: usize, width: usize) -> Self {
        Pool { rows, width, ..Pool::default() }
    }

    pub fn key(&self, page: u32, row: usize, columns: &Range<usize>) -> &[f32] {
        &self.keys[page as usize][row * self.width..][columns.clone()]
    }

    pub fn value(&self, page: u32, row: usize, columns: &Range<usize>) -> &[f32] {
        &self.values[page as usize][row * self.width..][columns.clone()]
    }

    pub fn write(&mut self, page: u32, row: usize, key: &[f32], value: &[f32]) {
        let size = self.rows * self.width;
        for (pages, from) in [(&mut self.keys, key), (&mut self.values, value)] {
            let page = page_of(pages, page);
            page.resize(size, 0.0);
            page[row * self.width..][..self.width].copy_from_slice(from);
        }
    }

    pub fn copy(&mut self, copy: PageCopy) {
        for pages in [&mut self.keys, &mut self.values] {
            let from = pages[copy.from as usize].clone();
            *page_of(pages, copy.to) = from;
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

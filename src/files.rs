//! Files, whatever is in them.

mod lines;

pub use lines::{End, Lines, read_line};

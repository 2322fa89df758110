//! Files, whatever is in them.

mod lines;

pub(crate) use lines::{End, Lines, read_line};

//! Files, whatever is in them: what is read, what is written as a whole, and files of lines that grow.

mod input;
mod lines;
mod output;

pub use input::read_input;
pub(crate) use input::{Unchanged, open_input};
pub(crate) use lines::{End, Lines, read_line};
pub use output::{Output, write};

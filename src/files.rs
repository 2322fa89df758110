//! Files, whatever is in them: what is read, what is written as a whole, and files of lines that grow.

mod input;
mod lines;
mod output;

pub(crate) use input::open_input;
pub use input::read_input;
pub(crate) use lines::{End, Lines, read_line};
pub use output::{Output, write};

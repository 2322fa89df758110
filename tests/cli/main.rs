//! The program, its commands and the examples.

mod bad_input;
mod batch;
mod cli;
#[cfg(target_os = "linux")]
mod cut;
mod examples;
#[cfg(target_os = "linux")]
mod streams;
#[path = "../support"]
mod support {
    pub mod sick;
}

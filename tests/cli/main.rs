//! The program, its commands and the examples.

mod bad_input;
mod batch;
#[cfg(target_os = "linux")]
mod chat;
mod cli;
#[cfg(target_os = "linux")]
mod cut;
mod examples;
#[cfg(unix)]
mod health;
#[cfg(unix)]
mod hub;
#[cfg(target_os = "linux")]
mod streams;
#[path = "../support"]
mod support {
    pub mod sick;
}

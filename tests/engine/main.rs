//! Engines: many requests at once, on every device and on a thread of their own.

mod async_engine;
mod changed;
mod engine;
mod failures;
mod likeliest;
#[path = "../support"]
mod support {
    pub mod devices;
    pub mod sick;
}

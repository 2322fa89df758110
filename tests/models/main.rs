//! Whole models: against the references, on every device.

mod bf16;
mod demo;
mod devices;
mod drift;
mod grouped;
mod int8_cache;
mod mllama;
mod parity;
mod semantics;
mod tokenizers;
#[path = "../support"]
mod support {
    pub mod devices;
    pub mod reference;
}

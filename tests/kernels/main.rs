//! Operations and kernels: on the processor, in the emulator, as the compiler made them.

mod arguments;
mod batches;
mod compiled;
mod emulator;
mod forms;
#[allow(dead_code, reason = "an example's own entry is not used here")]
#[path = "../../examples/kernel_report.rs"]
mod kernel_report;
mod ops;
#[path = "../support"]
mod support {
    pub mod absent;
    pub mod cases;
    pub mod compiler;
    pub mod devices;
    pub mod equalities;
}

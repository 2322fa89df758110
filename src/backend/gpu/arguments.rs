//! What each kernel is told: the structs and constants of `kernels/arguments.h`, and `enum Kernel`, each kernel that
//! `kernels/*.cu` declare; build.rs writes both from there. Structs are called as there, without `Arguments`, and have
//! the same layout; the compiled kernel's own size is compared when it is first started.

#![allow(dead_code, reason = "all that kernels and engine share is here, used by the engine or not")]

use std::fmt;
use std::marker::PhantomData;

use crate::checkpoint::Dtype;

include!(concat!(env!("OUT_DIR"), "/arguments.rs"));

/// A place in a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Address(pub u64);

impl Address {
    /// No memory: an operand that is absent.
    pub const NULL: Address = Address(0);

    /// The place so many bytes further on.
    pub fn plus(self, bytes: u64) -> Address {
        Address(self.0 + bytes)
    }
}

/// A kernel that takes a struct `A`.
#[derive(Debug, Clone, Copy)]
pub struct KernelOf<A> {
    pub kernel: Kernel,
    takes: PhantomData<A>,
}

impl<A> KernelOf<A> {
    const fn new(kernel: Kernel) -> Self {
        KernelOf { kernel, takes: PhantomData }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

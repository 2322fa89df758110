//! The C interface as a shared and a static library, for `tests/capi` and for trying it without cargo-c. Nothing is
//! here: what the crate exports to C is exported by any library that holds it.

extern crate flamant as _;

//! The program `flamant`; see [`flamant::cli`].

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(flamant::cli::main(&arguments))
}

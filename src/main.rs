//! The `flamant` command line: parses, calls the library, prints. Results go to standard output, all else to standard
//! error. Exit codes: 0 done, 1 something from outside is wrong (one line says what), 2 usage, 3 some requests of
//! a batch have errors.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

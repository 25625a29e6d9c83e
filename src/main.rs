//! The binary `reach`: picks the crypto provider and runs the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    reach::cli::main()
}

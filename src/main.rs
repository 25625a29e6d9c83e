//! The binary `reach`: picks the allocator and runs the command line.

use std::process::ExitCode;

/// A review makes a few dozen small allocations; this one makes them cheaper than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    reach::cli::main()
}

//! How large the program is.

use std::fs;

use super::report::Row;
use super::support::serve;

/// That which is measured, if it is what ships.
pub fn measure() -> Vec<Row> {
    let program = serve::program();
    if program == env!("CARGO_BIN_EXE_reach") {
        eprintln!("binary: {} is not what ships: run `make bench`", program.display());
        return Vec::new();
    }
    let bytes = fs::metadata(&program).expect("the program").len();
    vec![Row::new("binary: as in the image, stripped", bytes as f64 / (1024.0 * 1024.0), "MiB").below(15.0)]
}

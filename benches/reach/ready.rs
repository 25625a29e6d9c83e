//! How long `reach serve` takes from its start to ready, with the presets of the examples.

use std::path::Path;

use super::process::Reach;
use super::report::{Row, median};

/// Starts.
const STARTS: usize = 20;

/// Starts it some times.
pub fn measure() -> Vec<Row> {
    let presets = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/presets");
    let arguments = ["--presets".as_ref(), presets.as_os_str()];
    let times = (0..STARTS).map(|_| Reach::start(arguments).await_ready().as_secs_f64() * 1e3).collect();
    vec![Row::new(format!("ready: start to ready, median of {STARTS}"), median(times), "ms").below(50.0)]
}

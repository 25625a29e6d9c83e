//! Tests that share what takes long to start, and that ends with them: they say what they are themselves (`harness = false`).

use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};

use libtest_mimic::{Arguments, Trial};

/// Tests by name.
pub type Tests<T> = Vec<(&'static str, fn(&T))>;

/// Names tests by their functions: `tests!(Cluster: pods::are_injected)`.
macro_rules! tests {
    ($shared:ty: $($module:ident::$name:ident),* $(,)?) => {
        vec![$((concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn(&$shared))),*]
    };
}
pub(crate) use tests;

/// Runs tests over what `start` makes: those `together` at the same time, each of `alone` with nothing beside it, because
/// it takes away what the others stand on.
pub fn run<T: Send + Sync + 'static>(
    arguments: &Arguments,
    together: Tests<T>,
    alone: Tests<T>,
    start: impl FnOnce() -> T,
) -> ExitCode {
    if arguments.list {
        return list(arguments, together.into_iter().chain(alone), false);
    }
    // Started by this thread, which outlives all tests: the kernel ends processes with the thread that started them.
    let shared = Arc::new(RwLock::new(start()));
    let trial = |(name, test): (&'static str, fn(&T)), is_alone: bool| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || {
            // A test that failed under the lock has told so itself.
            if is_alone {
                test(&shared.write().unwrap_or_else(PoisonError::into_inner));
            } else {
                test(&shared.read().unwrap_or_else(PoisonError::into_inner));
            }
            Ok(())
        })
    };
    let together = together.into_iter().map(|test| trial(test, false));
    let trials: Vec<Trial> = together.chain(alone.into_iter().map(|test| trial(test, true))).collect();
    // Not `exit`, which would drop nothing and so leave processes and folders behind.
    libtest_mimic::run(arguments, trials).exit_code()
}

/// Lists tests, or names them as ignored.
pub fn list<T>(
    arguments: &Arguments,
    tests: impl Iterator<Item = (&'static str, fn(&T))>,
    are_ignored: bool,
) -> ExitCode {
    let trials = tests.map(|(name, _)| Trial::test(name, || Ok(())).with_ignored_flag(are_ignored));
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

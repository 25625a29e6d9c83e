//! Speaking with the API server: how its errors read, and how long to wait before asking again.

use std::error::Error;
use std::time::Duration;

use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;

/// Longest time between two attempts. With the 30 s of the default, a replica that was started while the API server was
/// away would stay unready for as long after it is back.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The waits between attempts to watch: those of client-go, but no longer than [`LONGEST_WAIT`].
#[derive(Default)]
pub(crate) struct Waits(DefaultBackoff);

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST_WAIT))
    }
}

impl Backoff for Waits {
    /// Every attempt to list begins with an event that is no error, so this is called between failures, too. The wait is
    /// reset by time instead: after two minutes without a failure.
    fn reset(&mut self) {}
}

/// The message of an error with its causes, each once. What an API server says speaks for itself.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let status = error.downcast_ref().and_then(|error| match error {
            kube::Error::Api(status) if !status.message.is_empty() => Some(status),
            _ => None,
        });
        if let Some(status) = status {
            // Those around it show all of it, fields and all.
            return format!("the API server says: {} (code {})", status.message, status.code);
        }
        let message = error.to_string();
        if text.is_empty() {
            text = message;
        } else if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_although_each_attempt_begins_without_an_error() {
        let mut waits = Waits::default();
        let mut last = Duration::ZERO;
        for _ in 0..6 {
            last = waits.next().expect("it never gives up");
            assert!(last <= LONGEST_WAIT);
            waits.reset();
        }
        assert_eq!(last, LONGEST_WAIT);
    }
}

//! Memory for bodies of requests and replies.
//!
//! A limit for one body bounds nothing while there are a thousand connections. All bodies together get [`TOTAL`], and of
//! that a client gets no more than it leaves: however much one client sends, or has sent to it and does not read, there is
//! something for the next one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Bytes of each body that are not counted. Nearly all reviews and replies are smaller.
pub(super) const FREE: usize = 16 * 1024;

/// Bytes of all bodies beyond that. A client that is alone gets half: a body of 7 MiB, the largest that is taken, beside
/// those that are usual.
const TOTAL: usize = 24 * 1024 * 1024;

/// The body of a request arrives, or a reply is made, at a moment at which there is no memory for it. The request may be sent
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no memory for the body now")]
pub struct NoRoom;

/// What bodies of one server hold.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

// === impl Room ===

impl Room {
    pub(super) fn take(&self, peer: IpAddr, bytes: usize) -> Result<(), NoRoom> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.by_peer.get(&peer).copied().unwrap_or_default().saturating_add(bytes);
        if own > TOTAL - held.all {
            return Err(NoRoom);
        }
        held.all += bytes;
        held.by_peer.insert(peer, own);
        Ok(())
    }

    pub(super) fn give_back(&self, peer: IpAddr, bytes: usize) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= bytes;
        let own = held.by_peer.get(&peer).copied().unwrap_or_default().saturating_sub(bytes);
        if own == 0 {
            held.by_peer.remove(&peer);
        } else {
            held.by_peer.insert(peer, own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const STEP: usize = 64 * 1024;

    /// Takes as much as there is.
    fn fill(room: &Room, peer: IpAddr) -> usize {
        (0..TOTAL / STEP).take_while(|_| room.take(peer, STEP).is_ok()).count() * STEP
    }

    #[test]
    fn one_client_leaves_as_much_as_it_has_and_the_next_one_half_of_that() {
        let room = Room::default();
        assert_eq!(fill(&room, GREEDY), TOTAL / 2);
        assert_eq!(fill(&room, OTHER), TOTAL / 4);
        room.give_back(GREEDY, TOTAL / 2);
        room.give_back(OTHER, TOTAL / 4);
        assert_eq!(fill(&room, OTHER), TOTAL / 2);
    }
}

//! Who has the places of a server, and who has to go when all are taken.
//!
//! A flood of connections must not keep out those who are to be served. One client's flood takes places from that client:
//! while it has more of them than another one would have, it gives one up. When no client has, and clients are such as ask
//! at once ([`Limits::unused_give_way`](super::Limits::unused_give_way)), who has asked for nothing for longest goes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id};
use tokio::time::Instant;

use super::Connection;
use super::watch::Phase;

/// How long a connection has its place for certain, to ask for something. A flood comes in waves, and what comes in the middle of
/// one would otherwise have to go before its request is here.
const MOMENT: Duration = Duration::from_millis(10);

/// The connections of a server, by client.
#[derive(Default)]
pub(super) struct Places {
    by_peer: HashMap<IpAddr, HashMap<Id, Place>>,
    peers: HashMap<Id, IpAddr>,
    /// Places that were ever taken.
    turns: u64,
}

struct Place {
    /// The lower, the longer ago it was taken.
    turn: u64,
    since: Instant,
    connection: Arc<Connection>,
    task: AbortHandle,
}

/// A place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Made,
    /// By then.
    At(Instant),
    Full,
}

// === impl Places ===

impl Places {
    pub(super) fn taken(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn take(&mut self, peer: IpAddr, connection: Arc<Connection>, task: AbortHandle) {
        self.peers.insert(task.id(), peer);
        self.turns += 1;
        let place = Place { turn: self.turns, since: Instant::now(), connection, task };
        self.by_peer.entry(peer).or_default().insert(place.task.id(), place);
    }

    pub(super) fn leave(&mut self, id: Id) {
        let Some(peer) = self.peers.remove(&id) else { return };
        if let Some(places) = self.by_peer.get_mut(&peer) {
            places.remove(&id);
            if places.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }

    /// Ends one connection of the client that has most. If `peer`, with one more, would be that client, ends one that was not
    /// used yet, where these give way.
    pub(super) fn make_room_for(&mut self, peer: IpAddr, unused_give_way: bool) -> Space {
        let own = self.by_peer.get(&peer).map_or(0, HashMap::len);
        let Some(places) = self.by_peer.values().max_by_key(|places| places.len()) else {
            return Space::Full;
        };
        if places.len() <= own + 1 {
            return if unused_give_way { self.end_unused(peer, own) } else { Space::Full };
        }
        // What has not asked for anything has least to lose, what is being answered most.
        let loss = |(_, place): &(&Id, &Place)| match place.connection.progress.phase() {
            Phase::Request | Phase::Write => 2,
            Phase::Idle => 1,
            Phase::Handshake | Phase::FirstByte | Phase::Header | Phase::Close => 0,
        };
        let Some((&id, place)) = places.iter().min_by_key(loss) else { return Space::Full };
        place.task.abort();
        self.leave(id);
        Space::Made
    }

    /// Ends the connection that has asked for nothing for longest: of `peer`, if most places are its own. Else a flood of its
    /// connections would end those of others before their first request is here.
    fn end_unused(&mut self, peer: IpAddr, own: usize) -> Space {
        let has_most = own > self.taken() / 2;
        let is_unused = |place: &Place| {
            matches!(place.connection.progress.phase(), Phase::Handshake | Phase::FirstByte | Phase::Header)
        };
        let places = self.by_peer.iter().filter(|(client, _)| !has_most || **client == peer);
        let unused = places.flat_map(|(_, places)| places).filter(|(_, place)| is_unused(place));
        let Some((&id, place)) = unused.min_by_key(|(_, place)| place.turn) else {
            return Space::Full;
        };
        if place.since.elapsed() < MOMENT {
            return Space::At(place.since + MOMENT);
        }
        place.task.abort();
        self.leave(id);
        Space::Made
    }
}

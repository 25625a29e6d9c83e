//! What stands between two parts of a cluster: not each kernel can make a network bad by itself (netem).

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Passes connections on, in its own way.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Relay {
    /// One that listens at a port of this address. `pass` takes what comes from its first connection to its second one until
    /// there is no more, in a thread of its own, for each direction of each connection.
    pub fn new(
        address: impl Into<IpAddr>,
        target: SocketAddr,
        pass: impl Fn(TcpStream, TcpStream) + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address.into(), 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        // Ends with the process: it is not many of them.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                    // Who is turned away comes again.
                    thread::sleep(Duration::from_millis(10));
                    continue;
                };
                count.fetch_add(1, Ordering::Relaxed);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    let pass = pass.clone();
                    thread::spawn(move || pass(from, to));
                }
            }
        });
        Self { address, accepted }
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

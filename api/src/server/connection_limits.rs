//! Limits on the total number of connections, and on the idle connections from one address.
//!
//! A connection is idle while it waits for a request. Idle connections cost memory, so their number is limited by
//! address. Busy connections are not, because one proxy may have thousands of open streams.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

use crate::{
    http::response::{Body, Cut, Response, Stream},
    limits::rate_limits::subscriber,
};

/// The connection counts of a process, and their limits.
pub struct ConnectionLimits {
    total: AtomicUsize,
    max_total: usize,
    max_idle: usize,
    by_address: Mutex<HashMap<IpAddr, Arc<Address>>>,
}

#[derive(Default)]
struct Address {
    connections: AtomicUsize,
    idle: AtomicUsize,
}

/// The limit that a new connection would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The process has the maximum number of connections.
    Process,
    /// The address has the maximum number of idle connections.
    Address,
}

impl ConnectionLimits {
    /// Allows `max_total` connections in total, and `max_idle` idle ones from one address.
    #[must_use]
    pub fn new(max_total: usize, max_idle: usize) -> Arc<Self> {
        Arc::new(Self { total: AtomicUsize::new(0), max_total, max_idle, by_address: Mutex::default() })
    }

    /// Acquires a permit for a connection. Dropping the permit releases it.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn acquire(self: &Arc<Self>, peer: IpAddr) -> Result<ConnectionPermit, Full> {
        if self.total.load(Ordering::Relaxed) >= self.max_total {
            return Err(Full::Process);
        }
        let peer = subscriber(peer);
        let mut by_address = self.by_address.lock();
        let address = Arc::clone(by_address.entry(peer).or_default());
        if address.idle.load(Ordering::Relaxed) >= self.max_idle {
            return Err(Full::Address);
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        address.connections.fetch_add(1, Ordering::Relaxed);
        address.idle.fetch_add(1, Ordering::Relaxed);
        Ok(ConnectionPermit { limits: Arc::clone(self), peer, address })
    }

    /// The number of open connections.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}

/// Counts as one of the connections until it is dropped.
pub struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    peer: IpAddr,
    address: Arc<Address>,
}

impl ConnectionPermit {
    /// Marks the connection as busy with a request until the guard is dropped.
    #[must_use]
    pub fn busy(self: &Arc<Self>) -> BusyGuard {
        self.address.idle.fetch_sub(1, Ordering::Relaxed);
        BusyGuard(Arc::clone(self))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limits.total.fetch_sub(1, Ordering::Relaxed);
        self.address.idle.fetch_sub(1, Ordering::Relaxed);
        // The lock prevents a new connection from using the entry while it is removed.
        let mut by_address = self.limits.by_address.lock();
        if self.address.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            by_address.remove(&self.peer);
        }
    }
}

/// Keeps a connection marked as busy.
pub struct BusyGuard(Arc<ConnectionPermit>);

impl BusyGuard {
    /// Keeps the connection busy until a streaming body ends. A complete body needs no guard.
    #[must_use]
    pub fn until_sent(self, response: Response) -> Response {
        response.map(|body| match body {
            Body::Stream(stream) => Body::stream(BusyBody { stream, _busy: self }),
            whole @ Body::Complete(_) => whole,
        })
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.address.idle.fetch_add(1, Ordering::Relaxed);
    }
}

struct BusyBody {
    stream: Stream,
    _busy: BusyGuard,
}

impl hyper::body::Body for BusyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.stream.as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn idle_connections_are_limited_by_address() {
        let limits = ConnectionLimits::new(10, 2);
        let first = Arc::new(limits.acquire(address(1)).expect("there is room"));
        let _second = limits.acquire(address(1)).expect("there is room");
        assert_eq!(limits.acquire(address(1)).err(), Some(Full::Address));
        assert!(limits.acquire(address(2)).is_ok());
        let busy = first.busy();
        let third = limits.acquire(address(1)).expect("one of them works");
        drop((busy, third));
        assert_eq!(limits.open_connections(), 2);
    }

    #[test]
    fn an_ipv6_network_of_one_subscriber_counts_as_one_address() {
        let limits = ConnectionLimits::new(10, 1);
        let acquire = |address: &str| limits.acquire(address.parse().expect("an address"));
        let _first = acquire("2001:db8::1").expect("there is room");
        assert_eq!(acquire("2001:db8::2").err(), Some(Full::Address));
        assert!(acquire("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn dropped_permits_are_released() {
        let limits = ConnectionLimits::new(2, 2);
        let permits: Vec<_> = [1, 2].map(|last| limits.acquire(address(last)).expect("there is room")).into();
        assert_eq!(limits.acquire(address(3)).err(), Some(Full::Process));
        drop(permits);
        assert!(limits.acquire(address(3)).is_ok());
        assert!(limits.by_address.lock().is_empty());
    }
}

//! How many connections there may be: in all, and resting ones from one address.
//!
//! An idle connection costs memory, so one address may have only a limited number of them. Active connections are not
//! counted by address: thousands of open streams may come through one proxy.

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

/// The connections of a process, counted.
pub struct ConnectionLimits {
    total: AtomicUsize,
    max_total: usize,
    max_resting: usize,
    by_address: Mutex<HashMap<IpAddr, Arc<Address>>>,
}

#[derive(Default)]
struct Address {
    connections: AtomicUsize,
    resting: AtomicUsize,
}

/// Why there is no room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The process has reached its maximum number of connections.
    Process,
    /// This address has too many idle connections.
    Address,
}

impl ConnectionLimits {
    /// Permits for `max_total` connections, of which one address may have `max_resting` idle ones.
    #[must_use]
    pub fn new(max_total: usize, max_resting: usize) -> Arc<Self> {
        Arc::new(Self { total: AtomicUsize::new(0), max_total, max_resting, by_address: Mutex::default() })
    }

    /// Takes a permit for a connection; dropping it returns it.
    ///
    /// # Errors
    /// When there is no room.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Result<ConnectionPermit, Full> {
        if self.total.load(Ordering::Relaxed) >= self.max_total {
            return Err(Full::Process);
        }
        let peer = subscriber(peer);
        let mut by_address = self.by_address.lock();
        let address = Arc::clone(by_address.entry(peer).or_default());
        if address.resting.load(Ordering::Relaxed) >= self.max_resting {
            return Err(Full::Address);
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        address.connections.fetch_add(1, Ordering::Relaxed);
        address.resting.fetch_add(1, Ordering::Relaxed);
        Ok(ConnectionPermit { limits: Arc::clone(self), peer, address })
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
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
    /// The connection has a request to answer, until the guard is dropped.
    #[must_use]
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.address.resting.fetch_sub(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limits.total.fetch_sub(1, Ordering::Relaxed);
        self.address.resting.fetch_sub(1, Ordering::Relaxed);
        // The lock keeps a newcomer from taking the entry that is about to be removed.
        let mut by_address = self.limits.by_address.lock();
        if self.address.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            by_address.remove(&self.peer);
        }
    }
}

/// A connection at work.
pub struct Busy(Arc<ConnectionPermit>);

impl Busy {
    /// Stays at work until the answer's body has been handed to the connection: a stream, until it ends.
    #[must_use]
    pub fn until_sent(self, response: Response) -> Response {
        response.map(|body| match body {
            Body::Stream(stream) => Body::stream(AtWork { stream, _busy: self }),
            whole @ Body::Whole(_) => whole,
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.address.resting.fetch_add(1, Ordering::Relaxed);
    }
}

struct AtWork {
    stream: Stream,
    _busy: Busy,
}

impl hyper::body::Body for AtWork {
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
    fn one_address_cannot_hold_all_connections() {
        let limits = ConnectionLimits::new(10, 2);
        let first = Arc::new(limits.take(address(1)).expect("there is room"));
        let _second = limits.take(address(1)).expect("there is room");
        assert_eq!(limits.take(address(1)).err(), Some(Full::Address));
        assert!(limits.take(address(2)).is_ok());
        let busy = first.busy();
        let third = limits.take(address(1)).expect("one of them works");
        drop((busy, third));
        assert_eq!(limits.taken(), 2);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let limits = ConnectionLimits::new(10, 1);
        let take = |address: &str| limits.take(address.parse().expect("an address"));
        let _first = take("2001:db8::1").expect("there is room");
        assert_eq!(take("2001:db8::2").err(), Some(Full::Address));
        assert!(take("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn permits_are_granted_up_to_the_limit_and_returned() {
        let limits = ConnectionLimits::new(2, 2);
        let taken: Vec<_> = [1, 2].map(|last| limits.take(address(last)).expect("there is room")).into();
        assert_eq!(limits.take(address(3)).err(), Some(Full::Process));
        drop(taken);
        assert!(limits.take(address(3)).is_ok());
        assert!(limits.by_address.lock().is_empty());
    }
}

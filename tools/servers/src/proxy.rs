//! A TCP proxy whose connections can be broken in the ways that networks break them.
//!
//! A fault changes the state of every open connection, and of those that are opened before it is healed. A half-open
//! connection never recovers: one side has received its end, and the other has not.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::ports::loopback;

/// The state of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It forwards bytes.
    Open,
    /// It forwards everything with this delay.
    Slow(Duration),
    /// It forwards nothing. What was sent in the meantime arrives when it is open again.
    Hung,
    /// Half open: the server has received its end, the client waits forever.
    ClientUnaware,
    /// Half open: the client has received its end, the server waits forever.
    ServerUnaware,
    /// Both sides receive the end of the connection.
    Cut,
}

impl Link {
    /// The connection cannot recover from these.
    fn is_lost(self) -> bool {
        matches!(self, Self::ClientUnaware | Self::ServerUnaware | Self::Cut)
    }
}

/// A proxy in front of one server.
pub struct Proxy {
    address: SocketAddr,
    links: Arc<Mutex<Links>>,
}

struct Links {
    /// The state in which new connections begin.
    new: Link,
    open: Vec<watch::Sender<Link>>,
}

impl Proxy {
    /// Listens on a free port of the loopback address, in front of the server on this one.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn before(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(loopback(0)).await?;
        let address = listener.local_addr()?;
        let links = Arc::new(Mutex::new(Links { new: Link::Open, open: Vec::new() }));
        tokio::spawn(accept(listener, loopback(port), Arc::clone(&links)));
        Ok(Self { address, links })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the state of all connections. A proxy that is cut rejects new ones; only connections that are open now
    /// become half open.
    pub fn set(&self, link: Link) {
        let mut links = locked(&self.links);
        links.new = if matches!(link, Link::ClientUnaware | Link::ServerUnaware) { Link::Open } else { link };
        links.open.retain(|open| !open.is_closed());
        for open in &links.open {
            open.send_if_modified(|state| {
                let changes = !state.is_lost() && *state != link;
                if changes {
                    *state = link;
                }
                changes
            });
        }
    }

    /// Opens what can be opened, and ends what was half open: in the end a network tells both sides.
    pub fn heal(&self) {
        self.set(Link::Open);
        let links = locked(&self.links);
        for open in &links.open {
            open.send_if_modified(|state| {
                state.is_lost() && std::mem::replace(state, Link::Cut) != Link::Cut
            });
        }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, links: Arc<Mutex<Links>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let state = {
            let mut links = locked(&links);
            if links.new == Link::Cut {
                continue;
            }
            let (sender, state) = watch::channel(links.new);
            links.open.push(sender);
            state
        };
        tokio::spawn(async move {
            // The server does not listen: the client sees a closed connection.
            let Ok(server) = TcpStream::connect(server).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::join!(
                forward(from_client, to_server, state.clone(), Link::ServerUnaware),
                forward(from_server, to_client, state, Link::ClientUnaware),
            );
        });
    }
}

/// Forwards one direction until its end. `unaware`: the state in which the receiving side does not receive the end.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<Link>,
    unaware: Link,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let link = *state.borrow_and_update();
        match link {
            Link::Cut => return,
            Link::ClientUnaware | Link::ServerUnaware => {
                if link == unaware {
                    // Kept, and never written to again.
                    let _ = state.wait_for(|link| *link == Link::Cut).await;
                }
                return;
            }
            Link::Hung => {
                if state.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Link::Open | Link::Slow(_) => {}
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        };
        let Ok(length @ 1..) = read else { return };
        if let Link::Slow(delay) = link {
            tokio::time::sleep(delay).await;
        }
        // It may have broken while this was on its way.
        let passes = state.wait_for(|link| *link != Link::Hung).await.map(|link| !link.is_lost());
        match passes {
            Ok(true) if to.write_all(&buffer[..length]).await.is_ok() => {}
            Ok(false) => {}
            _ => return,
        }
    }
}

fn locked(links: &Mutex<Links>) -> MutexGuard<'_, Links> {
    links.lock()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{Link, Proxy};
    use crate::ports::loopback;

    struct Pair {
        proxy: Proxy,
        listener: TcpListener,
        client: TcpStream,
        server: TcpStream,
    }

    async fn pair() -> Pair {
        let listener = TcpListener::bind(loopback(0)).await.expect("a port");
        let proxy = Proxy::before(listener.local_addr().expect("bound").port()).await.expect("a proxy");
        let client = TcpStream::connect(loopback(proxy.port())).await.expect("a connection");
        let (server, _) = listener.accept().await.expect("its other end");
        let mut pair = Pair { proxy, listener, client, server };
        pair.passes_both_ways().await;
        pair
    }

    /// What this side reads in a moment: nothing, the end, or bytes.
    async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut buffer = [0; 16];
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await.ok()?;
        Some(read.map_or_else(|_| Vec::new(), |length| buffer[..length].to_vec()))
    }

    impl Pair {
        async fn passes_both_ways(&mut self) {
            self.client.write_all(b"ask").await.expect("sent");
            assert_eq!(read(&mut self.server).await.as_deref(), Some(&b"ask"[..]));
            self.server.write_all(b"tell").await.expect("sent");
            assert_eq!(read(&mut self.client).await.as_deref(), Some(&b"tell"[..]));
        }
    }

    #[tokio::test]
    async fn a_hung_connection_delivers_its_data_later() {
        let mut pair = pair().await;
        pair.proxy.set(Link::Hung);
        pair.client.write_all(b"late").await.expect("sent");
        assert_eq!(read(&mut pair.server).await, None);
        pair.proxy.heal();
        assert_eq!(read(&mut pair.server).await.as_deref(), Some(&b"late"[..]));
        pair.passes_both_ways().await;
    }

    #[tokio::test]
    async fn a_slow_connection_delivers_everything() {
        let mut pair = pair().await;
        pair.proxy.set(Link::Slow(Duration::from_millis(20)));
        pair.passes_both_ways().await;
    }

    #[tokio::test]
    async fn a_cut_connection_ends_on_both_sides_and_new_ones_are_refused() {
        let mut pair = pair().await;
        pair.proxy.set(Link::Cut);
        assert_eq!(read(&mut pair.client).await, Some(Vec::new()));
        assert_eq!(read(&mut pair.server).await, Some(Vec::new()));
        let mut refused =
            TcpStream::connect(loopback(pair.proxy.port())).await.expect("the system accepts it");
        assert_eq!(read(&mut refused).await, Some(Vec::new()));
        pair.proxy.heal();
        let _again = TcpStream::connect(loopback(pair.proxy.port())).await.expect("a connection");
        let accepted = tokio::time::timeout(Duration::from_secs(5), pair.listener.accept()).await;
        assert!(accepted.is_ok(), "once healed, it accepts connections");
    }

    #[tokio::test]
    async fn a_half_open_connection_notifies_one_side_only() {
        let mut pair = pair().await;
        pair.proxy.set(Link::ClientUnaware);
        assert_eq!(read(&mut pair.server).await, Some(Vec::new()), "the server was told");
        assert_eq!(read(&mut pair.client).await, None, "the client was not");
        pair.proxy.heal();
        assert_eq!(read(&mut pair.client).await, Some(Vec::new()), "until the end of the fault");
        let mut pair = self::pair().await;
        pair.proxy.set(Link::ServerUnaware);
        assert_eq!(read(&mut pair.client).await, Some(Vec::new()));
        assert_eq!(read(&mut pair.server).await, None);
    }
}

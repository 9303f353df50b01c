//! A TCP proxy whose lines can be broken in the ways that networks break them.
//!
//! A fault changes the state of every line that is open, and of those that are opened before it is healed. A line
//! that went deaf on one side never comes back: the other side was told that it is closed, and this one was not.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::ports::loopback;

/// How a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It carries what it is given.
    Open,
    /// It carries everything so much later.
    Slow(Duration),
    /// It carries nothing. What was sent meanwhile arrives when it is open again.
    Hung,
    /// Half open: the server was told that it is closed, the client waits for ever.
    DeafClient,
    /// Half open: the client was told that it is closed, the server waits for ever.
    DeafServer,
    /// Both sides are told that it is closed.
    Cut,
}

impl Line {
    /// There is no way back from these.
    fn is_lost(self) -> bool {
        matches!(self, Self::DeafClient | Self::DeafServer | Self::Cut)
    }
}

/// A proxy before one server.
pub struct Proxy {
    address: SocketAddr,
    lines: Arc<Mutex<Lines>>,
}

struct Lines {
    /// Lines that are opened now begin like this.
    new: Line,
    open: Vec<watch::Sender<Line>>,
}

impl Proxy {
    /// Listens on a free port of the loopback address, before the server on this one.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn before(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(loopback(0)).await?;
        let address = listener.local_addr()?;
        let lines = Arc::new(Mutex::new(Lines { new: Line::Open, open: Vec::new() }));
        tokio::spawn(accept(listener, loopback(port), Arc::clone(&lines)));
        Ok(Self { address, lines })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Breaks all lines. Who connects to a proxy that is cut is refused; half-open lines are those that are open now.
    pub fn set(&self, line: Line) {
        let mut lines = locked(&self.lines);
        lines.new = if matches!(line, Line::DeafClient | Line::DeafServer) { Line::Open } else { line };
        lines.open.retain(|open| !open.is_closed());
        for open in &lines.open {
            open.send_if_modified(|state| {
                let changes = !state.is_lost() && *state != line;
                if changes {
                    *state = line;
                }
                changes
            });
        }
    }

    /// Opens what can be opened, and ends what was half open: a network tells both sides at last.
    pub fn heal(&self) {
        self.set(Line::Open);
        let lines = locked(&self.lines);
        for open in &lines.open {
            open.send_if_modified(|state| {
                state.is_lost() && std::mem::replace(state, Line::Cut) != Line::Cut
            });
        }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, lines: Arc<Mutex<Lines>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let state = {
            let mut lines = locked(&lines);
            if lines.new == Line::Cut {
                continue;
            }
            let (sender, state) = watch::channel(lines.new);
            lines.open.push(sender);
            state
        };
        tokio::spawn(async move {
            // Nobody listens there: the client learns of it as of any closed line.
            let Ok(server) = TcpStream::connect(server).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::join!(
                carry(from_client, to_server, state.clone(), Line::DeafServer),
                carry(from_server, to_client, state, Line::DeafClient),
            );
        });
    }
}

/// Carries one direction until its end. `deaf`: the state in which the receiving side is not told of the end.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<Line>,
    deaf: Line,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let line = *state.borrow_and_update();
        match line {
            Line::Cut => return,
            Line::DeafClient | Line::DeafServer => {
                if line == deaf {
                    // Kept, and never written to again.
                    let _ = state.wait_for(|line| *line == Line::Cut).await;
                }
                return;
            }
            Line::Hung => {
                if state.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Line::Open | Line::Slow(_) => {}
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
        if let Line::Slow(delay) = line {
            tokio::time::sleep(delay).await;
        }
        // It may have broken while this was on its way.
        let carried = state.wait_for(|line| *line != Line::Hung).await.map(|line| !line.is_lost());
        match carried {
            Ok(true) if to.write_all(&buffer[..length]).await.is_ok() => {}
            Ok(false) => {}
            _ => return,
        }
    }
}

fn locked(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{Line, Proxy};
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
        let client = TcpStream::connect(loopback(proxy.port())).await.expect("a line");
        let (server, _) = listener.accept().await.expect("its other end");
        let mut pair = Pair { proxy, listener, client, server };
        pair.carries().await;
        pair
    }

    /// What this side reads in a moment: nothing, the end, or bytes.
    async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut buffer = [0; 16];
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await.ok()?;
        Some(read.map_or_else(|_| Vec::new(), |length| buffer[..length].to_vec()))
    }

    impl Pair {
        async fn carries(&mut self) {
            self.client.write_all(b"ask").await.expect("sent");
            assert_eq!(read(&mut self.server).await.as_deref(), Some(&b"ask"[..]));
            self.server.write_all(b"tell").await.expect("sent");
            assert_eq!(read(&mut self.client).await.as_deref(), Some(&b"tell"[..]));
        }
    }

    #[tokio::test]
    async fn a_hung_line_carries_later_what_it_was_given() {
        let mut pair = pair().await;
        pair.proxy.set(Line::Hung);
        pair.client.write_all(b"late").await.expect("sent");
        assert_eq!(read(&mut pair.server).await, None);
        pair.proxy.heal();
        assert_eq!(read(&mut pair.server).await.as_deref(), Some(&b"late"[..]));
        pair.carries().await;
    }

    #[tokio::test]
    async fn a_slow_line_carries_everything() {
        let mut pair = pair().await;
        pair.proxy.set(Line::Slow(Duration::from_millis(20)));
        pair.carries().await;
    }

    #[tokio::test]
    async fn a_cut_line_ends_on_both_sides_and_nobody_comes_in() {
        let mut pair = pair().await;
        pair.proxy.set(Line::Cut);
        assert_eq!(read(&mut pair.client).await, Some(Vec::new()));
        assert_eq!(read(&mut pair.server).await, Some(Vec::new()));
        let mut refused =
            TcpStream::connect(loopback(pair.proxy.port())).await.expect("the system accepts it");
        assert_eq!(read(&mut refused).await, Some(Vec::new()));
        pair.proxy.heal();
        let _again = TcpStream::connect(loopback(pair.proxy.port())).await.expect("a line");
        let accepted = tokio::time::timeout(Duration::from_secs(5), pair.listener.accept()).await;
        assert!(accepted.is_ok(), "healed, it lets in");
    }

    #[tokio::test]
    async fn of_a_half_open_line_one_side_knows_nothing() {
        let mut pair = pair().await;
        pair.proxy.set(Line::DeafClient);
        assert_eq!(read(&mut pair.server).await, Some(Vec::new()), "the server was told");
        assert_eq!(read(&mut pair.client).await, None, "the client was not");
        pair.proxy.heal();
        assert_eq!(read(&mut pair.client).await, Some(Vec::new()), "until the end of the fault");
        let mut pair = self::pair().await;
        pair.proxy.set(Line::DeafServer);
        assert_eq!(read(&mut pair.client).await, Some(Vec::new()));
        assert_eq!(read(&mut pair.server).await, None);
    }
}

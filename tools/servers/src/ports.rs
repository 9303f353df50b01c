//! Free ports of the loopback address.
//!
//! A port that was free a moment ago may be taken when a server binds it: callers try again on a conflict.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A port that nothing listens on.
///
/// # Errors
/// When the system has none left.
pub fn free() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The wanted port when it is free, else any.
///
/// # Errors
/// When the system has none left.
pub fn preferred_or_free(wanted: u16) -> io::Result<u16> {
    // On the unspecified address: the wanted port may be taken on another address, by a server for the whole machine.
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, wanted)) {
        Ok(_) => Ok(wanted),
        Err(_) => free(),
    }
}

/// The loopback address with this port.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

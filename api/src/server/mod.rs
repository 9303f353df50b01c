//! The HTTP server. The listener accepts connections up to a limit, a connection serves HTTP/1.1 with hyper, and the
//! pipeline routes, authenticates and limits each request and calls its handler.

pub mod access_log;
pub mod connection;
pub mod connection_limits;
pub mod cors;
pub mod headers;
pub mod listener;
pub mod panic;
pub mod pipeline;
pub mod unparsed;

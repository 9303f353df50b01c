//! From a socket to a handler and back: the listener accepts connections while there is room, a connection speaks
//! HTTP/1.1 over hyper with every limit set, and the pipeline takes each request through route, caller and limits to
//! its handler.

pub mod access_log;
pub mod connection;
pub mod connection_limits;
pub mod cors;
pub mod headers;
pub mod listener;
pub mod panic;
pub mod pipeline;
pub mod unparsed;

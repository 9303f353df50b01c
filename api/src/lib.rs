//! The edge of Atrium: REST and Server-Sent Events over hyper, without a framework.
//!
//! A connection becomes requests in [`edge`], a request finds its handler in the one table in [`routes`], and a
//! handler gets [`state::App`] and an [`edge::request::Request`]. Each resource is a file or folder of its own.

pub mod api_keys;
pub mod audit;
pub mod auth;
pub mod chat;
pub mod configs;
pub mod edge;
pub mod invitations;
pub mod live;
pub mod members;
pub mod operations;
pub mod orgs;
pub mod pages;
pub mod projects;
pub mod routes;
pub mod state;

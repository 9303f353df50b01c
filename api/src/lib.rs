//! Atrium's API: REST and Server-Sent Events over hyper, without a framework.
//!
//! [`server`] reads requests from connections, [`routes`] is the one table that maps requests to handlers, and a
//! handler receives [`state::App`] and an [`http::request::Request`]. Each resource has its own folder.
//!
//! The modules are layers, and a module imports only from layers below its own. From top to bottom: `server`, `routes`,
//! `schemas`, the resources (from `organizations` to `pages`), `state`, `live`, `limits`, `http`.

pub mod server;

pub mod routes;

pub mod schemas;

pub mod api_keys;
pub mod audit;
pub mod auth;
pub mod chat;
pub mod configuration;
pub mod invitations;
pub mod members;
pub mod operations;
pub mod organizations;
pub mod pages;
pub mod projects;

pub mod state;

pub mod live;

pub mod limits;

pub mod http;

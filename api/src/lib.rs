//! Atrium's API: REST and Server-Sent Events over hyper, without a framework.
//!
//! A connection becomes requests in [`server`], a request finds its handler in the one table in [`routes`], and a
//! handler gets [`state::App`] and an [`http::request::Request`]. Each resource is a folder of its own.
//!
//! A module imports nothing from the modules before it in this list: `server`, `routes`, `schemas`, the resources (from
//! `organizations` to `pages`), `state`, `live`, `limits`, `http`.

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

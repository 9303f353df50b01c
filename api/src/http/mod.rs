//! HTTP as handlers see it: a request with its caller, query and body, and a response or a problem.
//!
//! This is the lowest layer: it does not depend on routes, limits or resources.

pub mod body;
pub mod body_lines;
pub mod caller;
pub mod etag;
pub mod idempotency;
pub mod problem;
pub mod query;
pub mod quota_status;
pub mod request;
pub mod request_body;
pub mod request_id;
pub mod response;
pub mod schema;

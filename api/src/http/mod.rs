//! HTTP as handlers see it: a request with its caller, its query and its body, and an answer or a problem.
//!
//! This module knows no route, limit or resource; all modules above use it.

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

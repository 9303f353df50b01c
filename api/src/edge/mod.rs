//! What lies between a socket and a handler: connections, limits, requests, answers.

pub mod access_log;
pub mod body;
pub mod connection;
pub mod cors;
pub mod garbled;
pub mod headers;
pub mod idempotency;
pub mod lines;
pub mod origin;
pub mod panic;
pub mod places;
pub mod preconditions;
pub mod problem;
pub mod query;
pub mod quotas;
pub mod rate_limits;
pub mod request;
pub mod request_id;
pub mod respond;
pub mod revalidation;
pub mod server;
pub mod service;
pub mod sse;

#[cfg(test)]
pub(crate) mod tests {
    use atrium_shared::settings::{ApiSettings, Reader};

    /// Settings of an API at https://atrium.example that allows https://friend.example.
    pub(crate) fn api_settings() -> ApiSettings {
        let variables = [
            ("ATRIUM_PUBLIC_URL", "https://atrium.example"),
            ("ATRIUM_ALLOWED_ORIGINS", "https://friend.example"),
            ("ATRIUM_SIGNING_KEYS_DIR", "/"),
        ];
        let mut reader =
            Reader::from_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let settings = reader.api();
        reader.finish(settings).expect("valid settings")
    }
}

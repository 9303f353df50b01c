//! Signing in as a guest, staying signed in, signing out, and knowing who asks.

mod api_key;
pub mod authenticate;
pub mod cookie;
mod families;
pub mod guest;
pub mod jwks;
pub mod logout;
pub mod me;
pub mod origin;
pub mod refresh;
mod refresh_token;
mod signed_in;

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

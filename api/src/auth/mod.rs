//! Signing in as a guest, staying signed in, signing out, and authenticating every request.
//!
//! A request carries a short-lived access token, in `Authorization` or in a cookie, or an API key ([`authenticate`]). A
//! token from the cookie is accepted only in requests from our own pages and the allowed origins ([`origin`]). Each use
//! of the refresh token replaces it. Reusing one after a grace period revokes the whole sign-in session ([`refresh`]).

mod api_key;
mod auth_sessions;
pub mod authenticate;
pub mod cookie;
pub mod guest;
pub mod jwks;
pub mod logout;
pub mod me;
pub mod origin;
pub mod refresh;
mod refresh_token;
mod signed_in;

use crate::http::{
    caller::User,
    schema::{Component, component, received},
};

/// The request and response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        received::<logout::SignOut>("SignOut"),
        component::<User>("User"),
        component::<signed_in::SignedIn>("GuestSession"),
        component::<me::Me>("Me"),
    ]
}

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

//! The two HttpOnly cookies, which carry tokens that scripts cannot read.
//!
//! Browsers send the access token with every request. They send the refresh token, which lives longer, only to the
//! endpoints that use it: its path keeps it out of all other requests, and out of their logs.

use atrium_shared::settings::PublicUrl;
use http::{HeaderMap, HeaderValue, header};

/// One of the cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    /// Carries the access token.
    Session,
    /// Carries the refresh token.
    Refresh,
}

impl Cookie {
    /// The cookie's name. Over TLS, the prefixes make browsers reject a cookie set over plain HTTP. `__Host-` also
    /// makes them reject one set by another host, but it requires the path `/`, so the refresh cookie cannot use it.
    fn name(self, public_url: &PublicUrl) -> &'static str {
        match (self, public_url.is_https()) {
            (Self::Session, true) => "__Host-atrium_session",
            (Self::Session, false) => "atrium_session",
            (Self::Refresh, true) => "__Secure-atrium_refresh",
            (Self::Refresh, false) => "atrium_refresh",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Session => "/",
            Self::Refresh => "/v1/auth",
        }
    }

    /// The token in the request's cookies. `None` if two cookies have the name, because one of them was planted.
    #[must_use]
    pub fn read<'a>(self, public_url: &PublicUrl, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = self.name(public_url);
        let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut tokens = pairs
            .flat_map(|pairs| pairs.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter_map(|(key, value)| (key == name).then_some(value));
        let token = tokens.next().filter(|token| !token.is_empty());
        if tokens.next().is_some() { None } else { token }
    }

    /// The value of `Set-Cookie` that stores a token for `max_age` seconds.
    ///
    /// # Errors
    /// When the token is not a valid header value, which is a defect.
    pub fn set(
        self,
        public_url: &PublicUrl,
        token: &str,
        max_age: u64,
    ) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        let secure = if public_url.is_https() { "; Secure" } else { "" };
        HeaderValue::try_from(format!(
            "{}={token}; HttpOnly; SameSite=Strict; Path={}; Max-Age={max_age}{secure}",
            self.name(public_url),
            self.path()
        ))
    }

    /// The value of `Set-Cookie` that deletes the cookie.
    ///
    /// # Errors
    /// Never, in practice: the value contains no text from a client.
    pub fn clear(self, public_url: &PublicUrl) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        self.set(public_url, "", 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_over_tls_are_secure_and_prefixed() {
        let url = crate::auth::tests::api_settings().public_url;
        assert_eq!(
            Cookie::Session.set(&url, "a.b.c", 900).expect("a header value"),
            "__Host-atrium_session=a.b.c; HttpOnly; SameSite=Strict; Path=/; Max-Age=900; Secure"
        );
        assert_eq!(
            Cookie::Refresh.set(&url, "t", 60).expect("a header value"),
            "__Secure-atrium_refresh=t; HttpOnly; SameSite=Strict; Path=/v1/auth; Max-Age=60; Secure"
        );
    }

    #[test]
    fn read_requires_exactly_one_cookie_of_the_name() {
        let url = crate::auth::tests::api_settings().public_url;
        let read = |value| {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(value))]);
            Cookie::Session.read(&url, &headers).map(str::to_owned)
        };
        assert_eq!(
            read("a=1; __Host-atrium_session=t; __Secure-atrium_refresh=r; b=2").as_deref(),
            Some("t")
        );
        for invalid in [
            "",
            "atrium_session=t",
            "__Secure-atrium_refresh=t",
            "__Host-atrium_session=",
            "__Host-atrium_session=t; __Host-atrium_session=u",
        ] {
            assert_eq!(read(invalid), None, "{invalid}");
        }
    }
}

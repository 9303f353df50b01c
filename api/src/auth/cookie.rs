//! The two cookies: tokens where scripts cannot read them.
//!
//! The access token is sent with every request. The refresh token, which lives longer, is sent only where it is used:
//! its path keeps it out of every other request and out of the logs of those.

use atrium_shared::settings::PublicUrl;
use http::{HeaderMap, HeaderValue, header};

/// One of the cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    /// Holds the access token.
    Session,
    /// Holds the refresh token.
    Refresh,
}

impl Cookie {
    /// The name of the cookie. Over TLS the prefixes make browsers reject a cookie that plain HTTP has set; `__Host-`
    /// also one that another host has set, but it allows no path.
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

    /// The token in the request's cookies. Two of that name are none: one of them was planted.
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

    /// The value of `Set-Cookie` that hands out a token for `max_age` seconds.
    ///
    /// # Errors
    /// When the token is no header value, which is a defect.
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

    /// The value of `Set-Cookie` that takes it back.
    ///
    /// # Errors
    /// Cannot happen in practice: the value contains no foreign text.
    pub fn clear(self, public_url: &PublicUrl) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        self.set(public_url, "", 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_tls_the_cookies_are_bound_to_it() {
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
    fn repeated_cookies_are_rejected() {
        let url = crate::auth::tests::api_settings().public_url;
        let read = |value| {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(value))]);
            Cookie::Session.read(&url, &headers).map(str::to_owned)
        };
        assert_eq!(
            read("a=1; __Host-atrium_session=t; __Secure-atrium_refresh=r; b=2").as_deref(),
            Some("t")
        );
        for none in [
            "",
            "atrium_session=t",
            "__Secure-atrium_refresh=t",
            "__Host-atrium_session=",
            "__Host-atrium_session=t; __Host-atrium_session=u",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}

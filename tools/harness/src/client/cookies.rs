//! Keeps the cookies of one server.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::SET_COOKIE;
use parking_lot::{Mutex, MutexGuard};

/// Cookies; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct CookieJar {
    cookies: Arc<Mutex<BTreeMap<String, String>>>,
}

impl CookieJar {
    /// Applies the `Set-Cookie` headers of an answer.
    pub(crate) fn store(&self, headers: &HeaderMap) {
        let mut cookies = self.locked();
        for set in headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let mut parts = set.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            let gone = parts.any(|attribute| attribute.eq_ignore_ascii_case("max-age=0"));
            if gone || value.is_empty() {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// The `Cookie` header, if there is anything to send.
    pub(crate) fn header(&self) -> Option<String> {
        let cookies = self.locked();
        let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.cookies.lock()
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderValue, SET_COOKIE};

    use super::CookieJar;

    #[test]
    fn cookies_are_kept_and_cleared() {
        let jar = CookieJar::default();
        assert_eq!(jar.header(), None);
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("a=1; HttpOnly; Max-Age=900"));
        headers.append(SET_COOKIE, HeaderValue::from_static("b=2"));
        jar.store(&headers);
        assert_eq!(jar.header().as_deref(), Some("a=1; b=2"));
        headers.clear();
        headers.append(SET_COOKIE, HeaderValue::from_static("a=; Path=/; Max-Age=0"));
        jar.store(&headers);
        assert_eq!(jar.header().as_deref(), Some("b=2"));
    }
}

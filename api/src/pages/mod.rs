//! The web page, the documentation and the API description: public files, embedded at build time.
//!
//! Their names do not change with their content, so browsers revalidate them on every use, with the entity tag of the
//! cached content. The response is usually a 304.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    http::{
        etag::{content_etag, not_modified_or},
        problem::Problem,
        request::Request,
        response::{Response, bytes},
    },
    state::App,
};

/// Path, media type and content of each file. `build.rs` generates the list from `web/` and `docs/api`.
static FILES: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/files.rs"));
static OPENAPI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// A file with its entity tag.
struct File {
    media_type: &'static str,
    content: &'static [u8],
    etag: String,
}

static PAGES: LazyLock<Vec<(&'static str, File)>> = LazyLock::new(|| {
    FILES.iter().map(|(path, media_type, content)| (*path, File::new(media_type, content))).collect()
});
static DESCRIPTION: LazyLock<File> = LazyLock::new(|| File::new("application/json", OPENAPI));

/// The paths of the pages and their files.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, ..)| *path)
}

/// `GET /`, `/docs`, `/docs/errors` and the files that they use.
///
/// # Errors
/// When the table of routes names a missing file, which is a bug.
pub async fn page(_: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let page = PAGES.iter().find(|(path, _)| *path == request.uri.path());
    let (_, file) = page.ok_or_else(|| Problem::internal("a route without its file"))?;
    file.respond(&request.headers)
}

/// `GET /v1/openapi.json`
///
/// # Errors
/// Never.
pub async fn openapi(_: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    DESCRIPTION.respond(&request.headers)
}

impl File {
    fn new(media_type: &'static str, content: &'static [u8]) -> Self {
        Self { media_type, content, etag: content_etag(content) }
    }

    fn respond(&self, request: &HeaderMap) -> Result<Response, Problem> {
        let complete = bytes(
            StatusCode::OK,
            HeaderValue::from_static(self.media_type),
            Bytes::from_static(self.content),
        );
        let mut response = not_modified_or(request, &self.etag, complete)?;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matching_if_none_match_returns_304() {
        let file = File::new("text/plain", b"hello");
        let status = |tag: &str| {
            let tag = HeaderValue::try_from(tag).expect("a header value");
            file.respond(&HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]))
                .map(|response| response.status())
                .ok()
        };
        assert_eq!(status("\"other\""), Some(StatusCode::OK));
        assert_eq!(status(&file.etag), Some(StatusCode::NOT_MODIFIED));
        assert_eq!(status(&format!("\"other\", W/{}", file.etag)), Some(StatusCode::NOT_MODIFIED));
    }

    #[test]
    fn the_api_description_is_json_in_its_original_order() {
        let text = std::str::from_utf8(OPENAPI).expect("UTF-8");
        assert!(text.starts_with("{\"openapi\":\"3.1.0\""), "{text:.80}");
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
    }

    #[test]
    fn the_embedded_files_include_all_pages() {
        for path in ["/", "/docs", "/docs/errors", "/docs/error-catalog.md", "/app.js", "/style.css"] {
            assert!(paths().any(|known| known == path), "{path}");
        }
        assert!(paths().all(|path| !path.contains("node_modules") && !path.contains("test")));
    }
}

//! The table of routes: every method and path of the API, and what is checked before its handler runs.
//!
//! A test compares `docs/api/openapi.yaml` with this table, in both directions.

use std::{pin::Pin, sync::Arc, time::Duration};

use atrium_shared::{
    api_key::ApiScope,
    timings::{MAX_RESPONSE_TIME, is_longer},
};
use http::{HeaderValue, Method};
use matchit::Router;

use crate::{
    api_keys, audit, auth, chat, configuration,
    http::{body::READ_TIMEOUT, problem::Problem, query::decode, request::Request, response::Response},
    invitations, members, operations, organizations, pages, projects,
    state::App,
};

/// The future that a handler returns.
pub type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send + 'a>>;

/// A handler: `async fn handler(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem>`.
///
/// Handlers of methods that write run detached from the connection, so that a disconnecting client cannot stop them
/// between a commit and the work that follows it.
pub type Handler = for<'a> fn(&'a Arc<App>, &'a mut Request) -> HandlerFuture<'a>;

/// The callers that a route admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every client, without credentials.
    Public,
    /// A client with a valid access token, or a valid API key where the route has a scope.
    User,
    /// A client with a refresh token. The handler verifies the token and the origin of the request.
    Refresh,
}

/// Which rate limit a request counts against before its handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit: the route is public and cheap.
    None,
    /// `limits.sign_ins_per_minute`, per address.
    SignIns,
    /// `limits.requests_per_minute`, per user.
    Requests,
    /// The same number, `limits.requests_per_minute`, per address: the user is unknown until the refresh token has been
    /// looked up.
    Refreshes,
    /// `limits.chat_actions_per_second`, per user and project. The handler counts, because it has the project's
    /// configuration.
    ChatActions,
}

/// A row of the table.
pub struct Route {
    /// The method; a `GET` also answers `HEAD`.
    pub method: Method,
    /// The path, with `{parameters}`. Metrics and logs use it, never the requested path.
    pub template: &'static str,
    /// The callers that it admits.
    pub access: Access,
    /// The rate limit that a request counts against.
    pub limit: Limit,
    /// The largest body, in bytes.
    pub body_limit: usize,
    /// How long the handler may take before the request is answered with 503 and `Retry-After`.
    pub time_limit: Duration,
    /// The scope that an API key must have. A route without a scope accepts no API keys.
    pub scope: Option<ApiScope>,
    /// Whether the response is an event stream. An `EventSource` never reconnects after an error status, so errors of
    /// these routes may be sent as events instead.
    pub stream: bool,
    /// The handler.
    pub handler: Handler,
}

impl Route {
    /// Whether the handler may change something.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.method != Method::GET
    }

    fn public(mut self) -> Self {
        (self.access, self.limit) = (Access::Public, Limit::None);
        self
    }

    fn refresh(mut self) -> Self {
        (self.access, self.limit) = (Access::Refresh, Limit::Refreshes);
        self
    }

    fn scope(mut self, scope: ApiScope) -> Self {
        self.scope = Some(scope);
        self
    }

    fn stream(mut self) -> Self {
        self.stream = true;
        self
    }

    fn large(mut self, body_limit: usize, time_limit: Duration) -> Self {
        (self.body_limit, self.time_limit) = (body_limit, time_limit);
        self
    }

    fn limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }
}

/// The default body limit, in bytes; larger than any request needs, apart from imports.
const BODY_LIMIT: usize = 64 * 1024;

/// The default time limit of a handler.
const TIME_LIMIT: Duration = Duration::from_secs(30);

// A request succeeds even if its body and PostgreSQL's reply each take as long as their own timeout allows.
const _: () = assert!(is_longer(TIME_LIMIT, 1, READ_TIMEOUT.saturating_add(MAX_RESPONSE_TIME)));

/// A row: method, template, handler. By default, it requires a user and counts against `Limit::Requests`.
macro_rules! route {
    ($method:ident $template:literal => $($handler:tt)+) => {
        Route {
            method: Method::$method,
            template: $template,
            access: Access::User,
            limit: Limit::Requests,
            body_limit: BODY_LIMIT,
            time_limit: TIME_LIMIT,
            scope: None,
            stream: false,
            handler: |app, request| Box::pin($($handler)+(app, request)),
        }
    };
}

/// All rows.
#[must_use]
pub fn table() -> Vec<Route> {
    let mut table = vec![
        route!(POST "/v1/auth/guest" => auth::guest::sign_in).public().limit(Limit::SignIns),
        route!(POST "/v1/auth/refresh" => auth::refresh::refresh).refresh(),
        route!(POST "/v1/auth/logout" => auth::logout::logout),
        route!(GET "/v1/auth/me" => auth::me::me),
        route!(GET "/.well-known/jwks.json" => auth::jwks::jwks).public(),
        route!(GET "/v1/orgs" => organizations::list::list),
        route!(POST "/v1/orgs" => organizations::create::create),
        route!(POST "/v1/orgs/import" => organizations::import::import)
            .large(organizations::import::BODY_LIMIT, organizations::import::TIME_LIMIT),
        route!(GET "/v1/orgs/{org}" => organizations::get::get),
        route!(PATCH "/v1/orgs/{org}" => organizations::rename::rename),
        route!(DELETE "/v1/orgs/{org}" => organizations::lifecycle::delete),
        route!(POST "/v1/orgs/{org}/suspend" => organizations::lifecycle::suspend),
        route!(POST "/v1/orgs/{org}/resume" => organizations::lifecycle::resume),
        route!(POST "/v1/orgs/{org}/restore" => organizations::lifecycle::restore),
        route!(POST "/v1/orgs/{org}/transfer" => members::role::transfer),
        route!(GET "/v1/orgs/{org}/export" => organizations::export::export).scope(ApiScope::ExportRead),
        route!(GET "/v1/orgs/{org}/audit" => audit::list).scope(ApiScope::AuditRead),
        route!(GET "/v1/operations/{operation}" => operations::get),
        route!(POST "/v1/operations/{operation}/cancel" => operations::cancel),
        route!(GET "/v1/operations/{operation}/events" => operations::events::stream).stream(),
        route!(GET "/v1/orgs/{org}/members" => members::list::list).scope(ApiScope::MembersRead),
        route!(PATCH "/v1/orgs/{org}/members/{user}" => members::role::change),
        route!(DELETE "/v1/orgs/{org}/members/{user}" => members::remove::remove),
        route!(GET "/v1/orgs/{org}/invitations" => invitations::list),
        route!(POST "/v1/orgs/{org}/invitations" => invitations::create),
        route!(GET "/v1/orgs/{org}/invitations/{invitation}" => invitations::get),
        route!(DELETE "/v1/orgs/{org}/invitations/{invitation}" => invitations::revoke),
        route!(GET "/v1/orgs/{org}/api-keys" => api_keys::list),
        route!(POST "/v1/orgs/{org}/api-keys" => api_keys::create),
        route!(GET "/v1/orgs/{org}/api-keys/{api_key}" => api_keys::get),
        route!(DELETE "/v1/orgs/{org}/api-keys/{api_key}" => api_keys::revoke),
        route!(POST "/v1/invitations/accept" => invitations::accept),
        route!(GET "/v1/orgs/{org}/projects" => projects::list).scope(ApiScope::ProjectsRead),
        route!(POST "/v1/orgs/{org}/projects" => projects::create).scope(ApiScope::ProjectsWrite),
        route!(GET "/v1/orgs/{org}/projects/{project}" => projects::get).scope(ApiScope::ProjectsRead),
        route!(PATCH "/v1/orgs/{org}/projects/{project}" => projects::rename).scope(ApiScope::ProjectsWrite),
        route!(DELETE "/v1/orgs/{org}/projects/{project}" => projects::delete).scope(ApiScope::ProjectsWrite),
        route!(POST "/v1/orgs/{org}/projects/{project}/chat/sessions" => chat::sessions::open),
        route!(DELETE "/v1/orgs/{org}/projects/{project}/chat/sessions/{session}" => chat::sessions::close),
        route!(GET "/v1/orgs/{org}/projects/{project}/chat/sessions/{session}/events" => chat::events::stream).stream(),
        route!(POST "/v1/orgs/{org}/projects/{project}/chat/sessions/{session}/actions" => chat::actions::press)
            .limit(Limit::ChatActions),
        route!(GET "/v1/orgs/{org}/projects/{project}/chat/counters" => chat::counters::get),
        route!(GET "/v1/orgs/{org}/configs" => configuration::read::list).scope(ApiScope::ConfigRead),
        route!(GET "/v1/orgs/{org}/configs/status" => configuration::status::status).scope(ApiScope::ConfigRead),
        route!(GET "/v1/orgs/{org}/configs/events" => configuration::events::stream).stream().scope(ApiScope::ConfigRead),
        route!(GET "/v1/orgs/{org}/configs/{key}" => configuration::read::get).scope(ApiScope::ConfigRead),
        route!(PUT "/v1/orgs/{org}/configs/{key}" => configuration::change::set).scope(ApiScope::ConfigWrite),
        route!(DELETE "/v1/orgs/{org}/configs/{key}" => configuration::change::unset).scope(ApiScope::ConfigWrite),
        route!(GET "/v1/orgs/{org}/configs/{key}/history" => configuration::history::history).scope(ApiScope::ConfigRead),
        route!(GET "/v1/orgs/{org}/configs/{key}/explain" => configuration::read::explain).scope(ApiScope::ConfigRead),
        route!(GET "/v1/orgs/{org}/projects/{project}/configs" => configuration::read::list).scope(ApiScope::ConfigRead),
        route!(GET "/v1/orgs/{org}/projects/{project}/configs/{key}" => configuration::read::get).scope(ApiScope::ConfigRead),
        route!(PUT "/v1/orgs/{org}/projects/{project}/configs/{key}" => configuration::change::set).scope(ApiScope::ConfigWrite),
        route!(DELETE "/v1/orgs/{org}/projects/{project}/configs/{key}" => configuration::change::unset).scope(ApiScope::ConfigWrite),
        route!(GET "/v1/orgs/{org}/projects/{project}/configs/{key}/history" => configuration::history::history).scope(ApiScope::ConfigRead),
        route!(GET "/v1/orgs/{org}/projects/{project}/configs/{key}/explain" => configuration::read::explain).scope(ApiScope::ConfigRead),
        route!(GET "/v1/openapi.json" => pages::openapi).public(),
    ];
    table
        .extend(pages::paths().map(|template| Route { template, ..route!(GET "/" => pages::page).public() }));
    table
}

/// The table, indexed by path.
pub struct Routes {
    router: Router<Vec<Arc<Route>>>,
}

/// The result of looking up a method and a path.
pub enum Found {
    /// A route, and the path's parameters, percent-decoded.
    Route(Arc<Route>, Vec<(String, String)>),
    /// The path exists, but not with this method. Contains the value of `Allow`.
    Path(HeaderValue),
    /// No route has this path.
    Nothing,
}

impl Routes {
    /// Indexes the table.
    ///
    /// # Errors
    /// When two templates match the same path.
    pub fn new(table: Vec<Route>) -> anyhow::Result<Self> {
        let mut by_template: Vec<(&'static str, Vec<Arc<Route>>)> = Vec::new();
        for route in table {
            match by_template.iter_mut().find(|(template, _)| *template == route.template) {
                Some((_, routes)) => routes.push(Arc::new(route)),
                None => by_template.push((route.template, vec![Arc::new(route)])),
            }
        }
        let mut router = Router::new();
        for (template, routes) in by_template {
            router.insert(template, routes)?;
        }
        Ok(Self { router })
    }

    /// Looks up a request by its method and path.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let Ok(found) = self.router.at(path) else {
            return Found::Nothing;
        };
        let wanted = if *method == Method::HEAD { &Method::GET } else { method };
        let Some(route) = found.value.iter().find(|route| route.method == *wanted) else {
            return Found::Path(allowed(found.value));
        };
        // A parameter that cannot be decoded becomes U+FFFD, which is no valid id or key, so the handler answers 404.
        let decoded = |(name, value): (&str, &str)| {
            (name.to_owned(), decode(value, false).unwrap_or_else(|| char::REPLACEMENT_CHARACTER.to_string()))
        };
        Found::Route(Arc::clone(route), found.params.iter().map(decoded).collect())
    }
}

/// The value of `Allow`.
fn allowed(routes: &[Arc<Route>]) -> HeaderValue {
    let mut methods: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    methods.sort_unstable();
    HeaderValue::try_from(methods.join(", ")).expect("methods are header values")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, path: &str) -> String {
        let routes = Routes::new(table()).expect("the table has no conflicts");
        match routes.find(&method.parse().expect("a method"), path) {
            Found::Route(route, parameters) => format!("{} {} {parameters:?}", route.method, route.template),
            Found::Path(allow) => format!("{allow:?}"),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn requests_match_by_method_and_template() {
        assert_eq!(find("GET", "/v1/orgs"), "GET /v1/orgs []");
        assert_eq!(find("HEAD", "/v1/orgs"), "GET /v1/orgs []");
        assert_eq!(find("GET", "/v1/orgs/a%2Fb"), r#"GET /v1/orgs/{org} [("org", "a/b")]"#);
        assert_eq!(find("GET", "/v1/orgs/%ff"), "GET /v1/orgs/{org} [(\"org\", \"\u{fffd}\")]");
        assert_eq!(
            find("GET", "/v1/orgs/x/configs/status"),
            r#"GET /v1/orgs/{org}/configs/status [("org", "x")]"#
        );
    }

    #[test]
    fn unknown_paths_match_no_route() {
        for path in ["/v1/orgs/", "//v1/orgs", "/V1/orgs", "*", "", "/v1", "/v1/orgs//members"] {
            assert_eq!(find("GET", path), "nothing", "{path}");
        }
    }

    #[test]
    fn an_unsupported_method_returns_the_allowed_ones() {
        assert_eq!(find("DELETE", "/v1/orgs"), r#""GET, HEAD, OPTIONS, POST""#);
        assert_eq!(find("TRACE", "/v1/auth/guest"), r#""OPTIONS, POST""#);
    }
}

//! The table of all routes, with the checks before each handler.
//!
//! `docs/api/openapi.yaml` is held against this table, in both directions, by a test.

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

/// What a handler becomes when it is called.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send + 'a>>;

/// A handler: `async fn handler(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem>`.
///
/// Handlers of methods that write run detached from the connection, so that a client that disconnects cannot cut
/// between a commit and what follows it.
pub type Handler = for<'a> fn(&'a Arc<App>, &'a mut Request) -> Answer<'a>;

/// The callers that a route admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// All callers.
    Public,
    /// Callers with a valid access token.
    User,
    /// Callers with a refresh token: the handler verifies it and the origin of the request.
    Refresh,
}

/// Which rate limit a request counts against before its handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// None: what is public and costs nothing.
    None,
    /// `limits.sign_ins_per_minute`, per address.
    SignIns,
    /// `limits.requests_per_minute`, per user.
    Requests,
    /// The same number, per address: the user is unknown until the refresh token is looked up.
    Refreshes,
    /// `limits.chat_actions_per_second`, per user and project: counted by the handler, which has the project's
    /// configuration.
    ChatActions,
}

/// A row of the table.
pub struct Route {
    /// The method; a `GET` also answers `HEAD`.
    pub method: Method,
    /// The path, with `{parameters}`. Metrics and logs name requests by it, never by the path that was sent.
    pub template: &'static str,
    /// The callers that it admits.
    pub access: Access,
    /// What it counts against.
    pub limit: Limit,
    /// The largest body, in bytes.
    pub body_limit: usize,
    /// How long the handler may take before the client gets 503.
    pub time_limit: Duration,
    /// Which scope a service's key must have; a route without one takes no keys.
    pub scope: Option<ApiScope>,
    /// Whether it answers with an event stream, whose clients stop forever at a refusal.
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

/// More than any request of this API needs.
const BODY_LIMIT: usize = 64 * 1024;

/// How long a request may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);

// A body that arrives just in time, and an answer of PostgreSQL that does, are both in time together.
const _: () = assert!(is_longer(TIME_LIMIT, 1, READ_TIMEOUT.saturating_add(MAX_RESPONSE_TIME)));

/// A row: method, template, handler. By default, it requires a user and counts as a request.
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
        route!(DELETE "/v1/orgs/{org}/invitations/{invitation}" => invitations::revoke),
        route!(GET "/v1/orgs/{org}/api-keys" => api_keys::list),
        route!(POST "/v1/orgs/{org}/api-keys" => api_keys::create),
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

/// The table, ready to look things up in.
pub struct Routes {
    router: Router<Vec<Arc<Route>>>,
}

/// The result of looking up a method and a path.
pub enum Found {
    /// A handler, and the path's parameters, percent-decoded.
    Route(Arc<Route>, Vec<(String, String)>),
    /// The path exists; the methods it takes.
    Path(HeaderValue),
    /// No such path.
    Nothing,
}

impl Routes {
    /// Makes the table ready.
    ///
    /// # Errors
    /// When two templates mean the same path.
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

    /// Looks a request up.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let Ok(found) = self.router.at(path) else {
            return Found::Nothing;
        };
        let wanted = if *method == Method::HEAD { &Method::GET } else { method };
        let Some(route) = found.value.iter().find(|route| route.method == *wanted) else {
            return Found::Path(allowed(found.value));
        };
        // An encoding that cannot be decoded is no id and no key: the handler finds nothing by that name.
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
    fn a_request_finds_its_row() {
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
    fn unknown_paths_have_no_route() {
        for path in ["/v1/orgs/", "//v1/orgs", "/V1/orgs", "*", "", "/v1", "/v1/orgs//members"] {
            assert_eq!(find("GET", path), "nothing", "{path}");
        }
    }

    #[test]
    fn another_method_gets_the_allowed_methods() {
        assert_eq!(find("DELETE", "/v1/orgs"), r#""GET, HEAD, OPTIONS, POST""#);
        assert_eq!(find("TRACE", "/v1/auth/guest"), r#""OPTIONS, POST""#);
    }
}

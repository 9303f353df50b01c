//! A fake Kubernetes API server, used because a real one cannot run here. It implements what the isolation step depends
//! on: objects are applied server-side, nothing can be created in a namespace that is missing or terminating, and a
//! deletion takes time.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc};

use atrium_shared::ids::OrgId;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::watch;

/// How the cluster responds to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    Normal,
    /// Answers every request with 503.
    Unavailable,
    /// Rejects every object.
    Rejecting,
    /// Delays the responses to requests that change something until its behavior changes.
    Hanging,
}

/// A namespace, and the objects in it by plural and name.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub(crate) object: Value,
    pub(crate) contents: BTreeMap<String, Value>,
}

pub(crate) struct Cluster {
    state: Arc<State>,
    address: SocketAddr,
    folder: PathBuf,
}

struct State {
    namespaces: Mutex<BTreeMap<String, Namespace>>,
    behavior: watch::Sender<Behavior>,
    /// The number of requests that change something and have arrived.
    changes: watch::Sender<usize>,
}

impl State {
    fn namespaces(&self) -> MutexGuard<'_, BTreeMap<String, Namespace>> {
        self.namespaces.lock()
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            namespaces: Mutex::default(),
            behavior: watch::Sender::new(Behavior::Normal),
            changes: watch::Sender::new(0),
        });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| respond(Arc::clone(&state), request));
                tokio::spawn(async move {
                    let connection = TokioIo::new(connection);
                    // Clients may disconnect at any time.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(connection, service)
                        .await;
                });
            }
        });
        let folder = std::env::temp_dir().join(format!("atrium-cluster-{}", OrgId::new()));
        std::fs::create_dir(&folder).expect("a folder");
        Self { state, address, folder }
    }

    /// Writes the file that `KUBECONFIG` names, and returns its path.
    pub(crate) fn kubeconfig(&self) -> String {
        let file = self.folder.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{}", self.address) } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "users": [{ "name": "test", "user": {} }],
        });
        std::fs::write(&file, config.to_string()).expect("a file");
        file.to_str().expect("a path").to_owned()
    }

    pub(crate) fn set_behavior(&self, behavior: Behavior) {
        self.state.behavior.send_replace(behavior);
    }

    /// Returns the namespace of the organization, if it exists.
    pub(crate) fn namespace(&self, org: OrgId) -> Option<Namespace> {
        self.state.namespaces().get(&name(org)).cloned()
    }

    /// Waits until more than `seen` requests that change something have arrived. Returns their number.
    pub(crate) async fn next_change(&self, seen: usize) -> usize {
        *self
            .state
            .changes
            .subscribe()
            .wait_for(|changes| *changes > seen)
            .await
            .expect("the cluster is there")
    }

    /// Creates a namespace of that name that Atrium does not own.
    pub(crate) fn create_foreign_namespace(&self, org: OrgId) {
        let object =
            json!({ "metadata": { "name": name(org), "uid": "theirs", "labels": { "team": "blue" } } });
        self.state.namespaces().insert(name(org), Namespace { object, contents: BTreeMap::new() });
    }

    /// Completes the deletions that were requested.
    pub(crate) fn finish_deletions(&self) {
        self.state.namespaces().retain(|_, namespace| !is_terminating(namespace));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn name(org: OrgId) -> String {
    format!("org-{org}")
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.object["metadata"].get("deletionTimestamp").is_some()
}

async fn respond(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let changes = head.method != Method::GET;
    if changes {
        state.changes.send_modify(|changes| *changes += 1);
        let mut behavior = state.behavior.subscribe();
        let _ = behavior.wait_for(|behavior| *behavior != Behavior::Hanging).await;
    }
    let behavior = *state.behavior.borrow();
    let (status, content) = match behavior {
        Behavior::Unavailable => failure(StatusCode::SERVICE_UNAVAILABLE),
        Behavior::Rejecting if head.method == Method::PATCH => failure(StatusCode::UNPROCESSABLE_ENTITY),
        _ => carry_out(&state, &head, &body),
    };
    let mut response = Response::new(Full::new(Bytes::from(content.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn carry_out(state: &State, head: &http::request::Parts, body: &[u8]) -> (StatusCode, Value) {
    let mut namespaces = state.namespaces();
    let path: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
    let at = path.iter().position(|part| *part == "namespaces").expect("a path of a namespace");
    let (namespace, object_path) = (path[at + 1].to_owned(), path.get(at + 2..).unwrap_or_default());
    match (&head.method, object_path) {
        (&Method::GET, []) => match namespaces.get(&namespace) {
            Some(found) => (StatusCode::OK, found.object.clone()),
            None => failure(StatusCode::NOT_FOUND),
        },
        (&Method::PATCH, _) => {
            let query = head.uri.query().unwrap_or_default();
            let kind =
                head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            assert_eq!(kind, "application/apply-patch+yaml");
            assert!(query.contains("fieldManager=atrium") && query.contains("force=true"), "{query}");
            let mut object: Value = serde_json::from_slice(body).expect("an object");
            assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{object}");
            let [plural, name] = object_path else {
                let uid = OrgId::new().to_string();
                let new = || Namespace { object: Value::Null, contents: BTreeMap::new() };
                let kept = namespaces.entry(namespace).or_insert_with(new);
                object["metadata"]["uid"] = kept.object["metadata"].get("uid").cloned().unwrap_or(json!(uid));
                kept.object = object.clone();
                return (StatusCode::OK, object);
            };
            match namespaces.get_mut(&namespace) {
                None => failure(StatusCode::NOT_FOUND),
                Some(found) if is_terminating(found) => failure(StatusCode::FORBIDDEN),
                Some(found) => {
                    found.contents.insert(format!("{plural}/{name}"), object.clone());
                    (StatusCode::OK, object)
                }
            }
        }
        (&Method::DELETE, []) => match namespaces.get_mut(&namespace) {
            None => failure(StatusCode::NOT_FOUND),
            Some(found) => {
                let options: Value = serde_json::from_slice(body).unwrap_or_default();
                if options["preconditions"]["uid"] != found.object["metadata"]["uid"] {
                    return failure(StatusCode::CONFLICT);
                }
                found.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                (StatusCode::OK, found.object.clone())
            }
        },
        (method, object_path) => panic!("{method} {object_path:?} is not expected"),
    }
}

fn failure(status: StatusCode) -> (StatusCode, Value) {
    // The spelling is that of Kubernetes, because clients compare this word.
    let reason = match status {
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid".to_owned(),
        status => status.canonical_reason().unwrap_or_default().replace(' ', ""),
    };
    let failure = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": status.as_u16(),
        "reason": reason, "message": reason, "metadata": {},
    });
    (status, failure)
}

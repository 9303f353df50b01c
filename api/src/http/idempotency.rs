//! `Idempotency-Key`: a create that is repeated with the same key takes effect once, and returns the first response.
//!
//! The response is recorded in the transaction that does the work, so a repetition finds either the complete effect
//! with its response, or nothing. The transaction also takes an advisory lock, so that a repetition detects a first
//! request that is still running. Every create supports the header, except those that the contract marks as
//! `x-not-repeatable`.

use atrium_shared::{db::OrgTx, ids::OrgId};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    problem::{Code, FieldError, Problem},
    request::Request,
    response::{Response, bytes, empty},
};

/// The response headers that are recorded.
const RECORDED: [HeaderName; 3] =
    [header::LOCATION, header::ETAG, HeaderName::from_static("operation-location")];
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A request with an `Idempotency-Key`.
pub struct IdempotentRequest {
    /// The id of a user or of an API key.
    caller: Uuid,
    route: String,
    key: String,
    /// The SHA-256 hash of the body.
    fingerprint: Vec<u8>,
}

impl IdempotentRequest {
    /// Reads the key and the body. `None` if the request has no key.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] when the key is not 1 to 255 visible ASCII characters.
    pub async fn of(request: &mut Request) -> Result<Option<Self>, Problem> {
        let Some(key) = key(request)? else {
            return Ok(None);
        };
        let fingerprint = Sha256::digest(request.bytes().await?).to_vec();
        Self::new(request, key, fingerprint).map(Some)
    }

    /// Like [`Self::of`], for a body that was already read and has this hash.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn with_fingerprint(request: &Request, fingerprint: Vec<u8>) -> Result<Option<Self>, Problem> {
        key(request)?.map(|key| Self::new(request, key, fingerprint)).transpose()
    }

    fn new(request: &Request, key: String, fingerprint: Vec<u8>) -> Result<Self, Problem> {
        let route = format!("{} {}", request.method, request.uri.path());
        Ok(Self { caller: request.caller()?.id(), route, key, fingerprint })
    }

    /// Returns the recorded response of an earlier request. `None` means that this request is the first; until `tx`
    /// ends, no other request with this key passes this point.
    ///
    /// # Errors
    /// [`Code::IdempotencyInFlight`] when the first request is still running, [`Code::IdempotencyKeyReused`] when it
    /// had a different body.
    pub async fn begin(&self, tx: &mut OrgTx) -> Result<Option<Response>, Problem> {
        let free = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "free!""#, self.lock_id())
            .fetch_one(tx.conn())
            .await?;
        // A key is valid for a day. After that it can be used again, even if the janitor has not deleted it yet.
        if free {
            sqlx::query!(
                "DELETE FROM idempotency_keys
                  WHERE caller_id = $1 AND route = $2 AND key = $3 AND created_at < now() - interval '24 hours'",
                self.caller,
                &self.route,
                &self.key
            )
            .execute(tx.conn())
            .await?;
        }
        // Read even if the lock is taken: it may belong to another repetition, which only reads the response.
        let recorded = sqlx::query!(
            "SELECT fingerprint, status, headers, body FROM idempotency_keys
              WHERE caller_id = $1 AND route = $2 AND key = $3 AND created_at >= now() - interval '24 hours'",
            self.caller,
            &self.route,
            &self.key
        )
        .fetch_optional(tx.conn())
        .await?;
        match recorded {
            None if free => Ok(None),
            None => Err(Problem::idempotency_in_flight()),
            Some(recorded) if recorded.fingerprint != self.fingerprint => Err(Problem::new(
                Code::IdempotencyKeyReused,
                "This `Idempotency-Key` was used with another body before; use a new key for a new request.",
            )),
            Some(recorded) => replay(recorded.status, &recorded.headers, recorded.body).map(Some),
        }
    }

    /// Records the response in the transaction that did the work.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub fn record<'a>(
        &'a self,
        tx: &'a mut OrgTx,
        response: &Response,
    ) -> impl Future<Output = Result<(), Problem>> + Send + use<'a> {
        let status = response.status().as_u16();
        let headers: Map<String, Value> = RECORDED
            .iter()
            .filter_map(|name| Some((name.to_string(), response.headers().get(name)?.to_str().ok()?.into())))
            .collect();
        // Stored as a JSON string to preserve every byte: as an object, jsonb would reorder its fields.
        let body = String::from_utf8_lossy(response.body().whole().unwrap_or_default()).into_owned();
        async move {
            let status = i16::try_from(status).map_err(Problem::internal)?;
            sqlx::query!(
                "INSERT INTO idempotency_keys (caller_id, route, key, fingerprint, status, headers, body, org_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                self.caller,
                &self.route,
                &self.key,
                &self.fingerprint,
                status,
                Value::Object(headers),
                Value::String(body),
                tx.org() as OrgId
            )
            .execute(tx.conn())
            .await?;
            Ok(())
        }
    }

    /// The id of the advisory lock. If two keys have the same id, their requests can conflict: one gets
    /// [`Code::IdempotencyInFlight`] and succeeds when it is repeated.
    fn lock_id(&self) -> i64 {
        let digest = Sha256::new()
            .chain_update(self.caller.as_bytes())
            .chain_update(self.route.as_bytes())
            .chain_update([0])
            .chain_update(self.key.as_bytes())
            .finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        i64::from_be_bytes(id)
    }
}

/// The validated `Idempotency-Key` header.
fn key(request: &Request) -> Result<Option<String>, Problem> {
    let Some(key) = request.header("idempotency-key")? else {
        return Ok(None);
    };
    if !(1..=255).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::new(Code::MalformedRequest, "A header is malformed; `errors` names it.")
            .errors(vec![FieldError::header(
                "idempotency-key",
                "must be 1 to 255 visible ASCII characters",
            )]));
    }
    Ok(Some(key.to_owned()))
}

/// The response to record when the real one contains a secret: only the location of the created resource.
#[must_use]
pub fn location_only(location: &HeaderValue) -> Response {
    let mut recorded = empty(StatusCode::CREATED);
    recorded.headers_mut().insert(header::LOCATION, location.clone());
    recorded
}

/// The problem for a repeated create whose response contained a secret. Its `Location` is that of the created resource.
pub fn response_not_stored(recorded: &Response, detail: &'static str) -> Problem {
    let problem = Problem::new(Code::ResponseNotStored, detail);
    match recorded.headers().get(header::LOCATION) {
        Some(location) => problem.header(header::LOCATION, location.clone()),
        None => problem,
    }
}

fn replay(status: i16, headers: &Value, body: Value) -> Result<Response, Problem> {
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let (Some(status), Value::String(body)) = (status, body) else {
        return Err(Problem::internal("a recorded answer cannot be read"));
    };
    let mut response = bytes(status, HeaderValue::from_static("application/json"), Bytes::from(body));
    let recorded: HeaderMap = RECORDED
        .into_iter()
        .filter_map(|name| {
            let value = HeaderValue::try_from(headers.get(name.as_str())?.as_str()?).ok()?;
            Some((name, value))
        })
        .collect();
    response.headers_mut().extend(recorded);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

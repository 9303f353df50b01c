//! Exporting an organization: all its records as lines of JSON, from one database snapshot.
//!
//! One read-only transaction reads all records through cursors, a few rows at a time. It sends chunks to the connection
//! through a short channel, so an export of any size uses the memory of a few chunks, and waits for a slow client. An
//! open snapshot prevents PostgreSQL from cleaning up rows of all organizations. So the export is aborted if the client
//! reads nothing for half a minute, or if it takes longer than an hour. The first line describes the export. The last
//! line has the number of lines and their hash, so that an aborted export cannot be mistaken for a complete one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use atrium_shared::{
    audit::{self, Action, Change},
    clock,
    db::{DbError, OrgTx},
    ids::OrgId,
    tenancy::{OrgStatus, Role},
};
use bytes::Bytes;
use http::{HeaderValue, Method, header};
use hyper::body::Frame;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{
    Organization,
    export_format::{NDJSON, VERSION, hexadecimal},
};
use crate::{
    http::{
        problem::{Code, Problem},
        request::Request,
        response::{Body, CLIENT_TIMEOUT, Cut, Response},
    },
    state::App,
};

/// Rows per `FETCH`.
const ROWS_PER_FETCH: u32 = 128;
/// A chunk is sent when it has this many bytes. Its last line may exceed the limit.
const CHUNK_SIZE: usize = 48 * 1024;
/// How many chunks may wait for the connection.
const CHANNEL_CAPACITY: usize = 2;
/// How long a whole export may take.
const TIME_LIMIT: Duration = Duration::from_secs(3600);

/// A kind of record. Each row of the organization in `table` is exported as an object of `columns`, sorted by `order`.
struct RecordKind {
    name: &'static str,
    columns: &'static str,
    table: &'static str,
    order: &'static str,
}

/// The records of an export, in their order: records precede those that refer to them. They contain no secret, and no
/// hash of one.
const RECORD_KINDS: &[RecordKind] = &[
    RecordKind {
        name: "project",
        columns: "id, name, created_at, updated_at",
        table: "projects",
        order: "id",
    },
    RecordKind {
        name: "member",
        columns: "user_id, user_name, role, joined_at",
        table: "members",
        order: "joined_at, user_id",
    },
    RecordKind {
        name: "invitation",
        columns: "id, role, created_by, created_at, expires_at, accepted_by, accepted_at, revoked_at",
        table: "invitations",
        order: "id",
    },
    RecordKind {
        name: "api_key",
        columns: "id, name, scopes, created_by, created_at, expires_at, last_used_at, revoked_at",
        table: "api_keys",
        order: "id",
    },
    RecordKind {
        name: "config_value",
        columns: "project_id, key, value, revision",
        table: "config_values",
        order: "revision",
    },
    RecordKind {
        name: "config_change",
        columns: "revision, project_id, key, action, old_value, new_value, author_id, author_name, reason, changed_at",
        table: "config_history",
        order: "revision",
    },
    RecordKind {
        name: "chat_counter",
        columns: "project_id, action, count",
        table: "chat_counters",
        order: "project_id, action",
    },
    RecordKind {
        name: "audit_entry",
        columns: "seq, at, actor_kind, actor_id, actor_name, action, target_kind, target_id, before, after,
                  encode(hash, 'hex') AS hash",
        table: "audit_log",
        order: "seq",
    },
];

/// `GET /v1/orgs/{org}/export`, also for an organization that is suspended or being deleted. A `HEAD` checks whether an
/// export is possible, and exports nothing.
///
/// # Errors
/// When the caller is not an owner, the organization's creation has not finished, or too many exports are running.
pub async fn export(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let principal = request.principal()?;
    let mut tx = app.database.org_tx(&principal, org).await?;
    tx.require(Role::Owner)?;
    let organization = super::read(&mut tx, Role::Owner).await?;
    if matches!(organization.status, OrgStatus::Pending | OrgStatus::Failed) {
        let detail =
            "The organization cannot be exported because its creation has not finished or has failed.";
        return Err(Problem::new(Code::OrganizationNotReady, detail));
    }
    let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
    if request.method == Method::HEAD {
        return download_response(&organization, receiver);
    }
    let permit = app.portability.export()?;
    // Recorded before the first byte is sent, so that every export is recorded. The export includes this audit entry.
    audit::record(&mut tx, Change::new(Action::OrganizationExported, "organization", org)).await?;
    tx.commit().await?;

    let mut snapshot = app.database.snapshot_tx(&principal, org, CLIENT_TIMEOUT * 2).await?;
    snapshot.require(Role::Owner)?;
    let organization = super::read(&mut snapshot, Role::Owner).await?;
    let response = download_response(&organization, receiver)?;
    let force = app.shutdown.force().clone();
    app.shutdown.spawn(async move {
        let write = tokio::time::timeout(TIME_LIMIT, write(&mut snapshot, &organization, sender));
        match force.run_until_cancelled(write).await {
            Some(Ok(Ok(lines))) => tracing::info!(%org, lines, "an organization was exported"),
            Some(Ok(Err(error))) => tracing::warn!(%org, %error, "an export was cut off"),
            Some(Err(_)) => tracing::warn!(%org, "an export took too long, and was cut off"),
            None => tracing::warn!(%org, "an export was cut off because the process stops"),
        }
        drop((snapshot, permit));
    });
    Ok(response)
}

fn download_response(
    organization: &Organization,
    chunks: mpsc::Receiver<Chunk>,
) -> Result<Response, Problem> {
    let mut response = Response::new(Body::stream(Download { chunks, complete: false }));
    // A slug consists of letters, digits and hyphens, so it needs no quoting.
    let date = clock::now().date();
    let file = format!("attachment; filename=\"{}-{date}.ndjson\"", organization.slug);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::try_from(file).map_err(Problem::internal)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Why an export was aborted.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("a line cannot be written: {0}")]
    Line(#[from] serde_json::Error),
    #[error("the client disconnected, or read nothing for too long")]
    Client,
}

impl From<sqlx::Error> for ExportError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Writes all lines, and returns their number.
async fn write(
    tx: &mut OrgTx,
    organization: &Organization,
    sender: mpsc::Sender<Chunk>,
) -> Result<u64, ExportError> {
    #[derive(Serialize)]
    struct First<'a> {
        r#type: &'static str,
        version: i64,
        #[serde(with = "time::serde::rfc3339")]
        exported_at: OffsetDateTime,
        org_id: OrgId,
        name: &'a str,
        slug: &'a str,
        status: OrgStatus,
        #[serde(with = "time::serde::rfc3339")]
        created_at: OffsetDateTime,
        #[serde(with = "time::serde::rfc3339")]
        updated_at: OffsetDateTime,
        config_revision: i64,
    }
    #[derive(Serialize)]
    struct Last {
        r#type: &'static str,
        lines: u64,
        sha256: String,
    }

    let org = tx.org();
    let head =
        sqlx::query!(r#"SELECT now() AS "now!", revision FROM config_heads WHERE org_id = $1"#, org as OrgId)
            .fetch_one(tx.conn())
            .await?;
    let first = First {
        r#type: "export",
        version: VERSION,
        exported_at: head.now,
        org_id: org,
        name: &organization.name,
        slug: &organization.slug,
        status: organization.status,
        created_at: organization.created_at,
        updated_at: organization.updated_at,
        config_revision: head.revision,
    };
    let mut out = LineWriter { sender, chunk: Vec::with_capacity(CHUNK_SIZE), lines: 0, hash: Sha256::new() };
    out.line(&serde_json::to_string(&first)?).await?;
    for kind in RECORD_KINDS {
        let RecordKind { name, columns, table, order } = kind;
        // Not a checked query: columns and table vary, and FETCH cannot be described before its cursor is declared.
        let declare = format!(
            "DECLARE lines NO SCROLL CURSOR FOR SELECT row_to_json(line)::text FROM
                 (SELECT '{name}' AS type, {columns} FROM {table} WHERE org_id = $1 ORDER BY {order}) AS line"
        );
        sqlx::query(AssertSqlSafe(declare)).bind(org).execute(tx.conn()).await?;
        loop {
            let fetch = format!("FETCH {ROWS_PER_FETCH} FROM lines");
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(fetch)).fetch_all(tx.conn()).await?;
            for row in &rows {
                out.line(row).await?;
            }
            if rows.len() < ROWS_PER_FETCH as usize {
                break;
            }
        }
        sqlx::query!("CLOSE lines").execute(tx.conn()).await?;
    }
    let lines = out.lines;
    let last = Last { r#type: "end", lines, sha256: hexadecimal(&out.hash) };
    out.line(&serde_json::to_string(&last)?).await?;
    out.flush(true).await?;
    Ok(lines + 1)
}

/// Bytes for the connection. `last` marks the end of a complete export.
struct Chunk {
    bytes: Bytes,
    last: bool,
}

/// Collects lines into chunks, and sends the chunks to the connection.
struct LineWriter {
    sender: mpsc::Sender<Chunk>,
    chunk: Vec<u8>,
    lines: u64,
    hash: Sha256,
}

impl LineWriter {
    async fn line(&mut self, text: &str) -> Result<(), ExportError> {
        self.lines += 1;
        let start = self.chunk.len();
        self.chunk.extend_from_slice(text.as_bytes());
        self.chunk.push(b'\n');
        self.hash.update(&self.chunk[start..]);
        if self.chunk.len() >= CHUNK_SIZE { self.flush(false).await } else { Ok(()) }
    }

    async fn flush(&mut self, last: bool) -> Result<(), ExportError> {
        let bytes = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_SIZE)).into();
        self.sender.send_timeout(Chunk { bytes, last }, CLIENT_TIMEOUT).await.map_err(|_| ExportError::Client)
    }
}

/// The body of the response. If the last chunk is missing, the body ends with an error.
struct Download {
    chunks: mpsc::Receiver<Chunk>,
    complete: bool,
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let download = self.get_mut();
        if download.complete {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(download.chunks.poll_recv(context)) {
            Some(Chunk { bytes, last }) => {
                download.complete = last;
                Ok(Frame::data(bytes))
            }
            None => Err(Cut),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.complete
    }
}

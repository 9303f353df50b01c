//! Exporting an organization: all of it, as lines of JSON, from one moment.
//!
//! One transaction reads everything from one snapshot, through cursors, a few rows at a time. It sends chunks to the
//! connection through a short channel, so an export of any size needs memory for a few chunks only and waits for a slow
//! client. An open snapshot keeps PostgreSQL from vacuuming for all tenants, so a client that reads nothing for half a
//! minute, or is not done within an hour, is disconnected. The first line describes the export; the last line contains
//! the number of lines and their hash, so that a truncated export cannot be taken for complete.

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

/// Number of rows per fetch.
const ROWS: u32 = 128;
/// Approximate size of one write to the connection, in bytes.
const CHUNK: usize = 48 * 1024;
/// Chunks that wait for the connection.
const WAITING: usize = 2;
/// How long an export may take altogether.
const LONGEST: Duration = Duration::from_secs(3600);

/// A kind of record: an object of `columns`, for each of the organization's rows in `table`, in this order.
struct RecordKind {
    name: &'static str,
    columns: &'static str,
    table: &'static str,
    order: &'static str,
}

/// The records of an export, in order: referenced records come first. It contains no secret and no hash of one.
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

/// `GET /v1/orgs/{org}/export`, also while the organization is suspended or about to be deleted. A `HEAD` finds out whether
/// there would be one, and exports nothing.
///
/// # Errors
/// When the caller is no owner, the organization was never ready, or too many exports are under way.
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
    let (sender, receiver) = mpsc::channel(WAITING);
    if request.method == Method::HEAD {
        return answer(&organization, receiver);
    }
    let permit = app.portability.export()?;
    // On record before the first byte leaves, and so part of what it records.
    audit::record(&mut tx, Change::new(Action::OrganizationExported, "organization", org)).await?;
    tx.commit().await?;

    let mut snapshot = app.database.snapshot_tx(&principal, org, CLIENT_TIMEOUT * 2).await?;
    snapshot.require(Role::Owner)?;
    let organization = super::read(&mut snapshot, Role::Owner).await?;
    let response = answer(&organization, receiver)?;
    let force = app.shutdown.force().clone();
    app.shutdown.spawn(async move {
        let write = tokio::time::timeout(LONGEST, write(&mut snapshot, &organization, sender));
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

fn answer(organization: &Organization, chunks: mpsc::Receiver<Chunk>) -> Result<Response, Problem> {
    let mut response = Response::new(Body::stream(Download { chunks, whole: false }));
    // A slug is letters, digits and hyphens.
    let date = clock::now().date();
    let file = format!("attachment; filename=\"{}-{date}.ndjson\"", organization.slug);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::try_from(file).map_err(Problem::internal)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("a line cannot be written: {0}")]
    Line(#[from] serde_json::Error),
    #[error("the client has gone, or took nothing for too long")]
    Client,
}

impl From<sqlx::Error> for Ended {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Writes all lines, and returns how many they were.
async fn write(
    tx: &mut OrgTx,
    organization: &Organization,
    sender: mpsc::Sender<Chunk>,
) -> Result<u64, Ended> {
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
    let mut out = Out { sender, chunk: Vec::with_capacity(CHUNK), lines: 0, hash: Sha256::new() };
    out.line(&serde_json::to_string(&first)?).await?;
    for kind in RECORD_KINDS {
        let RecordKind { name, columns, table, order } = kind;
        // Dynamic: the columns and the table are data, and FETCH cannot be described before its cursor is declared.
        let declare = format!(
            "DECLARE lines NO SCROLL CURSOR FOR SELECT row_to_json(line)::text FROM
                 (SELECT '{name}' AS type, {columns} FROM {table} WHERE org_id = $1 ORDER BY {order}) AS line"
        );
        sqlx::query(AssertSqlSafe(declare)).bind(org).execute(tx.conn()).await?;
        loop {
            let fetch = format!("FETCH {ROWS} FROM lines");
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(fetch)).fetch_all(tx.conn()).await?;
            for row in &rows {
                out.line(row).await?;
            }
            if rows.len() < ROWS as usize {
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

/// Bytes for the connection, and whether they are the last.
struct Chunk {
    bytes: Bytes,
    last: bool,
}

/// Where the lines go.
struct Out {
    sender: mpsc::Sender<Chunk>,
    chunk: Vec<u8>,
    lines: u64,
    hash: Sha256,
}

impl Out {
    async fn line(&mut self, text: &str) -> Result<(), Ended> {
        self.lines += 1;
        let begin = self.chunk.len();
        self.chunk.extend_from_slice(text.as_bytes());
        self.chunk.push(b'\n');
        self.hash.update(&self.chunk[begin..]);
        if self.chunk.len() >= CHUNK { self.flush(false).await } else { Ok(()) }
    }

    async fn flush(&mut self, last: bool) -> Result<(), Ended> {
        let bytes = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK)).into();
        self.sender.send_timeout(Chunk { bytes, last }, CLIENT_TIMEOUT).await.map_err(|_| Ended::Client)
    }
}

/// The answer's body. Without its last chunk it does not end: it breaks.
struct Download {
    chunks: mpsc::Receiver<Chunk>,
    whole: bool,
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let download = self.get_mut();
        if download.whole {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(download.chunks.poll_recv(context)) {
            Some(Chunk { bytes, last }) => {
                download.whole = last;
                Ok(Frame::data(bytes))
            }
            None => Err(Cut),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.whole
    }
}

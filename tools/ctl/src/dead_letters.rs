//! Dead letters: messages that were given up, and wait for an operator.
//!
//! A message of the outbox is a dead letter by its row, which no flush of Redis reaches; the entry in the stream of
//! dead letters is a copy. Only what never was in the outbox, or was no message, stands in the stream alone. Rows
//! change by one conditional update, so doing it twice, or at the same time, does it once.

use anyhow::{Context as _, bail, ensure};
use atrium_shared::{
    audit::{self, Action, Change},
    db::{Database, Principal},
    ids::{MessageId, OrgId},
    settings::Secret,
    streams::{DeadLetter, Inbound, Redis, StreamId},
};
use serde_json::{Value, json};
use sqlx::PgPool;

const COLUMNS: &str = "org_id, message_id, topic, aggregate_id, payload, created_at::text, dead_reason,
    EXTRACT(EPOCH FROM clock_timestamp() - dead_at)::bigint AS age_seconds,
    dead_at IS NOT NULL AND consumed_at IS NULL AS is_dead";

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Every dead letter: id, topic, age, organization, reason.
    List {
        /// Of this topic only: saga, config or chat.
        #[arg(long, value_parser = ["saga", "config", "chat"])]
        topic: Option<String>,
    },
    /// All of one dead letter, as JSON.
    Show {
        /// As `list` prints it.
        id: Id,
    },
    /// Publishes a dead letter again, once what it failed of is mended. It is recorded in the organization's audit
    /// log.
    Replay {
        /// As `list` prints it.
        id: Id,
    },
    /// Gives a dead letter up for good. It is recorded in the organization's audit log.
    Drop {
        /// As `list` prints it.
        id: Id,
    },
}

/// A message of the outbox, or an entry that only stands in a stream: `chat.3/1700000000000-0`.
#[derive(Clone, Copy)]
pub(crate) enum Id {
    Message(MessageId),
    Entry(Inbound, StreamId),
}

impl std::str::FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entry = text
            .split_once('/')
            .and_then(|(stream, id)| Some(Self::Entry(Inbound::named(stream)?, id.parse().ok()?)));
        entry
            .or_else(|| Some(Self::Message(text.parse().ok()?)))
            .ok_or("neither a message's id nor an entry such as chat.3/1700000000000-0")
    }
}

/// Where dead letters are.
pub(crate) struct Sources {
    pub(crate) database: Database,
    /// As the relay, which sees the outbox of all organizations.
    pub(crate) outbox: PgPool,
    pub(crate) redis: Redis,
}

#[derive(sqlx::FromRow)]
struct Row {
    org_id: OrgId,
    message_id: MessageId,
    topic: String,
    aggregate_id: sqlx::types::Uuid,
    payload: Value,
    created_at: String,
    dead_reason: Option<String>,
    age_seconds: Option<i64>,
    is_dead: bool,
}

impl Sources {
    pub(crate) fn redis(url: &Secret) -> anyhow::Result<Redis> {
        Redis::new(url).context("ATRIUM_REDIS_URL is no address of Redis")
    }

    async fn row(&self, message: MessageId) -> anyhow::Result<Row> {
        let query = format!("SELECT {COLUMNS} FROM outbox WHERE message_id = $1");
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(message)
            .fetch_optional(&self.outbox)
            .await?
            .with_context(|| {
                format!("there is no message {message}; `atrium-ctl dead-letters list` names them all")
            })
    }

    async fn entry(&self, stream: Inbound, id: StreamId) -> anyhow::Result<DeadLetter> {
        let letters = DeadLetter::all_of(&self.redis, stream).await?;
        letters.into_iter().find(|letter| letter.id == id).with_context(|| no_entry(stream, id))
    }

    /// Ends a row's time as a dead letter with `statement`. False: it was none any more.
    async fn change(&self, row: &Row, statement: &'static str, action: Action) -> anyhow::Result<bool> {
        let mut tx = self.database.org_tx(&Principal::System(Principal::OPERATOR), row.org_id).await?;
        let changed = sqlx::query(statement).bind(row.org_id).bind(row.message_id).execute(tx.conn()).await?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        let before = json!({ "topic": row.topic, "reason": row.dead_reason });
        audit::record(&mut tx, Change::new(action, "message", row.message_id).before(before)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Removes the copies of a message whose row is no dead letter any more. What stays is not listed.
    async fn remove_copies(&self, message: MessageId) -> redis::RedisResult<()> {
        for stream in Inbound::all() {
            for letter in DeadLetter::all_of(&self.redis, stream).await? {
                if letter.message().is_some_and(|(_, copied)| copied == message) {
                    DeadLetter::remove(&self.redis, stream, letter.id).await?;
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command answers on standard output")]
pub(crate) async fn run(command: Command, sources: &Sources) -> anyhow::Result<()> {
    match command {
        Command::List { topic } => {
            for row in dead_rows(sources, topic.as_deref()).await? {
                let age = row.age_seconds.unwrap_or(0);
                let reason = row.dead_reason.as_deref().unwrap_or("-");
                println!("{}  {}  {age}s  {}  {reason}", row.message_id, row.topic, row.org_id);
            }
            // What PostgreSQL knows is listed without Redis, too.
            match entries_alone(sources, topic.as_deref()).await {
                Ok(letters) => {
                    for letter in letters {
                        let name = letter.stream.name();
                        let topic = name.split('.').next().unwrap_or(&name);
                        let reason = letter.fields.get("dead_reason").map_or("-", String::as_str);
                        let age = age_seconds(letter.id);
                        println!("{name}/{}  {topic}  {age}s  -  {reason}", letter.id);
                    }
                }
                Err(error) => eprintln!("what only stands in Redis is not listed: {error:#}"),
            }
        }
        Command::Show { id: Id::Message(message) } => {
            let row = sources.row(message).await?;
            let shown = json!({
                "id": row.message_id, "org_id": row.org_id, "topic": row.topic, "aggregate_id": row.aggregate_id,
                "payload": row.payload, "created_at": row.created_at, "dead": row.is_dead,
                "reason": row.dead_reason, "age_seconds": row.age_seconds,
            });
            println!("{shown:#}");
        }
        Command::Show { id: Id::Entry(stream, id) } => {
            let letter = sources.entry(stream, id).await?;
            println!("{:#}", json!({ "id": format!("{}/{id}", stream.name()), "fields": letter.fields }));
        }
        Command::Replay { id: Id::Message(message) } => {
            let row = sources.row(message).await?;
            let statement = "UPDATE outbox SET dead_at = NULL, dead_reason = NULL, published_at = NULL
                              WHERE org_id = $1 AND message_id = $2 AND dead_at IS NOT NULL AND consumed_at IS NULL";
            if sources.change(&row, statement, Action::DeadLetterReplayed).await? {
                // A command ends before the task that folds notifications would send one.
                sources.database.wake_relay().await?;
                println!("replayed");
            } else {
                println!("it is no dead letter (any more)");
            }
            forget_copies(sources, message).await;
        }
        Command::Replay { id: Id::Entry(stream, id) } => {
            refuse_a_copy(sources, stream, id).await?;
            ensure!(DeadLetter::replay(&sources.redis, stream, id).await?, no_entry(stream, id));
            println!("replayed");
        }
        Command::Drop { id: Id::Message(message) } => {
            let row = sources.row(message).await?;
            // It stays dead, so that no copy of it is handled, and done with, so that nobody asks for it again.
            let statement = "UPDATE outbox SET consumed_at = clock_timestamp()
                              WHERE org_id = $1 AND message_id = $2 AND dead_at IS NOT NULL AND consumed_at IS NULL";
            let dropped = sources.change(&row, statement, Action::DeadLetterDropped).await?;
            println!("{}", if dropped { "dropped" } else { "it is no dead letter (any more)" });
            forget_copies(sources, message).await;
        }
        Command::Drop { id: Id::Entry(stream, id) } => {
            refuse_a_copy(sources, stream, id).await?;
            ensure!(DeadLetter::remove(&sources.redis, stream, id).await?, no_entry(stream, id));
            println!("dropped");
        }
    }
    Ok(())
}

fn no_entry(stream: Inbound, id: StreamId) -> String {
    format!("there is no dead letter {}/{id}; `atrium-ctl dead-letters list` names them all", stream.name())
}

async fn dead_rows(sources: &Sources, topic: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let query = format!(
        "SELECT {COLUMNS} FROM outbox
          WHERE dead_at IS NOT NULL AND consumed_at IS NULL AND ($1::text IS NULL OR topic = $1)
          ORDER BY dead_at"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(topic).fetch_all(&sources.outbox).await?)
}

/// Entries without a row in the outbox.
async fn entries_alone(sources: &Sources, topic: Option<&str>) -> anyhow::Result<Vec<DeadLetter>> {
    let mut alone = Vec::new();
    for stream in Inbound::all() {
        if topic.is_some_and(|topic| stream.name().split('.').next() != Some(topic)) {
            continue;
        }
        for letter in DeadLetter::all_of(&sources.redis, stream).await? {
            if !has_row(sources, &letter).await? {
                alone.push(letter);
            }
        }
    }
    Ok(alone)
}

async fn has_row(sources: &Sources, letter: &DeadLetter) -> anyhow::Result<bool> {
    let Some((org, message)) = letter.message() else {
        return Ok(false);
    };
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox WHERE org_id = $1 AND message_id = $2)")
        .bind(org)
        .bind(message)
        .fetch_one(&sources.outbox)
        .await?)
}

/// The copy of a row is not put back beside it: the row would stay dead, and the entry be taken for a late copy.
async fn refuse_a_copy(sources: &Sources, stream: Inbound, id: StreamId) -> anyhow::Result<()> {
    let letter = sources.entry(stream, id).await?;
    if has_row(sources, &letter).await? {
        let message = letter.message().map(|(_, message)| message.to_string()).unwrap_or_default();
        bail!("this is the copy of the message {message}: name that one");
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a command says what it could not do")]
async fn forget_copies(sources: &Sources, message: MessageId) {
    if let Err(error) = sources.remove_copies(message).await {
        eprintln!("its copy in Redis could not be removed, which is harmless: {error}");
    }
}

fn age_seconds(id: StreamId) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_secs().saturating_sub(id.ms / 1000)
}

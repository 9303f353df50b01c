//! Dead letters: messages that could not be processed, and wait for an operator.
//!
//! A message of the outbox is marked as a dead letter in its row, which a flush of Redis does not affect; the entry in
//! the dead-letter stream is a copy. Only chat actions and malformed entries, which never were in the outbox, exist in
//! the stream alone. A row changes by one conditional update, so a command that runs twice has an effect once.

use anyhow::{Context as _, bail, ensure};
use atrium_shared::{
    audit::{self, Action, Change},
    db::{Database, Principal},
    ids::{MessageId, OrgId},
    messages::Topic,
    settings::Secret,
    streams::{DeadLetter, Inbound, Redis, StreamId},
};
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, postgres::PgArguments};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Lists all dead letters: id, topic, age, organization, reason.
    List {
        /// Only this topic.
        #[arg(long, value_parser = Topic::ALL.map(Topic::name))]
        topic: Option<String>,
    },
    /// Prints a dead letter as JSON.
    Show {
        /// The id, as printed by `list`.
        id: Id,
    },
    /// Publishes a dead letter again, after the cause is fixed. Recorded in the organization's audit log.
    Replay {
        /// The id, as printed by `list`.
        id: Id,
    },
    /// Drops a dead letter for good. Recorded in the organization's audit log.
    Drop {
        /// The id, as printed by `list`.
        id: Id,
    },
}

/// A message of the outbox, or an entry that is only in a stream: `chat.3/1700000000000-0`.
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
            .ok_or("expected a message id, or a stream entry such as chat.3/1700000000000-0")
    }
}

/// A statement with its values.
type Statement = sqlx::query::Query<'static, Postgres, PgArguments>;

/// Where dead letters are.
pub(crate) struct Sources {
    pub(crate) database: Database,
    /// A connection as the relay, which reads the outbox of all organizations.
    pub(crate) outbox: PgPool,
    pub(crate) redis: Redis,
}

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
        Redis::new(url).context("ATRIUM_REDIS_URL is not a valid Redis address")
    }

    async fn row(&self, message: MessageId) -> anyhow::Result<Row> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT org_id, message_id, topic, aggregate_id, payload, created_at::text AS "created_at!", dead_reason,
                      EXTRACT(EPOCH FROM clock_timestamp() - dead_at)::bigint AS age_seconds,
                      dead_at IS NOT NULL AND consumed_at IS NULL AS "is_dead!"
                 FROM outbox WHERE message_id = $1"#,
            message as MessageId
        );
        row.fetch_optional(&self.outbox).await?.with_context(|| {
            format!("message {message} does not exist; `atrium-ctl dead-letters list` lists all dead letters")
        })
    }

    async fn entry(&self, stream: Inbound, id: StreamId) -> anyhow::Result<DeadLetter> {
        let letters = DeadLetter::all_of(&self.redis, stream).await?;
        letters.into_iter().find(|letter| letter.id == id).with_context(|| no_entry(stream, id))
    }

    /// Runs `statement`, after which the row is no longer a dead letter. False: it was not one.
    async fn change(&self, row: &Row, statement: Statement, action: Action) -> anyhow::Result<bool> {
        let mut tx = self.database.org_tx(&Principal::System(Principal::OPERATOR), row.org_id).await?;
        let changed = statement.execute(tx.conn()).await?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        let before = json!({ "topic": row.topic, "reason": row.dead_reason });
        audit::record(&mut tx, Change::new(action, "message", row.message_id).before(before)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Removes the copies of a message whose row is no longer a dead letter. Copies that remain are not listed.
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

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints its result")]
pub(crate) async fn run(command: Command, sources: &Sources) -> anyhow::Result<()> {
    match command {
        Command::List { topic } => {
            for row in dead_rows(sources, topic.as_deref()).await? {
                let age = row.age_seconds.unwrap_or(0);
                let reason = row.dead_reason.as_deref().unwrap_or("-");
                println!("{}  {}  {age}s  {}  {reason}", row.message_id, row.topic, row.org_id);
            }
            // The rows of PostgreSQL are listed even if Redis is down.
            match entries_without_row(sources, topic.as_deref()).await {
                Ok(letters) => {
                    for letter in letters {
                        let name = letter.stream.name();
                        let topic = name.split('.').next().unwrap_or(&name);
                        let reason = letter.reason().unwrap_or("-");
                        let age = age_seconds(letter.id);
                        println!("{name}/{}  {topic}  {age}s  -  {reason}", letter.id);
                    }
                }
                Err(error) => eprintln!("warning: entries that are only in Redis are not listed: {error:#}"),
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
            let statement = sqlx::query!(
                "UPDATE outbox SET dead_at = NULL, dead_reason = NULL, published_at = NULL
                  WHERE org_id = $1 AND message_id = $2 AND dead_at IS NOT NULL AND consumed_at IS NULL",
                row.org_id as OrgId,
                row.message_id as MessageId
            );
            if sources.change(&row, statement, Action::DeadLetterReplayed).await? {
                // The process ends before the task that combines notifications would send one.
                sources.database.wake_relay().await?;
                println!("replayed");
            } else {
                println!("not a dead letter; nothing changed");
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
            // The row stays dead, so that no copy is processed, and becomes consumed, so that it is not listed again.
            let statement = sqlx::query!(
                "UPDATE outbox SET consumed_at = clock_timestamp()
                  WHERE org_id = $1 AND message_id = $2 AND dead_at IS NOT NULL AND consumed_at IS NULL",
                row.org_id as OrgId,
                row.message_id as MessageId
            );
            let dropped = sources.change(&row, statement, Action::DeadLetterDropped).await?;
            println!("{}", if dropped { "dropped" } else { "not a dead letter; nothing changed" });
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
    format!(
        "dead letter {}/{id} does not exist; `atrium-ctl dead-letters list` lists all of them",
        stream.name()
    )
}

async fn dead_rows(sources: &Sources, topic: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT org_id, message_id, topic, aggregate_id, payload, created_at::text AS "created_at!", dead_reason,
                  EXTRACT(EPOCH FROM clock_timestamp() - dead_at)::bigint AS age_seconds,
                  dead_at IS NOT NULL AND consumed_at IS NULL AS "is_dead!"
             FROM outbox
            WHERE dead_at IS NOT NULL AND consumed_at IS NULL AND ($1::text IS NULL OR topic = $1)
            ORDER BY dead_at"#,
        topic
    );
    Ok(rows.fetch_all(&sources.outbox).await?)
}

/// Entries without a row in the outbox.
async fn entries_without_row(sources: &Sources, topic: Option<&str>) -> anyhow::Result<Vec<DeadLetter>> {
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
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM outbox WHERE org_id = $1 AND message_id = $2) AS "exists!""#,
        org as OrgId,
        message as MessageId
    )
    .fetch_one(&sources.outbox)
    .await?)
}

/// Refuses an entry that is the copy of a row: replaying it alone would leave the row dead, and the entry would be
/// ignored as a duplicate.
async fn refuse_a_copy(sources: &Sources, stream: Inbound, id: StreamId) -> anyhow::Result<()> {
    let letter = sources.entry(stream, id).await?;
    if has_row(sources, &letter).await? {
        let message = letter.message().map(|(_, message)| message.to_string()).unwrap_or_default();
        bail!("this entry is a copy of message {message}; use that id");
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "warnings go to standard error")]
async fn forget_copies(sources: &Sources, message: MessageId) {
    if let Err(error) = sources.remove_copies(message).await {
        eprintln!("warning: the copy in Redis could not be removed, which has no effect: {error}");
    }
}

fn age_seconds(id: StreamId) -> u64 {
    let now = u64::try_from(atrium_shared::clock::now().unix_timestamp()).unwrap_or_default();
    now.saturating_sub(id.ms / 1000)
}

//! What has to hold after every round: checked in the database as the superuser, in the tables of the observer, and in
//! the streams.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use atrium_shared::saga::SagaKind;
use atrium_shared::streams::{GROUP, Inbound, Live};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamInfoGroupsReply, StreamRangeReply};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::deployment::Deployment;
use crate::plan::Plan;
use crate::workload::{Created, Facts, Tenant};

/// How long it may take until no work is left: several sweeps, claims and leases.
const TIMEOUT: Duration = Duration::from_secs(90);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The state before the round.
pub(crate) struct Before {
    counted: i64,
    last_chat_event: String,
    last_config_event: String,
}

/// When Redis may have lost data.
#[derive(Clone, Copy)]
pub(crate) struct Loss {
    /// How many actions had been counted before.
    pub(crate) counted: i64,
    /// After this nothing is lost.
    pub(crate) until: Instant,
}

impl Before {
    pub(crate) async fn read(deployment: &Deployment, tenant: &Tenant) -> anyhow::Result<Self> {
        let mut redis = deployment.redis().await?;
        Ok(Self {
            counted: counted(&mut deployment.superuser().await?, tenant.org, tenant.project).await?,
            last_chat_event: last(&mut redis, &chat_stream(tenant)).await?,
            last_config_event: last(&mut redis, &Live::Config.to_string()).await?,
        })
    }
}

/// How many actions of a project are counted.
pub(crate) async fn counted(superuser: &mut PgConnection, org: Uuid, project: Uuid) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar(
        "SELECT COALESCE(sum(count), 0)::bigint FROM chat_counters WHERE org_id = $1 AND project_id = $2",
    )
    .bind(org)
    .bind(project)
    .fetch_one(superuser)
    .await?)
}

fn chat_stream(tenant: &Tenant) -> String {
    Live::chat_of(tenant.project.into()).to_string()
}

async fn last(redis: &mut MultiplexedConnection, stream: &str) -> anyhow::Result<String> {
    let last: StreamRangeReply = redis.xrevrange_count(stream, "+", "-", 1).await?;
    Ok(last.ids.first().map_or_else(|| "0-0".to_owned(), |entry| entry.id.clone()))
}

/// Waits until no work is left, and otherwise returns what is.
pub(crate) async fn wait_until_idle(deployment: &Deployment, plan: &Plan) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let left = open_work(deployment, plan).await?;
        if left.is_empty() {
            return Ok(left);
        }
        if Instant::now() >= deadline {
            return Ok(left
                .into_iter()
                .map(|left| format!("still open after {TIMEOUT:?}: {left}"))
                .collect());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn open_work(deployment: &Deployment, plan: &Plan) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    let mut superuser = deployment.superuser().await?;
    let due: Vec<(Uuid, i64, String, Value, bool)> = sqlx::query_as(
        "SELECT org_id, id, topic, payload, published_at IS NOT NULL FROM outbox
          WHERE consumed_at IS NULL AND dead_at IS NULL
            AND (available_at IS NULL OR available_at <= clock_timestamp())
          ORDER BY id LIMIT 5",
    )
    .fetch_all(&mut superuser)
    .await?;
    left.extend(due.into_iter().map(|(org, id, topic, payload, published)| {
        let state = if published { "published and not consumed" } else { "not published" };
        format!("message {id} of {org} ({topic}, {payload}) is {state}")
    }));
    let sagas: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT id, status FROM sagas WHERE kind = $1 AND status NOT IN ('COMMITTED', 'FAILED') LIMIT 5",
    )
    .bind(SagaKind::CreateOrganization.name())
    .fetch_all(&mut superuser)
    .await?;
    left.extend(sagas.into_iter().map(|(saga, status)| format!("saga {saga} is {status}")));

    let mut redis = deployment.redis().await?;
    for stream in Inbound::all().map(|stream| stream.to_string()) {
        let groups: redis::RedisResult<StreamInfoGroupsReply> = redis.xinfo_groups(&stream).await;
        let groups = groups.map(|reply| reply.groups).unwrap_or_default();
        let Some(group) = groups.iter().find(|group| group.name == GROUP) else {
            left.push(format!("{stream} has no group"));
            continue;
        };
        if group.pending > 0 {
            left.push(format!("{stream} has {} entries pending", group.pending));
        }
        let length: usize = redis.xlen(&stream).await?;
        if length > 0 && !plan.fault.orphans_entries() {
            left.push(format!("{stream} holds {length} entries"));
        }
    }
    Ok(left)
}

/// Everything else that has to hold. `poisons`: every message that was added to this deployment to fail.
#[expect(clippy::too_many_arguments, reason = "all that is known of a round")]
pub(crate) async fn check(
    deployment: &Deployment,
    plan: &Plan,
    tenant: &Tenant,
    facts: &Facts,
    before: &Before,
    loss: Option<Loss>,
    drill_may_apply: bool,
    poisons: &HashSet<Uuid>,
) -> anyhow::Result<Vec<String>> {
    let mut superuser = deployment.superuser().await?;
    let mut redis = deployment.redis().await?;
    let mut violations = Vec::new();
    exactly_once(&mut superuser, &mut violations).await?;
    consistent(&mut superuser, &mut violations).await?;
    for created in &facts.created {
        creation(&mut superuser, drill_may_apply, created, &mut violations).await?;
    }
    dead_letters(&mut superuser, &mut redis, facts, loss, poisons, &mut violations).await?;
    let counted = counted(&mut superuser, tenant.org, tenant.project).await? - before.counted;
    let loss = loss.map(|loss| Loss { counted: loss.counted - before.counted, ..loss });
    counters(facts, counted, loss, &mut violations);
    let events: StreamRangeReply =
        redis.xrange(chat_stream(tenant), after(&before.last_chat_event), "+").await?;
    chat_events(&events, tenant, facts, loss, plan.fault.orphans_entries(), &mut violations);
    configuration(&mut superuser, &mut redis, tenant, facts, before, loss, &mut violations).await?;
    Ok(violations)
}

fn after(id: &str) -> String {
    format!("({id}")
}

/// No effect has happened twice in this deployment.
async fn exactly_once(superuser: &mut PgConnection, violations: &mut Vec<String>) -> anyhow::Result<()> {
    for (query, what) in [
        (
            "SELECT format('message %s of %s', outbox_id, org_id) FROM chaos.consumed
              GROUP BY org_id, outbox_id HAVING count(*) > 1 LIMIT 3",
            "took effect twice",
        ),
        (
            "SELECT format('saga %s (%s)', saga_id, string_agg(status, ', ' ORDER BY at)) FROM chaos.ended
              GROUP BY saga_id HAVING count(*) > 1 LIMIT 3",
            "ended twice",
        ),
        (
            "SELECT format('step %s of saga %s', step, saga_id) FROM chaos.stepped
              WHERE effect = 'done' GROUP BY saga_id, step HAVING count(*) > 1 LIMIT 3",
            "was done twice",
        ),
        (
            "SELECT format('step %s of saga %s', step, saga_id) FROM chaos.stepped
              WHERE effect = 'compensated' GROUP BY saga_id, step HAVING count(*) > 1 LIMIT 3",
            "was compensated twice",
        ),
        (
            "SELECT format('message %s of %s', id, outbox.org_id) FROM outbox
              WHERE consumed_at IS NOT NULL AND NOT EXISTS
                    (SELECT FROM inbox WHERE inbox.org_id = outbox.org_id AND inbox.message_id = outbox.message_id)
              LIMIT 3",
            "is consumed and in no inbox",
        ),
        (
            "SELECT format('message %s', message_id) FROM inbox
              GROUP BY org_id, message_id HAVING count(*) > 1 LIMIT 3",
            "is in two inboxes",
        ),
    ] {
        let found: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut *superuser).await?;
        violations.extend(found.into_iter().map(|found| format!("{found} {what}")));
    }
    Ok(())
}

/// Every organization matches the state of its saga, with all its rows, and no others.
async fn consistent(superuser: &mut PgConnection, violations: &mut Vec<String>) -> anyhow::Result<()> {
    let inconsistent: Vec<String> = sqlx::query_scalar(
        "SELECT format('organization %s is %s, its saga %s; slugs %s, heads %s, members %s, projects %s',
                       id, status, saga, slugs, heads, members, projects)
           FROM (SELECT orgs.id, orgs.status, sagas.status AS saga,
                        (SELECT count(*) FROM org_slugs WHERE org_id = orgs.id) AS slugs,
                        (SELECT count(*) FROM config_heads WHERE org_id = orgs.id) AS heads,
                        (SELECT count(*) FROM members WHERE org_id = orgs.id) AS members,
                        (SELECT count(*) FROM projects WHERE org_id = orgs.id) AS projects
                   FROM orgs JOIN sagas ON sagas.org_id = orgs.id AND kind = $1) AS state
          WHERE NOT CASE saga
                    WHEN 'COMMITTED' THEN status IN ('COMMITTED', 'SUSPENDED', 'DELETING')
                                          AND slugs = 1 AND heads = 1 AND members > 0
                    WHEN 'FAILED' THEN status = 'FAILED' AND slugs + heads + members + projects = 0
                    ELSE false END
          LIMIT 3",
    )
    .bind(SagaKind::CreateOrganization.name())
    .fetch_all(superuser)
    .await?;
    violations.extend(inconsistent);
    Ok(())
}

/// An accepted organization exists once, and its saga's events are complete and in order.
async fn creation(
    superuser: &mut PgConnection,
    drill_may_apply: bool,
    created: &Created,
    violations: &mut Vec<String>,
) -> anyhow::Result<()> {
    let Created { name, org, operation, early_deadline } = created;
    let organizations: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM orgs WHERE name = $1")
        .bind(name)
        .fetch_all(&mut *superuser)
        .await?;
    if organizations != [*org] {
        violations.push(format!("“{name}” was accepted as {org}; there are {organizations:?}"));
    }
    let saga: Option<(String, Option<String>, bool)> = sqlx::query_as(
        "SELECT status, failure->>'code', COALESCE(finished_at >= deadline_at, false) FROM sagas
          WHERE org_id = $1 AND id = $2",
    )
    .bind(org)
    .bind(operation)
    .fetch_optional(&mut *superuser)
    .await?;
    let Some((status, failure, was_late)) = saga else {
        violations.push(format!("operation {operation} of “{name}” is missing"));
        return Ok(());
    };
    match failure.as_deref() {
        None => {}
        Some("drill") if drill_may_apply => {}
        Some("deadline_exceeded") if was_late || *early_deadline => {}
        Some(other) => violations.push(format!("saga {operation} is {status} because of {other}")),
    }
    let events: Vec<(i64, Option<String>, String, bool)> = sqlx::query_as(
        "SELECT seq, step, status, at >= lag(at, 1, at) OVER (ORDER BY seq) FROM saga_events
          WHERE org_id = $1 AND saga_id = $2 ORDER BY seq",
    )
    .bind(org)
    .bind(operation)
    .fetch_all(&mut *superuser)
    .await?;
    if let Some(wrong) = violation_in(&events, &status) {
        let listed: Vec<String> =
            events.iter().map(|(seq, step, status, _)| format!("{seq} {step:?} {status}")).collect();
        violations.push(format!("saga {operation} ({status}): {wrong}: {}", listed.join(", ")));
    }
    Ok(())
}

/// What is wrong with a saga's events, if anything: they are numbered without gaps and ordered by time; steps are done
/// one after the other and compensated in reverse; the end is recorded once, and last.
fn violation_in(events: &[(i64, Option<String>, String, bool)], end: &str) -> Option<&'static str> {
    let mut done: Vec<&str> = Vec::new();
    let mut seen_done: HashSet<&str> = HashSet::new();
    let mut is_over = false;
    for (index, (seq, step, status, in_time)) in events.iter().enumerate() {
        if usize::try_from(*seq) != Ok(index + 1) {
            return Some("a gap in the sequence numbers");
        }
        if !in_time {
            return Some("the timestamps are not in order");
        }
        if is_over {
            return Some("an event after the end");
        }
        match (step.as_deref(), status.as_str()) {
            (Some(step), "DONE") => {
                if !seen_done.insert(step) {
                    return Some("a step done twice");
                }
                done.push(step);
            }
            // A step that was begun and not completed may be compensated, too, as the first one always is.
            (Some(step), "COMPENSATED") => match done.last() {
                Some(last) if *last == step => drop(done.pop()),
                _ if seen_done.contains(step) => return Some("not compensated in reverse order"),
                _ => {}
            },
            (Some(_), _) => {}
            (None, status) if status == end => is_over = true,
            (None, _) => return Some("another final status than the saga's"),
        }
    }
    match (is_over, end) {
        (false, _) => Some("its end is not recorded"),
        (true, "FAILED") if !done.is_empty() => Some("a step was not compensated"),
        (true, _) => None,
    }
}

/// The poison messages are dead letters, and nothing else is.
async fn dead_letters(
    superuser: &mut PgConnection,
    redis: &mut MultiplexedConnection,
    facts: &Facts,
    loss: Option<Loss>,
    poisons: &HashSet<Uuid>,
    violations: &mut Vec<String>,
) -> anyhow::Result<()> {
    let dead: Vec<(Uuid, Option<String>)> =
        sqlx::query_as("SELECT message_id, dead_reason FROM outbox WHERE dead_at IS NOT NULL")
            .fetch_all(superuser)
            .await?;
    for (message, reason) in dead.iter().filter(|(message, _)| !poisons.contains(message)) {
        violations.push(format!("message {message} was dead-lettered: {}", reason.as_deref().unwrap_or("?")));
    }
    let mut letters: HashMap<String, usize> = HashMap::new();
    for stream in Inbound::all().map(Inbound::dead_letters) {
        let entries: StreamRangeReply = redis.xrange_all(&stream).await?;
        for entry in entries.ids {
            *letters.entry(entry.get("message").unwrap_or_default()).or_default() += 1;
        }
        // Each round checks only its own.
        let () = redis.del(&stream).await?;
    }
    for message in letters.keys() {
        if !message.parse().is_ok_and(|message| poisons.contains(&message)) {
            violations.push(format!("{message:?} is a dead letter"));
        }
    }
    if let Some(poison) = facts.poison {
        if !dead.iter().any(|(message, _)| *message == poison) {
            violations.push(format!("the poison message {poison} was not dead-lettered"));
        }
        if loss.is_none() && !letters.contains_key(&poison.to_string()) {
            violations.push(format!("the poison message {poison} is not in a dead-letter stream"));
        }
    }
    Ok(())
}

/// An accepted action is counted once, unless Redis lost it before. One without an answer may be counted.
fn counters(facts: &Facts, counted: i64, loss: Option<Loss>, violations: &mut Vec<String>) {
    let accepted = facts.presses.iter().filter(|press| press.id.is_some());
    let least = match loss {
        None => accepted.count(),
        Some(loss) => {
            let after = accepted.filter(|press| press.sent > loss.until).count();
            after + usize::try_from(loss.counted).unwrap_or(0)
        }
    };
    let most = facts.presses.len();
    if !usize::try_from(counted).is_ok_and(|counted| (least..=most).contains(&counted)) {
        violations.push(format!("{counted} actions were counted; expected {least} to {most}"));
    }
}

/// Every accepted action is published once, in the order of acceptance, unless Redis lost it. `were_skipped`: the
/// consumer groups were moved past what had been accepted.
fn chat_events(
    events: &StreamRangeReply,
    tenant: &Tenant,
    facts: &Facts,
    loss: Option<Loss>,
    were_skipped: bool,
    violations: &mut Vec<String>,
) {
    let position: HashMap<&str, usize> =
        facts.presses.iter().enumerate().filter_map(|(at, press)| Some((press.id.as_deref()?, at))).collect();
    let project = tenant.project.to_string();
    let of_project =
        events.ids.iter().filter(|entry| entry.get::<String>("project").as_ref() == Some(&project));
    let lost = |sent: Instant| loss.is_some_and(|loss| sent <= loss.until);
    let (mut seen, mut closed, mut latest) = (HashSet::new(), HashSet::new(), None);
    let mut unknown = 0;
    for entry in of_project {
        let data: Value =
            entry.get::<String>("data").and_then(|data| serde_json::from_str(&data).ok()).unwrap_or_default();
        if entry.get::<String>("event").as_deref() == Some("chat.session-closed") {
            closed.insert(data["session_id"].as_str().unwrap_or_default().to_owned());
            continue;
        }
        let id = data["id"].as_str().unwrap_or_default().to_owned();
        match position.get(id.as_str()) {
            None => unknown += 1,
            // What a group skipped may be published late, when the sweep finds it.
            Some(at) if were_skipped && lost(facts.presses[*at].sent) => {}
            Some(at) if latest.is_some_and(|latest| latest > *at) && !seen.contains(&id) => {
                violations.push(format!("action {id}, the {at}th, was published after a later one"));
            }
            Some(at) => latest = Some(*at),
        }
        if !seen.insert(id.clone()) {
            violations.push(format!("action {id} was published twice"));
        }
    }
    let unanswered = facts.presses.len() - position.len();
    if unknown > unanswered {
        violations.push(format!(
            "{unknown} published actions have an unknown id; only {unanswered} requests had no answer"
        ));
    }
    let missing = facts.presses.iter().filter(|press| !lost(press.sent));
    for id in missing.filter_map(|press| press.id.as_ref()).filter(|id| !seen.contains(*id)).take(3) {
        violations.push(format!("action {id} was accepted and not published"));
    }
    if loss.is_none() {
        for session in facts.closed.iter().filter(|session| !closed.contains(*session)).take(3) {
            violations.push(format!("the close of session {session} was not published"));
        }
    }
}

/// Revisions have no gaps; the newest is announced, and applied.
async fn configuration(
    superuser: &mut PgConnection,
    redis: &mut MultiplexedConnection,
    tenant: &Tenant,
    facts: &Facts,
    before: &Before,
    loss: Option<Loss>,
    violations: &mut Vec<String>,
) -> anyhow::Result<()> {
    let (head, newest, gaps): (i64, i64, i64) = sqlx::query_as(
        "SELECT config_heads.revision, COALESCE(max(config_history.revision), 1),
                COALESCE(max(config_history.revision), 1) - 1 - count(config_history.revision)
           FROM config_heads LEFT JOIN config_history ON config_history.org_id = config_heads.org_id
          WHERE config_heads.org_id = $1 GROUP BY config_heads.revision",
    )
    .bind(tenant.org)
    .fetch_one(superuser)
    .await?;
    if head != newest || gaps != 0 {
        violations.push(format!("the configuration is at {head}, its history at {newest} with {gaps} gaps"));
    }
    let org = tenant.org.to_string();
    let events: StreamRangeReply =
        redis.xrange(Live::Config.to_string(), after(&before.last_config_event), "+").await?;
    let of_org = events.ids.iter().filter(|entry| entry.get::<String>("org").as_ref() == Some(&org));
    let announced: HashSet<i64> = of_org.filter_map(|entry| entry.get("revision")).collect();
    if announced.iter().any(|revision| *revision > head) {
        violations.push(format!("an announced revision does not exist: {announced:?}, the head is {head}"));
    }
    let Some(value) = facts.value else { return Ok(()) };
    if loss.is_none() && !announced.contains(&head) {
        violations.push(format!("revision {head} was not announced, only {announced:?}"));
    }
    // Without the announcement it takes until the next poll of the database. And each half-open connection of the API
    // fails one request.
    let deadline = Instant::now() + Duration::from_secs(45);
    loop {
        let applied = tenant.applied_value().await;
        if applied.as_ref().is_ok_and(|applied| *applied == value) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            violations.push(format!("{value} was set, but the API applies {applied:?}"));
            return Ok(());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// The organizations whose deletion was accepted do not exist, each has left its certificate.
pub(crate) async fn gone(superuser: &mut PgConnection, deleted: &[Uuid]) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    for org in deleted {
        let (rows, certificates): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM orgs WHERE id = $1),
                    (SELECT count(*) FROM deletion_certificates WHERE deleted_org_id = $1)",
        )
        .bind(org)
        .fetch_one(&mut *superuser)
        .await?;
        if (rows, certificates) != (0, 1) {
            let state: Option<String> = sqlx::query_scalar(
                "SELECT concat_ws(' ', orgs.status, 'until', orgs.delete_at, saga.status, saga.failure,
                        (SELECT string_agg(concat_ws(' ', name, status, attempts, detail), ', ' ORDER BY position)
                           FROM saga_steps WHERE saga_steps.org_id = saga.org_id AND saga_id = saga.id))
                   FROM orgs LEFT JOIN sagas saga ON saga.org_id = orgs.id AND saga.kind = 'organization.delete'
                  WHERE orgs.id = $1 ORDER BY saga.created_at DESC LIMIT 1",
            )
            .bind(org)
            .fetch_optional(&mut *superuser)
            .await?
            .flatten();
            let state = state.unwrap_or_default();
            left.push(format!(
                "organization {org} was deleted: {rows} rows, {certificates} certificates; {state}"
            ));
        }
    }
    Ok(left)
}

//! Reading an export for an import. Every line is checked, and one response lists all errors by line and field.

use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
};

use atrium_shared::{
    api_key::ApiScope,
    configuration::{
        HistoryAction,
        catalog::{self, Scope, Setter},
        restore::{RestoredChange, RestoredValue},
        write::{ChangeError, check_scope, check_value},
    },
    ids::{ApiKeyId, InvitationId, OrgId, ProjectId, UserId},
    messages::ChatAction,
    tenancy::{OrgStatus, Role},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::export_format::{VERSION, hexadecimal};
use crate::http::{
    body::{self, NOT_AN_OBJECT, Object, integer, line, one_of},
    body_lines::Lines,
    problem::{Code, FieldError, MAX_ERRORS, Problem},
};

/// The longest author name in a history: the name of an API key with its prefix, which is longer than any user name.
const MAX_AUTHOR_LENGTH: usize = 84;

/// The content of an export, with a new id for each of its projects.
#[derive(Default)]
pub(super) struct Export {
    pub(super) source: Option<OrgId>,
    pub(super) name: String,
    pub(super) exported_at: String,
    pub(super) revision: i64,
    pub(super) projects: Vec<Project>,
    pub(super) values: Vec<RestoredValue>,
    pub(super) history: Vec<RestoredChange>,
    pub(super) counters: Vec<Counter>,
    pub(super) audit_entries: i64,
    pub(super) audit_hash: Option<String>,
    /// SHA-256 of the lines before the last, as stated in the last.
    pub(super) sha256: String,
    /// SHA-256 of the whole export.
    pub(super) fingerprint: Vec<u8>,
}

#[derive(Serialize)]
pub(super) struct Project {
    id: ProjectId,
    name: String,
}

#[derive(Serialize)]
pub(super) struct Counter {
    project_id: ProjectId,
    action: String,
    count: i64,
}

/// The kinds of records. Each line of an export is one record.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordKind {
    Export,
    Project,
    Member,
    Invitation,
    ApiKey,
    ConfigValue,
    ConfigChange,
    ChatCounter,
    AuditEntry,
    End,
}

/// Reads an export to its end.
///
/// # Errors
/// [`Code::ImportInvalid`] with all errors, up to a limit; or the errors of [`Lines::next`].
pub(super) async fn read(lines: &mut Lines) -> Result<Export, Problem> {
    let mut reader = Reader::default();
    while reader.errors.len() < MAX_ERRORS
        && let Some(line) = lines.next().await?
    {
        reader.line(&line);
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    export: Export,
    hash: Sha256,
    /// The number of the current line; the first is 1.
    number: u64,
    ended: bool,
    errors: Vec<FieldError>,
    /// The new id for each project id in the export.
    projects: HashMap<ProjectId, ProjectId>,
    /// The new id for each deleted project, which only the history mentions.
    deleted_projects: HashMap<ProjectId, ProjectId>,
    members: HashSet<UserId>,
    invitations: HashSet<InvitationId>,
    api_keys: HashSet<ApiKeyId>,
    values: HashSet<(Option<ProjectId>, String)>,
    revisions: HashSet<i64>,
    counters: HashSet<(ProjectId, String)>,
}

/// The content of a line, or its errors.
type Checked<T> = Result<T, Vec<FieldError>>;

impl Reader {
    fn line(&mut self, text: &[u8]) {
        self.number += 1;
        let checked = match Object::read(text) {
            // The parser's message contains positions and characters, but no values.
            Err(error) => Err(wrong("", format!("is not valid JSON: {error}"))),
            Ok(None) => Err(wrong("", NOT_AN_OBJECT)),
            Ok(Some(_)) if self.ended => Err(wrong("", "comes after the `end` line")),
            Ok(Some(object)) => self.object(object),
        };
        self.hash.update(text);
        for mut error in checked.err().into_iter().flatten() {
            let pointer = error.pointer.unwrap_or_default();
            error.pointer = Some(format!("/lines/{}{pointer}", self.number));
            self.errors.push(error);
        }
    }

    fn finish(mut self) -> Result<Export, Problem> {
        if self.errors.is_empty() && !self.ended {
            self.errors.push(FieldError::body("", "has no `end` line: the export is incomplete"));
        }
        if self.errors.is_empty() {
            self.export.fingerprint = self.hash.finalize().to_vec();
            return Ok(self.export);
        }
        let detail = "The body is not an export that can be imported; `errors` lists what is wrong.";
        Err(Problem::new(Code::ImportInvalid, detail).errors(self.errors))
    }

    fn object(&mut self, mut object: Object) -> Checked<()> {
        // Without a known type, no other field of the line can be checked.
        let Some(kind) = object.required("type", one_of::<RecordKind>("a type")) else {
            return Err(wrong("/type", "must be a known type of line"));
        };
        match (kind, self.number) {
            (RecordKind::Export, 1) => self.first(object),
            (_, 1) => Err(wrong("/type", "must be `export` on the first line")),
            (RecordKind::Export, _) => Err(wrong("/type", "must be `export` on the first line only")),
            (RecordKind::Project, _) => self.project(object),
            (RecordKind::Member, _) => self.member(object),
            (RecordKind::Invitation, _) => self.invitation(object),
            (RecordKind::ApiKey, _) => self.api_key(object),
            (RecordKind::ConfigValue, _) => self.value(object),
            (RecordKind::ConfigChange, _) => self.change(object),
            (RecordKind::ChatCounter, _) => self.counter(object),
            (RecordKind::AuditEntry, _) => self.audit_entry(object),
            (RecordKind::End, _) => self.end(object),
        }
    }

    fn first(&mut self, mut object: Object) -> Checked<()> {
        object.required("version", |value| match value.as_i64() {
            Some(VERSION) => Ok(()),
            _ => Err(format!("must be {VERSION}, the supported version of the format")),
        });
        let exported_at = object.required("exported_at", time);
        let source = object.required("org_id", id::<OrgId>);
        let name = object.required("name", body::name);
        object.required("slug", line(80));
        object.required("status", one_of::<OrgStatus>("an organization's status"));
        object.required("created_at", time);
        object.required("updated_at", time);
        let revision = object.required("config_revision", integer(1..=i64::MAX));
        let (exported_at, source, name, revision) =
            object.close((|| Some((exported_at?, source?, name?, revision?)))())?;
        self.export = Export { source: Some(source), name, exported_at, revision, ..Export::default() };
        Ok(())
    }

    fn project(&mut self, mut object: Object) -> Checked<()> {
        let id = object.required("id", id::<ProjectId>);
        let name = object.required("name", body::name);
        object.required("created_at", time);
        object.required("updated_at", time);
        // Registered even if another field is invalid, so that lines that refer to the project cause no further errors.
        let new = ProjectId::new();
        let duplicate = id.is_some_and(|old| self.projects.insert(old, new).is_some());
        let (_, name) = object.close(id.zip(name))?;
        if duplicate {
            return Err(wrong("/id", "is the id of another project in this export"));
        }
        self.export.projects.push(Project { id: new, name });
        Ok(())
    }

    /// Members are checked but not imported: a membership needs the consent of its user.
    fn member(&mut self, mut object: Object) -> Checked<()> {
        let user = object.required("user_id", id::<UserId>);
        object.required("user_name", line(80));
        object.required("role", one_of::<Role>("a role"));
        object.required("joined_at", time);
        let user = object.close(user)?;
        if self.members.insert(user) {
            Ok(())
        } else {
            Err(wrong("/user_id", "is the id of another member in this export"))
        }
    }

    /// Invitations are checked but not imported: the export does not contain their codes, nor the hashes of them.
    fn invitation(&mut self, mut object: Object) -> Checked<()> {
        let invitation = object.required("id", id::<InvitationId>);
        object.required("role", one_of::<Role>("a role"));
        object.required("created_by", id::<UserId>);
        object.required("created_at", time);
        object.required("expires_at", time);
        object.required("accepted_by", nullable(id::<UserId>));
        object.required("accepted_at", nullable(time));
        object.required("revoked_at", nullable(time));
        let invitation = object.close(invitation)?;
        if self.invitations.insert(invitation) {
            Ok(())
        } else {
            Err(wrong("/id", "is the id of another invitation in this export"))
        }
    }

    /// API keys are checked but not imported: the export does not contain their secrets, so services need new keys.
    fn api_key(&mut self, mut object: Object) -> Checked<()> {
        let key = object.required("id", id::<ApiKeyId>);
        object.required("name", body::name);
        object.required("scopes", one_of::<Vec<ApiScope>>("a list of scopes"));
        object.required("created_by", id::<UserId>);
        object.required("created_at", time);
        object.required("expires_at", nullable(time));
        object.required("last_used_at", nullable(time));
        object.required("revoked_at", nullable(time));
        let key = object.close(key)?;
        if self.api_keys.insert(key) {
            Ok(())
        } else {
            Err(wrong("/id", "is the id of another API key in this export"))
        }
    }

    fn value(&mut self, mut object: Object) -> Checked<()> {
        let project = object.required("project_id", nullable(id::<ProjectId>));
        let key = object.required("key", one_of::<String>("a string"));
        let value = object.required("value", storable);
        let revision = object.required("revision", integer(1..=self.export.revision));
        let (project, key, value, revision) =
            object.close((|| Some((project?, key?, value?, revision?)))())?;
        let project_id = project.map(|project| self.new_project_id(project)).transpose()?;
        let Some(entry) = catalog::find(&key) else {
            return Err(wrong("/key", "is not a configuration key of this release"));
        };
        let scope = if project_id.is_some() { Scope::Project } else { Scope::Organization };
        check_scope(entry, scope).and_then(|()| check_value(entry, &value)).map_err(|error| match error {
            ChangeError::Invalid(violations) => violations
                .into_iter()
                .map(|violation| FieldError::body(format!("/value{}", violation.pointer), violation.detail))
                .collect(),
            error => wrong("/key", error.to_string()),
        })?;
        if !self.values.insert((project_id, key.clone())) {
            return Err(wrong("/key", "is set twice in the same scope"));
        }
        // Keys that only an operator may set are not imported: their values are up to the operator of this platform.
        if entry.setter == Setter::Operator {
            return Ok(());
        }
        self.export.values.push(RestoredValue { project_id, key, value, revision });
        Ok(())
    }

    /// History is not checked against the catalog, because an older release may have had a different catalog.
    fn change(&mut self, mut object: Object) -> Checked<()> {
        let revision = object.required("revision", integer(1..=self.export.revision));
        let project = object.required("project_id", nullable(id::<ProjectId>));
        let key = object.required("key", line(200));
        let action = object.required("action", |value| {
            match value.as_str().and_then(|name| name.parse::<HistoryAction>().ok()) {
                Some(action) => Ok(action == HistoryAction::Set),
                None => Err("must be `set` or `unset`".to_owned()),
            }
        });
        let old_value = object.required("old_value", nullable(storable));
        let new_value = object.required("new_value", nullable(storable));
        object.required("author_id", nullable(id::<UserId>));
        let author_name = object.required("author_name", nullable(line(MAX_AUTHOR_LENGTH)));
        let reason = object.required("reason", line(500));
        object.required("changed_at", time);
        let fields =
            || Some((revision?, project?, key?, action?, old_value?, new_value?, author_name?, reason?));
        let (revision, project, key, set, old_value, new_value, author_name, reason) =
            object.close(fields())?;
        if set != new_value.is_some() {
            return Err(wrong("/new_value", "must be null if the key was unset, and only then"));
        }
        if !self.revisions.insert(revision) {
            return Err(wrong("/revision", "is the revision of another change in this export"));
        }
        // The history of a deleted project is kept.
        let project_id = project.map(|old| match self.projects.get(&old) {
            Some(new) => *new,
            None => *self.deleted_projects.entry(old).or_insert_with(ProjectId::new),
        });
        let change = RestoredChange { revision, project_id, key, old_value, new_value, author_name, reason };
        self.export.history.push(change);
        Ok(())
    }

    fn counter(&mut self, mut object: Object) -> Checked<()> {
        let project = object.required("project_id", id::<ProjectId>);
        let action = object.required("action", one_of::<ChatAction>("a chat action"));
        let count = object.required("count", integer(0..=i64::MAX));
        let (project, action, count) = object.close((|| Some((project?, action?, count?)))())?;
        let (project_id, action) = (self.new_project_id(project)?, action.name().to_owned());
        if !self.counters.insert((project_id, action.clone())) {
            return Err(wrong("/action", "is counted twice for the same project"));
        }
        self.export.counters.push(Counter { project_id, action, count });
        Ok(())
    }

    /// Audit entries are checked but not imported: only the exporting platform can prove them. The number of entries
    /// and the last hash identify the log.
    fn audit_entry(&mut self, mut object: Object) -> Checked<()> {
        let expected = self.export.audit_entries + 1;
        let seq = object.required("seq", |value| match value.as_i64() {
            Some(seq) if seq == expected => Ok(seq),
            _ => Err(format!("must be {expected}: entries are numbered without gaps")),
        });
        object.required("at", time);
        object.required("actor_id", nullable(id::<Uuid>));
        for field in ["actor_kind", "actor_name", "action", "target_kind", "target_id"] {
            object.required(field, one_of::<String>("a string"));
        }
        for field in ["before", "after"] {
            object.required(field, body::any);
        }
        let hash = object.required("hash", |value| match value.as_str() {
            Some(text) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(text.to_ascii_lowercase())
            }
            _ => Err("must be a SHA-256 hash in hexadecimal".to_owned()),
        });
        let (seq, hash) = object.close(seq.zip(hash))?;
        (self.export.audit_entries, self.export.audit_hash) = (seq, Some(hash));
        Ok(())
    }

    fn end(&mut self, mut object: Object) -> Checked<()> {
        self.ended = true;
        let (before, hash) = (self.number - 1, hexadecimal(&self.hash));
        object.required("lines", |value| match value.as_u64() {
            Some(lines) if lines == before => Ok(()),
            _ => Err(format!("must be {before}, the number of lines before this one")),
        });
        let sha256 = object.required("sha256", |value| match value.as_str() {
            Some(text) if text.eq_ignore_ascii_case(&hash) => Ok(hash),
            _ => Err("must be the hash of the lines before this one: they were changed after the export"
                .to_owned()),
        });
        self.export.sha256 = object.close(sha256)?;
        Ok(())
    }

    /// The new id of a project on an earlier line.
    fn new_project_id(&self, project: ProjectId) -> Checked<ProjectId> {
        let new = self.projects.get(&project).copied();
        new.ok_or_else(|| wrong("/project_id", "must be the id of a project on an earlier line"))
    }
}

fn wrong(pointer: &str, detail: impl Into<String>) -> Vec<FieldError> {
    vec![FieldError::body(pointer, detail)]
}

/// Parses a field as an id. Only the hyphenated form is accepted.
fn id<T: FromStr>(value: Value) -> Result<T, String> {
    let id = if let Value::String(text) = value { text.parse().ok() } else { None };
    id.ok_or_else(|| "must be a UUID".to_owned())
}

/// Checks that a field is a time.
fn time(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) if OffsetDateTime::parse(&text, &Rfc3339).is_ok() => Ok(text),
        _ => Err("must be an RFC 3339 time".to_owned()),
    }
}

/// Parses a field that is required but may be null.
fn nullable<T>(
    parse: impl FnOnce(Value) -> Result<T, String>,
) -> impl FnOnce(Value) -> Result<Option<T>, String> {
    move |value| if value.is_null() { Ok(None) } else { parse(value).map(Some) }
}

/// Checks that PostgreSQL can store a value: it must not contain NUL characters.
fn storable(value: Value) -> Result<Value, String> {
    fn has_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(has_nul),
            Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    if has_nul(&value) { Err("must not contain NUL characters".to_owned()) } else { Ok(value) }
}

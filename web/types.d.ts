/**
 * The schemas of docs/api/openapi.yaml, for the type checker. Generated: after a change of the contract, run
 * `npm --prefix web run types`. What only the page knows is in page.d.ts.
 */

/** No body, or an object without fields. */
export type Empty = Record<string, never>;

/** A UUID, version 7 where it was made by the platform. */
export type Uuid = string;

/** RFC 3339, in UTC. */
export type Timestamp = string;

/** Names one request in the logs. */
export type RequestId = string;

/** 1 to 80 characters after trimming, no control characters. */
export type Name = string;

/** What a member may do; each role includes the ones before it. */
export type Role = "viewer" | "member" | "admin" | "owner";

/** Any JSON value; the key's own schema says which. */
export type JsonValue = unknown;

/** An error (RFC 9457). */
export type Problem = {
  /** Links to the code's entry in the catalog. */
  type: string;
  /** The code in words; the same for every error with this code. */
  title: string;
  /** The answer's status. */
  status: number;
  /** What is wrong with this request, and what to do. */
  detail: string;
  code: ProblemCode;
  request_id: RequestId;
  /** Everything that is wrong with the request, at most 50 entries. */
  errors?: ProblemItem[];
};

/** One thing that is wrong. At most one of `pointer`, `header` and `parameter` says where. */
export type ProblemItem = {
  /** Where in the body; a JSON Pointer. Empty for the whole of it. Where a body has lines, it begins with `/lines/` and the line's number. */
  pointer?: string;
  /** In which header. */
  header?: string;
  /** In which parameter of the query; empty for one without a name. */
  parameter?: string;
  /** What is wrong there. */
  detail: string;
  /** What is wrong there, for programs, where it has a name. */
  code?: string;
};

/** What is wrong, for programs. Every code has an entry in the catalog under `/docs/errors`. */
export type ProblemCode = "api_key_not_accepted" | "api_key_scope_missing" | "body_too_large" | "chat_action_not_offered" | "chat_session_closed" | "chat_session_limit" | "config_key_unknown" | "config_operator_only" | "config_scope_not_allowed" | "config_value_invalid" | "cross_site_request" | "forbidden" | "idempotency_in_flight" | "idempotency_key_reused" | "import_invalid" | "internal" | "invitation_not_found" | "last_event_id_invalid" | "last_owner" | "malformed_json" | "malformed_request" | "method_not_allowed" | "not_found" | "operation_not_cancelable" | "organization_deleting" | "organization_not_deleting" | "organization_not_ready" | "organization_suspended" | "precondition_failed" | "precondition_required" | "quota_exceeded" | "quota_reached" | "rate_limited" | "refresh_token_reused" | "response_not_stored" | "route_not_found" | "unauthenticated" | "unavailable" | "unsupported_media_type" | "validation_failed";

/** A guest with a number; nothing more is known. */
export type User = {
  id: Uuid;
  /** What others see. */
  name: string;
};

/** A guest, signed in. */
export type GuestSession = {
  /** A JWT. */
  access_token: string;
  token_type: "Bearer";
  /** Seconds. */
  expires_in: number;
  user: User;
};

/** Who is signed in, and until when. */
export type Me = {
  user: User;
  expires_at: Timestamp;
};

/** How far a sign-out goes. */
export type SignOut = {
  /** Ends all sign-ins of the user. */
  everywhere?: boolean;
};

/** A JSON Web Key Set. */
export type Jwks = {
  keys: Jwk[];
};

/** The public half of an Ed25519 key. */
export type Jwk = {
  kty: "OKP";
  crv: "Ed25519";
  use: "sig";
  alg: "EdDSA";
  /** What a token's header names it by. */
  kid: string;
  /** The key, base64url. */
  x: string;
};

/** A name, for what is created or renamed. It is trimmed first. */
export type Naming = {
  name: Name;
};

/** A tenant, as one of its members sees it. */
export type Organization = {
  id: Uuid;
  name: Name;
  /** A readable name for addresses; unique. */
  slug: string;
  /** Usable while COMMITTED. */
  status: "PENDING" | "COMMITTED" | "FAILED" | "SUSPENDED" | "DELETING";
  /** Who suspended it, also while it is being deleted; null otherwise. An owner can neither resume nor delete what an operator suspended. */
  suspended_by: "owner" | "operator" | null;
  /** When it is purged, after which the deletion cannot be canceled; null unless it is DELETING. */
  delete_at: NullableTimestamp;
  role: Role;
  created_at: Timestamp;
  updated_at: Timestamp;
};

/** An organization that is being created, and the operation that does it. */
export type OrganizationAccepted = {
  id: Uuid;
  name: Name;
  /** A readable name for addresses; unique. */
  slug: string;
  status: "PENDING";
  suspended_by: null;
  delete_at: null;
  role: "owner";
  created_at: Timestamp;
  updated_at: Timestamp;
  operation_id: Uuid;
};

/** An organization that is being deleted, and the operation that does it. */
export type OrganizationDeleting = {
  id: Uuid;
  name: Name;
  /** A readable name for addresses; unique. */
  slug: string;
  status: "DELETING";
  suspended_by: "owner" | null;
  /** Until then the deletion can be canceled. */
  delete_at: Timestamp;
  role: "owner";
  created_at: Timestamp;
  updated_at: Timestamp;
  operation_id: Uuid;
};

/** Who owns the organization from now on. */
export type Transfer = {
  /** Another member's id. */
  user_id: Uuid;
};

/** What a member may do from now on. */
export type RoleChange = {
  role: Role;
};

export type OrganizationList = {
  items: Organization[];
  next_cursor: NextCursor;
};

/** For the next page; null on the last one. */
export type NextCursor = string | null;

/** What was done. */
export type AuditAction = "organization.created" | "organization.imported" | "organization.exported" | "organization.renamed" | "organization.suspended" | "organization.resumed" | "organization.deletion_requested" | "organization.restored" | "operation.canceled" | "member.joined" | "member.role_changed" | "member.removed" | "invitation.created" | "invitation.revoked" | "project.created" | "project.renamed" | "project.deleted" | "config.set" | "config.unset" | "api_key.created" | "api_key.revoked" | "dead_letter.replayed" | "dead_letter.dropped";

/** One change, and who made it. */
export type AuditEntry = {
  /** 1, 2, 3 … within the organization. */
  seq: number;
  at: Timestamp;
  /** A user; a service; the platform's operator; the platform itself. */
  actor_kind: "user" | "api_key" | "operator" | "system";
  /** Who; null where the actor has no id. */
  actor_id: Uuid | null;
  /** Who, for people. */
  actor_name: string;
  action: AuditAction;
  /** To what kind of thing. */
  target_kind: string;
  /** To which; an id or a name. */
  target_id: string;
  /** The state before, without secrets. */
  before: Record<string, unknown> | null;
  /** The state after, without secrets. */
  after: Record<string, unknown> | null;
  /** SHA-256 of the entry and of the hash before it: the chain so far. */
  hash: string;
};

export type AuditEntryList = {
  items: AuditEntry[];
  next_cursor: NextCursor;
};

/** A saga, as its owner sees it. */
export type Operation = {
  id: Uuid;
  kind: "organization.create" | "organization.delete";
  org_id: Uuid;
  status: OperationStatus;
  /** In their order; empty until a worker has started the operation, and after a purge, which removes its own record. */
  steps: OperationStep[];
  /** Why it failed; null otherwise. */
  failure: OperationFailure | null;
  /** When it fails if it has not finished. */
  deadline_at: Timestamp;
  created_at: Timestamp;
  finished_at: NullableTimestamp;
  /** After a purge, what was removed and what a search found afterwards; null otherwise. */
  certificate: DeletionCertificate | null;
};

/** The proof that nothing of an organization is left. */
export type DeletionCertificate = {
  /** How many rows each table held; tables without any are left out. */
  rows_removed: Record<string, number>;
  /** What was searched after the removal, and what was found. There is a certificate only if both counts are 0. */
  search: {
    tables: number;
    rows_found: 0;
    redis_keys: number;
    redis_traces_found: 0;
  };
  /** What became of the organization's namespace in the cluster. */
  namespaces: string;
};

/** PENDING and COMPENSATING are running; COMMITTED and FAILED are final. */
export type OperationStatus = "PENDING" | "COMPENSATING" | "COMMITTED" | "FAILED";

/** COMPENSATED means that the step was undone; undoing the first step also removes what the request stored. */
export type OperationStepStatus = "PENDING" | "RUNNING" | "DONE" | "FAILED" | "COMPENSATED";

export type OperationStep = {
  name: StepName;
  status: OperationStepStatus;
  attempts: number;
  started_at: NullableTimestamp;
  finished_at: NullableTimestamp;
  /** More about the step. */
  detail: string | null;
};

/** A step's name within its kind of saga. */
export type StepName = string;

/** RFC 3339, in UTC; null where it has not happened. */
export type NullableTimestamp = string | null;

export type OperationFailure = {
  code: string;
  detail: string;
};

/** `operation.step`: a step changed its status. */
export type OperationStepEvent = {
  operation_id: Uuid;
  /** Counts the operation's events from 1. */
  seq: number;
  step: StepName;
  status: OperationStepStatus;
  detail: string | null;
  at: Timestamp;
};

/** `operation.finished`: the last event. */
export type OperationFinishedEvent = {
  operation_id: Uuid;
  seq: number;
  status: "COMMITTED" | "FAILED";
  failure: OperationFailure | null;
  at: Timestamp;
};

export type Member = {
  user: User;
  role: Role;
  joined_at: Timestamp;
};

export type MemberList = {
  items: Member[];
  next_cursor: NextCursor;
};

/** Only an OPEN one can be accepted. */
export type InvitationStatus = "OPEN" | "ACCEPTED" | "REVOKED" | "EXPIRED";

export type Invitation = {
  id: Uuid;
  role: Role;
  status: InvitationStatus;
  created_at: Timestamp;
  expires_at: Timestamp;
};

/** A new invitation, with its code, which is never shown again. */
export type InvitationCreated = {
  id: Uuid;
  role: Role;
  status: "OPEN";
  created_at: Timestamp;
  expires_at: Timestamp;
  /** To give to one person. */
  code: string;
};

export type InvitationList = {
  items: Invitation[];
  next_cursor: NextCursor;
};

export type InvitationCreate = {
  role: Role;
  expires_in_seconds?: number;
};

/** What a key may be used for, on the operations that name the scope as `x-api-key-scope`. */
export type ApiScopes = ("config:read" | "config:write" | "projects:read" | "projects:write" | "members:read" | "audit:read" | "export:read")[];

/** A key of a service, without the key itself. */
export type ApiKey = {
  id: Uuid;
  name: Name;
  scopes: ApiScopes;
  status: "ACTIVE" | "EXPIRED" | "REVOKED";
  /** The user who created it. */
  created_by: Uuid;
  created_at: Timestamp;
  /** Null if it is valid until it is revoked. */
  expires_at: Timestamp | null;
  /** To the minute. */
  last_used_at: Timestamp | null;
};

/** A new key, which is never shown again. */
export type ApiKeyCreated = {
  id: Uuid;
  name: Name;
  scopes: ApiScopes;
  status: "ACTIVE" | "EXPIRED" | "REVOKED";
  /** The user who created it. */
  created_by: Uuid;
  created_at: Timestamp;
  /** Null if it is valid until it is revoked. */
  expires_at: Timestamp | null;
  /** To the minute. */
  last_used_at: Timestamp | null;
  /** To send as `Authorization: Bearer`. */
  key: string;
};

export type ApiKeyList = {
  items: ApiKey[];
  next_cursor: NextCursor;
};

export type ApiKeyCreate = {
  name: Name;
  scopes: ApiScopes;
  expires_in_seconds?: number;
};

export type InvitationAccept = {
  /** The code as received. */
  code: string;
};

export type InvitationAccepted = {
  org: Organization;
};

export type Project = {
  id: Uuid;
  org_id: Uuid;
  name: Name;
  created_at: Timestamp;
  updated_at: Timestamp;
};

export type ProjectList = {
  items: Project[];
  next_cursor: NextCursor;
};

/** A canned action. */
export type ChatAction = "thumbs_up" | "thumbs_down" | "ready" | "blocked" | "in_review" | "deployed" | "tests_green" | "rollback";

/** One open window. */
export type ChatSession = {
  id: Uuid;
  project_id: Uuid;
  opened_at: Timestamp;
  /** What may be pressed, in the order to show (`chat.actions`). */
  actions: ChatAction[];
  /** The session that was closed to make room; null when there was room. */
  closed_session_id: string | null;
};

export type ChatPress = {
  /** One of the session's `actions`. */
  action: ChatAction;
};

export type ChatPressAccepted = {
  id: Uuid;
  action: ChatAction;
  at: Timestamp;
};

export type ChatCounters = {
  items: ({
    action: ChatAction;
    count: number;
  })[];
  /** The sum. */
  total: number;
};

/** `chat.action`: somebody pressed. */
export type ChatActionEvent = {
  /** The one the presser got in the answer. */
  id: Uuid;
  project_id: Uuid;
  session_id: Uuid;
  user: User;
  action: ChatAction;
  at: Timestamp;
};

/** `chat.session-closed`: this session has ended; the stream ends. */
export type ChatSessionClosedEvent = {
  session_id: Uuid;
  /** replaced: the user opened a newer window. */
  reason: "replaced" | "closed" | "expired";
  at: Timestamp;
};

/** Which layer a value comes from, from the widest to the narrowest. */
export type ConfigSource = "builtin" | "default" | "organization" | "project";

/** Where a key may be set. `default` is the operator's. */
export type ConfigScope = "default" | "organization" | "project";

export type ConfigKey = string;

/** A key and its value in force. */
export type ConfigValue = {
  key: ConfigKey;
  value: JsonValue;
  source: ConfigSource;
  description: string;
  /** The JSON Schema of the value. */
  schema: Record<string, unknown>;
  scopes: ConfigScope[];
  set_by: ConfigSetter;
};

/** A key and its value in force, at a revision of the organization's configuration. */
export type ConfigEntry = {
  key: ConfigKey;
  value: JsonValue;
  source: ConfigSource;
  description: string;
  /** The JSON Schema of the value. */
  schema: Record<string, unknown>;
  scopes: ConfigScope[];
  set_by: ConfigSetter;
  revision: Revision;
};

/** `admin`: an organization's admins, for it and its projects; `operator`: the platform's operator alone. */
export type ConfigSetter = "admin" | "operator";

/** Grows by one with every change of an organization's configuration. */
export type Revision = number;

export type ConfigList = {
  revision: Revision;
  items: ConfigValue[];
};

/** Why, for the readers of the history. 1 to 500 characters after trimming, no control characters. */
export type Reason = string;

export type ConfigSet = {
  value: JsonValue;
  reason: Reason;
};

/** One entry of the history. */
export type ConfigChange = {
  revision: Revision;
  key: ConfigKey;
  scope: ConfigScope;
  /** The project, where the scope is one. */
  project_id: string | null;
  action: "set" | "unset";
  /** What was set there before; null for nothing. */
  old_value: JsonValue;
  /** What is set there since; null for nothing. */
  new_value: JsonValue;
  /** Null for an operator and for a service. */
  author: User | null;
  /** The name of the API key, where a service made the change. */
  api_key: string | null;
  reason: string;
  changed_at: Timestamp;
};

export type ConfigHistory = {
  items: ConfigChange[];
  next_cursor: NextCursor;
};

export type ConfigLayer = {
  source: ConfigSource;
  /** Absent where nothing is set. */
  value?: JsonValue;
  set: boolean;
};

export type ConfigExplanation = {
  key: ConfigKey;
  value: JsonValue;
  source: ConfigSource;
  layers: ConfigLayer[];
};

/** A live process and what it has applied. */
export type ConfigProcess = {
  /** Its name. */
  process: string;
  /** Null when it has never needed this organization. */
  revision: number | null;
  applied_at: NullableTimestamp;
  /** From the commit of the newest revision to its application; null while behind. */
  lag_ms: number | null;
};

export type ConfigStatus = {
  revision: Revision;
  changed_at: NullableTimestamp;
  /** How many processes run the newest revision, or will read it when they first need it. */
  applied: number;
  /** How many processes are alive. */
  total: number;
  processes: ConfigProcess[];
};

/** `config.changed`: read the configuration again. */
export type ConfigChangedEvent = {
  revision: Revision;
};

/** `reset`: events may be missing. Read the state again, and go on with the stream. */
export type ResetEvent = {
  /** slow: the client read too slowly. too_old: the id is older than what is kept. history_lost: the id is of a
   * history that was lost. gap: the server itself missed something. defaults_changed: the platform's defaults
   * were changed. */
  reason: "slow" | "too_old" | "history_lost" | "gap" | "defaults_changed";
};

/** `drain`: this process stops. Connect again after about `retry_ms`, with the last `id`. */
export type DrainEvent = {
  retry_ms: number;
};

/** `token-expiring`: the stream ends at `expires_at`, with the token. */
export type TokenExpiringEvent = {
  expires_at: Timestamp;
};

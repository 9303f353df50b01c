/**
 * The shapes of the contract (docs/api/openapi.yaml) that the page uses. Only the type checker reads this file.
 */

export type Role = "viewer" | "member" | "admin" | "owner";

export interface User {
  id: string;
  name: string;
}

export interface ProblemItem {
  pointer?: string;
  header?: string;
  parameter?: string;
  detail: string;
  code: string;
}

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  request_id: string;
  errors?: ProblemItem[];
}

export interface GuestSession {
  access_token: string;
  token_type: "Bearer";
  expires_in: number;
  user: User;
}

export interface Me {
  user: User;
  expires_at: string;
}

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

export interface Organization {
  id: string;
  name: string;
  slug: string;
  status: "PENDING" | "COMMITTED" | "FAILED" | "SUSPENDED" | "DELETING";
  suspended_by: "owner" | "operator" | null;
  delete_at: string | null;
  role: Role;
  created_at: string;
  updated_at: string;
}

export type OrganizationAccepted = Organization & { operation_id: string };
export type OrganizationDeleting = Organization & { operation_id: string; delete_at: string };

export interface OperationFailure {
  code: string;
  detail: string;
}

export type StepStatus = "PENDING" | "RUNNING" | "DONE" | "FAILED" | "COMPENSATED";

export interface OperationStep {
  name: string;
  status: StepStatus;
  attempts: number;
  started_at: string | null;
  finished_at: string | null;
  detail: string | null;
}

export interface DeletionCertificate {
  rows_removed: Record<string, number>;
  search: { tables: number; rows_found: 0; redis_keys: number; redis_traces_found: 0 };
  namespaces: string;
}

export interface Operation {
  id: string;
  kind: "organization.create" | "organization.delete";
  org_id: string;
  status: "PENDING" | "COMPENSATING" | "COMMITTED" | "FAILED";
  steps: OperationStep[];
  failure: OperationFailure | null;
  deadline_at: string;
  created_at: string;
  finished_at: string | null;
  certificate: DeletionCertificate | null;
}

export interface OperationStepEvent {
  operation_id: string;
  seq: number;
  step: string;
  status: StepStatus;
  detail: string | null;
  at: string;
}

export interface OperationFinishedEvent {
  operation_id: string;
  seq: number;
  status: "COMMITTED" | "FAILED";
  failure: OperationFailure | null;
  at: string;
}

export interface Member {
  user: User;
  role: Role;
  joined_at: string;
}

export interface Invitation {
  id: string;
  role: Role;
  status: "OPEN" | "ACCEPTED" | "REVOKED" | "EXPIRED";
  created_at: string;
  expires_at: string;
}

export type InvitationCreated = Invitation & { code: string };

export type AuditAction =
  | "organization.created"
  | "organization.imported"
  | "organization.exported"
  | "organization.renamed"
  | "organization.suspended"
  | "organization.resumed"
  | "organization.deletion_requested"
  | "organization.restored"
  | "member.joined"
  | "member.role_changed"
  | "member.removed"
  | "invitation.created"
  | "invitation.revoked"
  | "project.created"
  | "project.renamed"
  | "project.deleted"
  | "config.set"
  | "config.unset"
  | "api_key.created"
  | "api_key.revoked"
  | "dead_letter.replayed"
  | "dead_letter.dropped";

export interface AuditEntry {
  seq: number;
  at: string;
  actor_kind: "user" | "api_key" | "operator" | "system";
  actor_id: string | null;
  actor_name: string;
  action: AuditAction;
  target_kind: string;
  target_id: string;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
  hash: string;
}

export interface Project {
  id: string;
  org_id: string;
  name: string;
  created_at: string;
  updated_at: string;
}

export interface ChatSession {
  id: string;
  project_id: string;
  opened_at: string;
  actions: string[];
  closed_session_id: string | null;
}

export interface ChatPressAccepted {
  id: string;
  action: string;
  at: string;
}

export interface ChatActionEvent {
  id: string;
  project_id: string;
  session_id: string;
  user: User;
  action: string;
  at: string;
}

export interface ChatSessionClosedEvent {
  session_id: string;
  reason: "replaced" | "closed" | "expired";
  at: string;
}

export interface ChatCounters {
  items: { action: string; count: number }[];
  total: number;
}

export type ConfigScope = "default" | "organization" | "project";
export type ConfigSource = "builtin" | ConfigScope;

/** The part of JSON Schema that the catalog of keys uses. */
export interface ValueSchema {
  type?: string | string[];
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  minItems?: number;
  items?: ValueSchema;
}

export interface ConfigValue {
  key: string;
  value: unknown;
  source: ConfigSource;
  description: string;
  schema: ValueSchema;
  scopes: ConfigScope[];
  set_by: "admin" | "operator";
}

export type ConfigEntry = ConfigValue & { revision: number };

export interface ConfigList {
  revision: number;
  items: ConfigValue[];
}

export interface ConfigChange {
  revision: number;
  key: string;
  scope: ConfigScope;
  project_id: string | null;
  action: "set" | "unset";
  old_value: unknown;
  new_value: unknown;
  author: User | null;
  api_key: string | null;
  reason: string;
  changed_at: string;
}

export interface ConfigExplanation {
  key: string;
  value: unknown;
  source: ConfigSource;
  layers: { source: ConfigSource; value?: unknown; set: boolean }[];
}

export interface ConfigStatus {
  revision: number;
  changed_at: string | null;
  applied: number;
  total: number;
  processes: {
    process: string;
    revision: number | null;
    applied_at: string | null;
    lag_ms: number | null;
  }[];
}

/** What a view is given: where to draw, what the address says, and a signal that ends with the view. */
export interface ViewContext {
  root: HTMLElement;
  params: Record<string, string>;
  signal: AbortSignal;
  me: Me;
  /** Draws the view anew: what it was drawn from has changed. */
  again: () => void;
  /** Ends the view: what it was about is not there any more, at least not for this guest. */
  end: (title: string, text: string) => void;
}

export type View = (context: ViewContext) => Promise<void>;

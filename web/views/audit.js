/** Who changed what in an organization, newest first, for its admins. */

import { address } from "../addresses.js";
import { listAll, request } from "../api.js";
import { button, emptyState, fact, field, fill, h, humanize, icon, mayAct, moment, notice, problemBox } from "../elements.js";
import { organizationOf } from "../organization.js";
import { organizationFrame } from "./frames.js";
import { plain } from "./value-editor.js";

/** @import {Page, ViewContext} from "../page" */
/** @import {AuditAction, AuditEntry, Member, Project} from "../types" */
/** @import {Child} from "../elements.js" */

const PAGE = 25;

/** What somebody did; the target follows where there is one to name. @type {Record<AuditAction, string>} */
const DEEDS = {
  "organization.created": "created the organization",
  "organization.imported": "imported the organization from an export",
  "organization.exported": "exported the organization",
  "organization.renamed": "renamed the organization",
  "organization.suspended": "suspended the organization",
  "organization.resumed": "resumed the organization",
  "organization.deletion_requested": "requested the organization's deletion",
  "organization.restored": "canceled the organization's deletion",
  "operation.canceled": "canceled the operation",
  "member.joined": "joined",
  "member.role_changed": "changed the role of",
  "member.removed": "removed",
  "invitation.created": "created an invitation",
  "invitation.revoked": "revoked an invitation",
  "project.created": "created the project",
  "project.renamed": "renamed the project",
  "project.deleted": "deleted the project",
  "config.set": "set",
  "config.unset": "unset",
  "api_key.created": "created the API key",
  "api_key.revoked": "revoked the API key",
  "dead_letter.replayed": "replayed the dead letter",
  "dead_letter.dropped": "dropped the dead letter",
};

/** @type {Record<string, string>} */
const ICONS = {
  organization: "home",
  user: "person",
  invitation: "enter",
  project: "project",
  config: "sliders",
  api_key: "key",
};

/** @param {ViewContext} context */
export async function audit(context) {
  const { root, signal } = context;
  const org = await organizationOf(context);
  if (!mayAct(org.role, "admin")) {
    fill(root, organizationFrame(org, "audit", context), notice("plain", h("p", {}, "Reading the audit log requires the role admin.")));
    return;
  }

  const list = h("ol", { class: "audit" });
  const nothing = emptyState("audit", "No entries", "No entry of the audit log matches the filter.");
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  const names = await namesIn(org.id, signal);
  let cursor = "";
  let turn = 0;

  const filter = h(
    "select",
    {},
    h("option", { value: "" }, "Everything"),
    Object.keys(DEEDS).map((name) => h("option", { value: name }, label(name))),
  );

  const more = async () => {
    const mine = turn;
    const query = new URLSearchParams({ limit: String(PAGE) });
    if (cursor !== "") query.set("cursor", cursor);
    if (filter.value !== "") query.set("action", filter.value);
    /** @type {{ data: Page<AuditEntry> }} */
    const { data } = await request("GET", `/v1/orgs/${org.id}/audit?${query}`, { signal });
    // Another filter was chosen while this was on its way.
    if (mine !== turn) return;
    for (const entry of data.items) learn(names, entry);
    list.append(...data.items.map((entry) => row(entry, names)));
    cursor = data.next_cursor ?? "";
    older.hidden = cursor === "";
    nothing.hidden = list.childElementCount > 0;
    list.hidden = !nothing.hidden;
  };
  const older = button({ label: "Older entries", icon: "down", kind: "quiet", problems }, more);

  filter.addEventListener("change", async () => {
    turn += 1;
    cursor = "";
    fill(list);
    fill(problems);
    try {
      await more();
    } catch (error) {
      if (!signal.aborted) fill(problems, problemBox(error));
    }
  });

  await more();
  fill(
    root,
    organizationFrame(org, "audit", context),
    h("div", { class: "filter" }, field("Show", filter)),
    h("section", { class: "panel", "aria-label": "Audit log" }, list, nothing, older, problems),
  );
}

/** @param {string} action @returns {string} as the choice of what to show says it */
function label(action) {
  return humanize(action.replace(".", " ")).replace(/^Api /, "API ").replace(/^Config /, "Configuration ");
}

/**
 * What people and projects are called, by their ids: an entry holds the ids.
 *
 * @param {string} org @param {AbortSignal} signal
 * @returns {Promise<Map<string, string>>}
 */
async function namesIn(org, signal) {
  /** @type {[Member[], Project[]]} */
  const [people, projects] = await Promise.all([listAll(`/v1/orgs/${org}/members`, signal), listAll(`/v1/orgs/${org}/projects`, signal)]);
  return new Map([...people.map(({ user }) => named(user.id, user.name)), ...projects.map(({ id, name }) => named(id, name))]);
}

/** @param {string} id @param {string} name @returns {[string, string]} */
function named(id, name) {
  return [id, name];
}

/** Who left, and what was deleted, is named by the entries themselves. @param {Map<string, string>} names @param {AuditEntry} entry */
function learn(names, { actor_id, actor_name, target_id, before, after }) {
  if (actor_id !== null && actor_name !== "" && !names.has(actor_id)) names.set(actor_id, actor_name);
  const name = before?.["name"] ?? after?.["name"];
  if (typeof name === "string" && !names.has(target_id)) names.set(target_id, name);
}

/** @param {AuditEntry} entry @param {Map<string, string>} names */
function row(entry, names) {
  const changes = changesOf(entry, names);
  return h(
    "li",
    { "data-action": entry.action },
    h("span", { class: "feed-mark" }, icon(ICONS[entry.target_kind] ?? "dot")),
    h(
      "div",
      { class: "grow" },
      h("p", { class: "audit-deed" }, h("strong", {}, actor(entry)), " ", deed(entry, names)),
      changes.length > 0 && h("dl", { class: "changes" }, changes),
      h(
        "details",
        { class: "fine" },
        h("summary", {}, `Entry ${entry.seq}, `, moment(entry.at)),
        h(
          "dl",
          { class: "facts" },
          fact("Time", new Date(entry.at).toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" })),
          entry.actor_id !== null && fact("Who", h("code", {}, entry.actor_id)),
          fact(humanize(entry.target_kind), h("code", {}, entry.target_id)),
          fact("Hash", h("code", {}, entry.hash)),
        ),
      ),
    ),
  );
}

/** @param {AuditEntry} entry */
function actor({ actor_kind, actor_name }) {
  if (actor_kind === "operator") return "The operator";
  if (actor_kind === "system") return "Atrium";
  if (actor_kind === "api_key") return `API key ${actor_name}`;
  return actor_name === "" ? "Somebody" : actor_name;
}

/** @param {AuditEntry} entry @param {Map<string, string>} names @returns {Child} */
function deed({ action, actor_id, target_kind, target_id }, names) {
  if (action === "member.removed" && actor_id === target_id) return "left";
  const words = DEEDS[action] ?? humanize(action);
  if (action === "member.joined" || target_kind === "organization" || target_kind === "invitation") return words;
  const target = names.get(target_id);
  return [words, " ", target === undefined ? h("code", {}, target_id) : h("strong", {}, target)];
}

/** Fields in the order to show them, and what they are called; others follow under their own names. @type {Record<string, string>} */
const FIELDS = {
  role: "Role",
  name: "Name",
  slug: "Slug",
  value: "Value",
  project_id: "Project",
  delete_at: "Data removed at",
  operation_id: "Operation",
};

/** What the sentence has said already. */
const SAID = ["suspended_by", "resumed_by"];

/**
 * Every field that came, went or changed: what it was, and what it is.
 *
 * @param {AuditEntry} entry @param {Map<string, string>} names
 */
function changesOf({ target_kind, target_id, before, after }, names) {
  const fields = new Set([...Object.keys(FIELDS), ...Object.keys(before ?? {}), ...Object.keys(after ?? {})]);
  /** @type {HTMLElement[]} */
  const lines = [];
  for (const name of fields) {
    const [old, now] = [before?.[name] ?? null, after?.[name] ?? null];
    if ((old === null && now === null) || SAID.includes(name)) continue;
    const changed = before !== null && after !== null && name in before && JSON.stringify(old) !== JSON.stringify(now);
    // Where the sentence names it.
    if (!changed && name === "name" && target_kind !== "organization" && (now ?? old) === names.get(target_id)) continue;
    const shown = changed ? [value(name, old, names), " → ", value(name, now, names)] : value(name, now ?? old, names);
    lines.push(fact(FIELDS[name] ?? humanize(name.replace(/_id$/, "")), shown));
  }
  return lines;
}

/** @param {string} name the field's @param {unknown} content @param {Map<string, string>} names @returns {Child} */
function value(name, content, names) {
  if (content === null) return h("span", { class: "fine" }, "not set");
  if (typeof content === "string") {
    if (name === "operation_id") return h("a", { href: address("operations", content) }, "its progress");
    if (name.endsWith("_id")) return names.get(content) ?? h("code", {}, content);
    if (name.endsWith("_at")) return moment(content);
    if (name === "role") return humanize(content);
    if (name === "name" || name === "reason") return content;
  }
  if (typeof content === "object" && !Array.isArray(content)) {
    return Object.entries(content).map(([part, inner], at) => [at > 0 && ", ", h("span", { class: "fine" }, humanize(part)), " ", value(part, inner, names)]);
  }
  return h("output", {}, plain(content));
}

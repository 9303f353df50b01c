/**
 * What stands above every view of an organization or a project: where one is, where one can go from here, and whether
 * the organization is open.
 */

import { address } from "../addresses.js";
import { request } from "../api.js";
import { badge, button, h, humanize, icon, mayAct, moment, notice } from "../elements.js";
import { canRestore } from "../organization.js";

/** @import {ViewContext} from "../page" */
/** @import {Organization, Project} from "../types" */

/**
 * @param {string} org @param {string} id @param {AbortSignal} signal
 * @returns {Promise<Project>}
 */
export async function loadProject(org, id, signal) {
  /** @type {{ data: Project }} */
  const { data } = await request("GET", `/v1/orgs/${org}/projects/${id}`, { signal });
  return data;
}

/**
 * @param {Organization} org
 * @param {"projects" | "members" | "configuration" | "audit" | "settings"} at
 * @param {ViewContext} context
 */
export function organizationFrame(org, at, context) {
  return [
    h("nav", { class: "crumbs", "aria-label": "Breadcrumb" }, h("a", { href: "#/" }, "Organizations")),
    h("div", { class: "head" }, h("h1", {}, org.name), h("p", { class: "meta" }, h("code", {}, org.slug), badge(humanize(org.role)))),
    tabs([
      ["Projects", "project", address("orgs", org.id), at === "projects"],
      ["Members", "people", address("orgs", org.id, "members"), at === "members"],
      ["Configuration", "sliders", address("orgs", org.id, "configuration"), at === "configuration"],
      mayAct(org.role, "admin") && ["Audit", "audit", address("orgs", org.id, "audit"), at === "audit"],
      mayAct(org.role, "owner") && ["Settings", "gear", address("orgs", org.id, "settings"), at === "settings"],
    ]),
    stateOf(org, context),
  ];
}

/** @param {Organization} org @param {Project} project @param {"chat" | "configuration"} at @param {ViewContext} context */
export function projectFrame(org, project, at, context) {
  return [
    h(
      "nav",
      { class: "crumbs", "aria-label": "Breadcrumb" },
      h("a", { href: "#/" }, "Organizations"),
      h("a", { href: address("orgs", org.id) }, org.name),
    ),
    h("div", { class: "head" }, h("h1", {}, project.name), h("p", { class: "meta" }, badge(humanize(org.role)))),
    tabs([
      ["Chat", "chat", address("orgs", org.id, "projects", project.id), at === "chat"],
      ["Configuration", "sliders", address("orgs", org.id, "projects", project.id, "configuration"), at === "configuration"],
    ]),
    stateOf(org, context),
  ];
}

/** @param {([label: string, iconName: string, href: string, here: boolean] | false)[]} entries */
function tabs(entries) {
  return h(
    "nav",
    { class: "tabs", "aria-label": "Sections" },
    entries.map(
      (entry) =>
        entry !== false &&
        h("a", { href: entry[2], "aria-current": entry[3] ? "page" : undefined }, icon(entry[1]), h("span", {}, entry[0])),
    ),
  );
}

/** What keeps the organization from being used; nothing while it can be. @param {Organization} org @param {ViewContext} context */
function stateOf(org, context) {
  switch (org.status) {
    case "COMMITTED":
      return null;
    case "PENDING":
      return notice("warn", h("p", {}, "This organization is still being created. Nothing can be changed until it is ready."));
    case "FAILED":
      return notice("warn", h("p", {}, "The creation of this organization failed. Create a new one."));
    case "SUSPENDED":
      return suspended(org, context);
    case "DELETING":
      return deleting(org, context);
  }
}

/** @param {Organization} org @param {ViewContext} context */
function suspended(org, context) {
  const byOwner = org.suspended_by === "owner";
  return state(
    "warn",
    "pause",
    `${org.name} is suspended`,
    byOwner ? "An owner suspended it." : "The operator of this platform suspended it, and only they can resume it.",
    "You can read everything. Changes and live chat are disabled.",
    byOwner && mayAct(org.role, "owner") && action("Resume", "resume", org, context),
    byOwner && !mayAct(org.role, "owner") && h("p", { class: "fine" }, "An owner can resume it."),
  );
}

/** @param {Organization} org @param {ViewContext} context */
function deleting(org, context) {
  if (!canRestore(org)) {
    return state("bad", "trash", `${org.name} is being deleted`, "The deletion can no longer be canceled.", "All of its data is being removed.");
  }
  return state(
    "bad",
    "trash",
    `${org.name} will be deleted`,
    ["All of its data will be removed at ", moment(org.delete_at ?? ""), "."],
    "Until then you can read everything, and an owner can cancel the deletion. Changes and live chat are disabled.",
    mayAct(org.role, "owner") && action("Cancel the deletion", "restore", org, context),
    mayAct(org.role, "owner") && org.suspended_by !== undefined && h("p", { class: "fine" }, "If the deletion is canceled, the organization is suspended again."),
    !mayAct(org.role, "owner") && h("p", { class: "fine" }, "An owner can cancel it."),
  );
}

/**
 * @param {"warn" | "bad"} kind @param {string} iconName @param {string} title
 * @param {...import("../elements.js").Child} content
 */
function state(kind, iconName, title, ...content) {
  const [why, what, ...more] = content;
  return h(
    "div",
    { class: `notice ${kind} state`, role: "status" },
    h("p", { class: "notice-title" }, icon(iconName), title),
    h("p", {}, why, " ", what),
    ...more,
  );
}

/** @param {string} label @param {"resume" | "restore"} what @param {Organization} org @param {ViewContext} context */
function action(label, what, org, { signal, again }) {
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  const element = button({ label, icon: "rollback", kind: "quiet", problems }, async () => {
    await request("POST", `/v1/orgs/${org.id}/${what}`, { signal });
    again();
  });
  return [element, problems];
}

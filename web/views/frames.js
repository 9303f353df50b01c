/** What stands above every view of an organization or a project: where one is, and where one can go from here. */

import { address } from "../addresses.js";
import { request } from "../api.js";
import { badge, h, humanize, icon, notice } from "../elements.js";

/** @import {Organization, Project} from "../types" */

/**
 * @param {string} id @param {AbortSignal} signal
 * @returns {Promise<Organization>}
 */
export async function loadOrganization(id, signal) {
  /** @type {{ data: Organization }} */
  const { data } = await request("GET", `/v1/orgs/${id}`, { signal });
  return data;
}

/**
 * @param {string} org @param {string} id @param {AbortSignal} signal
 * @returns {Promise<Project>}
 */
export async function loadProject(org, id, signal) {
  /** @type {{ data: Project }} */
  const { data } = await request("GET", `/v1/orgs/${org}/projects/${id}`, { signal });
  return data;
}

/** @param {Organization} org @param {"projects" | "members" | "configuration"} at */
export function organizationFrame(org, at) {
  return [
    h("nav", { class: "crumbs", "aria-label": "Where you are" }, h("a", { href: "#/" }, "Organizations")),
    h("div", { class: "head" }, h("h1", {}, org.name), h("p", { class: "meta" }, h("code", {}, org.slug), badge(humanize(org.role)))),
    tabs([
      ["Projects", "project", address("orgs", org.id), at === "projects"],
      ["Members", "people", address("orgs", org.id, "members"), at === "members"],
      ["Configuration", "sliders", address("orgs", org.id, "configuration"), at === "configuration"],
    ]),
    org.status === "PENDING" &&
      notice("warn", h("p", {}, "This organization is still being created. Nothing can be changed until it is ready.")),
    org.status === "FAILED" &&
      notice("warn", h("p", {}, "The creation of this organization failed. Create a new one.")),
  ];
}

/** @param {Organization} org @param {Project} project @param {"chat" | "configuration"} at */
export function projectFrame(org, project, at) {
  return [
    h(
      "nav",
      { class: "crumbs", "aria-label": "Where you are" },
      h("a", { href: "#/" }, "Organizations"),
      h("a", { href: address("orgs", org.id) }, org.name),
    ),
    h("div", { class: "head" }, h("h1", {}, project.name), h("p", { class: "meta" }, badge(humanize(org.role)))),
    tabs([
      ["Chat", "chat", address("orgs", org.id, "projects", project.id), at === "chat"],
      ["Configuration", "sliders", address("orgs", org.id, "projects", project.id, "configuration"), at === "configuration"],
    ]),
  ];
}

/** @param {[label: string, iconName: string, href: string, here: boolean][]} entries */
function tabs(entries) {
  return h(
    "nav",
    { class: "tabs", "aria-label": "Parts" },
    entries.map(([label, iconName, href, here]) =>
      h("a", { href, "aria-current": here ? "page" : undefined }, icon(iconName), h("span", {}, label)),
    ),
  );
}

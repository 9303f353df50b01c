/** The projects of an organization. */

import { address } from "../addresses.js";
import { listAll, request } from "../api.js";
import { emptyState, field, fill, form, h, icon, mayAct, moment } from "../elements.js";
import { isOpen, organizationOf } from "../organization.js";
import { organizationFrame } from "./frames.js";

/** @import {ViewContext} from "../page" */
/** @import {Organization, Project} from "../types" */

/** @param {ViewContext} context */
export async function projects(context) {
  const { root, signal } = context;
  const org = await organizationOf(context);
  /** @type {Project[]} */
  const items = await listAll(`/v1/orgs/${org.id}/projects`, signal);
  const canCreate = mayAct(org.role, "admin") && isOpen(org);
  fill(
    root,
    organizationFrame(org, "projects", context),
    h(
      "div",
      { class: canCreate ? "split" : "" },
      h(
        "section",
        { "aria-label": "Projects" },
        items.length === 0
          ? emptyState("project", "No projects yet", canCreate ? "A project has its own chat and configuration. Create the first one." : "An admin of the organization can create one.")
          : h("ul", { class: "cards" }, items.map((project) => card(org, project))),
      ),
      canCreate && h("aside", {}, createForm(org, signal)),
    ),
  );
}

/** @param {Organization} org @param {Project} project */
function card(org, project) {
  return h(
    "li",
    { class: "card link" },
    h("h2", {}, h("a", { href: address("orgs", org.id, "projects", project.id) }, project.name)),
    h("p", { class: "meta" }, h("span", { class: "fine" }, "created ", moment(project.created_at))),
  );
}

/** @param {Organization} org @param {AbortSignal} signal */
function createForm(org, signal) {
  const name = h("input", { type: "text", required: true, maxlength: 80, autocomplete: "off", placeholder: "Storefront" });
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, icon("plus"), "New project"),
    form({ submit: "Create" }, [field("Name", name)], async () => {
      /** @type {{ data: Project }} */
      const { data } = await request("POST", `/v1/orgs/${org.id}/projects`, { json: { name: name.value }, signal });
      location.hash = address("orgs", org.id, "projects", data.id);
    }),
  );
}

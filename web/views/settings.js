/** What only owners do with an organization: suspend and resume it, delete it, and keep it after all. */

import { address } from "../addresses.js";
import { request } from "../api.js";
import { ask } from "../dialog.js";
import { button, field, fill, h, icon, mayAct, moment, notice } from "../elements.js";
import { canRestore, organizationOf } from "../organization.js";
import { organizationFrame } from "./frames.js";

/** @import {Page, ViewContext} from "../page" */
/** @import {AuditEntry, ConfigValue, Organization, OrganizationAccepted} from "../types" */

const GRACE = "organization.deletion_grace_seconds";

/** @param {ViewContext} context */
export async function settings(context) {
  const { root, signal } = context;
  const org = await organizationOf(context);
  const isOwner = mayAct(org.role, "owner");
  fill(
    root,
    organizationFrame(org, "settings", context),
    isOwner
      ? h("div", { class: "stack narrow" }, access(org, context), await deletion(org, signal, root))
      : notice("plain", h("p", {}, "These settings require the role owner.")),
  );
}

/** @param {Organization} org @param {ViewContext} context */
function access(org, { root, signal, again }) {
  if (org.status !== "COMMITTED" && org.status !== "SUSPENDED") return null;
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  /** @param {"suspend" | "resume"} what */
  const change = async (what) => {
    await request("POST", `/v1/orgs/${org.id}/${what}`, { signal });
    again();
  };
  const suspend = () =>
    ask(
      root,
      { title: `Suspend ${org.name}?`, submit: "Suspend" },
      [h("p", {}, "Live chat ends for everybody within a second. Members can still read everything. An owner can resume the organization at any time.")],
      () => change("suspend"),
    );
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, icon("pause"), "Suspension"),
    org.status === "COMMITTED"
      ? [
          h("p", {}, "While an organization is suspended, its members can read everything. Changes and live chat are disabled."),
          h("div", { class: "form-actions" }, button({ label: "Suspend …", kind: "quiet", problems }, suspend)),
        ]
      : org.suspended_by === "owner"
        ? [
            h("p", {}, "The organization is suspended."),
            h("div", { class: "form-actions" }, button({ label: "Resume", problems }, () => change("resume"))),
          ]
        : h("p", {}, "The operator of this platform suspended the organization. Ask them to resume it."),
    problems,
  );
}

/** @param {Organization} org @param {AbortSignal} signal @param {HTMLElement} root */
async function deletion(org, signal, root) {
  const heading = h("h2", {}, icon("trash"), "Deletion");
  if (org.status === "DELETING") {
    const operation = await deletionOf(org, signal);
    return h(
      "section",
      { class: "panel" },
      heading,
      h("p", {}, canRestore(org) ? ["The organization is scheduled for deletion. All of its data will be removed at ", moment(org.delete_at ?? ""), "."] : "All of its data is being removed."),
      operation !== null &&
        h("p", {}, h("a", { class: "button quiet", href: address("operations", operation) }, h("span", {}, "Watch the deletion"), icon("forward"))),
    );
  }
  const held = org.status === "SUSPENDED" && org.suspended_by === "operator";
  const possible = (org.status === "COMMITTED" || org.status === "SUSPENDED") && !held;
  const grace = await graceIn(org, signal);
  const problems = h("div", { class: "problems" });
  const name = h("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false" });
  const remove = () => {
    name.value = "";
    ask(
      root,
      { title: `Delete ${org.name}?`, submit: "Delete organization" },
      [
        h("p", {}, `The organization is closed for everybody at once. ${afterGrace(grace)}`),
        field("Organization name, to confirm", name, `Type: ${org.name}`),
      ],
      async () => {
        const isName = name.value.trim() === org.name;
        name.setCustomValidity(isName ? "" : `The name does not match ${org.name}.`);
        if (!name.reportValidity()) return false;
        /** @type {{ data: OrganizationAccepted }} */
        const { data } = await request("DELETE", `/v1/orgs/${org.id}`, { signal });
        location.hash = address("operations", data.operation_id);
        return true;
      },
    );
  };
  name.addEventListener("input", () => name.setCustomValidity(""));
  return h(
    "section",
    { class: "panel" },
    heading,
    held
      ? h("p", {}, "An organization that the operator suspended cannot be deleted.")
      : h("p", {}, `A deleted organization is closed at once. ${afterGrace(grace)} You keep a certificate that all data was removed.`),
    possible && h("div", { class: "form-actions" }, button({ label: "Delete …", kind: "danger", problems }, remove)),
    problems,
  );
}

/** @param {number} seconds */
function afterGrace(seconds) {
  return seconds === 0
    ? "All of its data is then removed and cannot be restored."
    : `After ${spoken(seconds)} all of its data is removed; until then an owner can cancel the deletion.`;
}

/** @param {number} seconds @returns {string} in the largest unit that it is a whole number of */
function spoken(seconds) {
  /** @type {[number, string][]} */
  const units = [
    [86_400, "day"],
    [3600, "hour"],
    [60, "minute"],
    [1, "second"],
  ];
  const [size, unit] = units.find(([unitSeconds]) => seconds % unitSeconds === 0) ?? [1, "second"];
  const count = seconds / size;
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** How long a deletion can be canceled. @param {Organization} org @param {AbortSignal} signal @returns {Promise<number>} seconds */
async function graceIn(org, signal) {
  /** @type {{ data: ConfigValue }} */
  const { data } = await request("GET", `/v1/orgs/${org.id}/configs/${GRACE}`, { signal });
  return Number(data.value);
}

/**
 * The operation that deletes the organization: the log knows, the organization does not say.
 *
 * @param {Organization} org @param {AbortSignal} signal
 * @returns {Promise<string | null>}
 */
async function deletionOf(org, signal) {
  /** @type {{ data: Page<AuditEntry> }} */
  const { data } = await request("GET", `/v1/orgs/${org.id}/audit?action=organization.deletion_requested&limit=1`, { signal });
  const id = data.items[0]?.after?.["operation_id"];
  return typeof id === "string" ? id : null;
}

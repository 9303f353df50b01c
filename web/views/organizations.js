/** The organizations of the guest, and the two ways to get one: create it, or join it by a code. */

import { address } from "../addresses.js";
import { listAll, request } from "../api.js";
import { badge, emptyState, field, fill, form, h, humanize, icon, moment } from "../elements.js";

/** @import {ViewContext} from "../page" */
/** @import {Organization, OrganizationAccepted} from "../types" */

/** @param {ViewContext} context */
export async function organizations({ root, signal, me }) {
  /** @type {Organization[]} */
  const items = await listAll("/v1/orgs", signal);
  fill(
    root,
    h("div", { class: "head" }, h("h1", {}, "Your organizations"), h("p", { class: "lead" }, `Signed in as ${me.user.name}.`)),
    h(
      "div",
      { class: "split" },
      h(
        "section",
        { "aria-label": "Organizations" },
        items.length === 0
          ? emptyState("home", "No organizations yet", "Create one, or join one with an invitation code.")
          : h("ul", { class: "cards" }, items.map(card)),
      ),
      h("aside", { class: "stack" }, createForm(signal), joinForm(signal)),
    ),
  );
}

/** @type {Record<Organization["status"], [label: string, kind: string]>} */
const STATES = {
  PENDING: ["Being created", "warn"],
  COMMITTED: ["Ready", "good"],
  FAILED: ["Failed", "bad"],
  SUSPENDED: ["Suspended", "warn"],
  DELETING: ["Being deleted", "bad"],
};

/** @param {Organization} org */
function card(org) {
  return h(
    "li",
    { class: "card link" },
    h("h2", {}, h("a", { href: address("orgs", org.id) }, org.name)),
    h("p", { class: "fine" }, h("code", {}, org.slug)),
    h("p", { class: "meta" }, badge(humanize(org.role)), org.status !== "COMMITTED" && badge(...STATES[org.status]), when(org)),
  );
}

/** @param {Organization} org */
function when(org) {
  return h("span", { class: "fine" }, org.delete_at === null ? ["created ", moment(org.created_at)] : ["data removed at ", moment(org.delete_at)]);
}

/** @param {AbortSignal} signal */
function createForm(signal) {
  const name = h("input", { type: "text", required: true, maxlength: 80, autocomplete: "off", placeholder: "Northwind" });
  // One key for one request: pressing twice, or again after a lost answer, makes one organization.
  let key = randomKey();
  name.addEventListener("input", () => {
    key = randomKey();
  });
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, icon("plus"), "New organization"),
    form({ submit: "Create" }, [field("Name", name)], async () => {
      const { data } = /** @type {{ data: OrganizationAccepted }} */ (
        await request("POST", "/v1/orgs", { json: { name: name.value }, idempotencyKey: key, signal })
      );
      location.hash = address("operations", data.operation_id);
    }),
  );
}

/** A key that nobody else has. `crypto.randomUUID` is missing where the page is served over plain http. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {AbortSignal} signal */
function joinForm(signal) {
  const code = h("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false", class: "mono" });
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, icon("enter"), "Join with an invitation code"),
    form({ submit: "Join" }, [field("Invitation code", code)], async () => {
      const { data } = /** @type {{ data: { org: Organization } }} */ (
        await request("POST", "/v1/invitations/accept", { json: { code: code.value.trim() }, signal })
      );
      location.hash = address("orgs", data.org.id);
    }),
  );
}

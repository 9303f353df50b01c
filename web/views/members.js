/** Who belongs to an organization, and the codes by which people join. */

import { listAll, request } from "../api.js";
import { badge, button, field, fill, form, h, humanize, icon, mayAct, moment, notice, rolesUpTo } from "../elements.js";
import { loadOrganization, organizationFrame } from "./frames.js";

/** @import {Invitation, InvitationCreated, Member, Organization, ViewContext} from "../types" */

/** @type {[label: string, seconds: number][]} */
const LIFETIMES = [
  ["an hour", 3600],
  ["a day", 86_400],
  ["a week", 604_800],
];

/** @param {ViewContext} context */
export async function members({ root, params, signal, me }) {
  const org = await loadOrganization(params["org"] ?? "", signal);
  /** @type {Member[]} */
  const people = await listAll(`/v1/orgs/${org.id}/members`, signal);
  const canInvite = mayAct(org.role, "admin") && org.status === "COMMITTED";
  fill(
    root,
    organizationFrame(org, "members"),
    h(
      "div",
      { class: canInvite ? "split" : "" },
      h(
        "section",
        { class: "panel" },
        h("h2", {}, icon("people"), "Members"),
        h("ul", { class: "rows" }, people.map((member) => row(member, member.user.id === me.user.id))),
      ),
      canInvite && h("aside", {}, await invitations(org, signal)),
    ),
  );
}

/** @param {Member} member @param {boolean} self */
function row(member, self) {
  return h(
    "li",
    {},
    h("span", { class: "grow" }, icon("person"), member.user.key, self && h("span", { class: "fine" }, "you")),
    badge(humanize(member.role)),
    h("span", { class: "fine" }, "joined ", moment(member.joined_at)),
  );
}

/** @param {Organization} org @param {AbortSignal} signal */
async function invitations(org, signal) {
  const path = `/v1/orgs/${org.id}/invitations`;
  const list = h("ul", { class: "rows" });
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  const fresh = h("div", { "aria-live": "polite" });

  const refresh = async () => {
    /** @type {Invitation[]} */
    const items = await listAll(path, signal);
    fill(
      list,
      items.map((invitation) =>
        h(
          "li",
          {},
          h("span", { class: "grow" }, `As ${invitation.role}`),
          // Where it was used or revoked, its end means nothing any more.
          invitation.status === "OPEN" && h("span", { class: "fine" }, "expires ", moment(invitation.expires_at)),
          invitation.status === "EXPIRED" && h("span", { class: "fine" }, "expired ", moment(invitation.expires_at)),
          badge(humanize(invitation.status), invitation.status === "OPEN" ? "good" : "plain"),
          invitation.status === "OPEN"
            ? button({ label: "Revoke", kind: "quiet", problems, name: `Revoke the invitation as ${invitation.role}` }, async () => {
                await request("DELETE", `${path}/${invitation.id}`, { signal });
                fill(fresh);
                await refresh();
              })
            : null,
        ),
      ),
      items.length === 0 && h("li", { class: "fine" }, "No invitation yet."),
    );
  };

  const role = h(
    "select",
    {},
    rolesUpTo(org.role).map((name) => h("option", { value: name, selected: name === "member" }, humanize(name))),
  );
  const lifetime = h(
    "select",
    {},
    LIFETIMES.map(([label, seconds]) => h("option", { value: seconds, selected: seconds === 86_400 }, label)),
  );
  await refresh();
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, icon("enter"), "Invite somebody"),
    form({ submit: "Make a code" }, [field("Role", role), field("Valid for", lifetime)], async () => {
      /** @type {{ data: InvitationCreated }} */
      const { data } = await request("POST", path, {
        json: { role: role.value, expires_in_seconds: Number(lifetime.value) },
        signal,
      });
      fill(fresh, codeBox(data.code));
      await refresh();
    }),
    fresh,
    h("h3", {}, "Invitations"),
    list,
    problems,
  );
}

/** @param {string} code */
function codeBox(code) {
  const output = h("input", { type: "text", readonly: true, value: code, class: "mono", "aria-label": "Invitation code" });
  const problems = h("div", { class: "problems" });
  const said = h("span", { class: "fine", "aria-live": "polite" });
  const copy = button({ label: "Copy", icon: "copy", kind: "quiet", problems }, async () => {
    output.select();
    try {
      await navigator.clipboard.writeText(code);
      fill(said, "Copied.");
    } catch {
      // No permission, or not a secure context: the text is selected, the keyboard does the rest.
      fill(said, "Selected. Press Ctrl+C to copy.");
    }
  });
  return notice(
    "good",
    h("p", {}, "Works once, for one person. It is shown only now."),
    h("div", { class: "code-line" }, output, copy),
    said,
    problems,
  );
}

/** Who belongs to an organization and what they may do in it, and the codes by which people join. */

import { listAll, request } from "../api.js";
import { ask } from "../dialog.js";
import { badge, button, field, fill, form, h, humanize, icon, mayAct, moment, notice, rolesUpTo } from "../elements.js";
import { isOpen, organizationOf } from "../organization.js";
import { organizationFrame } from "./frames.js";

/** @import {ViewContext} from "../page" */
/** @import {Invitation, InvitationCreated, Member, Organization} from "../types" */

/** @type {[label: string, seconds: number][]} */
const LIFETIMES = [
  ["an hour", 3600],
  ["a day", 86_400],
  ["a week", 604_800],
];

/** @param {ViewContext} context */
export async function members(context) {
  const { root, signal, me } = context;
  const org = await organizationOf(context);
  const path = `/v1/orgs/${org.id}/members`;
  const canManage = mayAct(org.role, "admin") && isOpen(org);
  const heading = h("h2", { tabindex: -1 }, icon("people"), "Members");
  const list = h("ul", { class: "rows" });
  const heirs = h("div", { class: "stack" });
  /** @type {Map<string, Member>} */
  const people = new Map();
  /** @type {Map<string, HTMLElement>} */
  const rows = new Map();

  /** One row alone, so that what was begun or refused in another one stays. @param {Member} member */
  const draw = (member) => {
    const { id } = member.user;
    const element = id === me.user.id ? own(member) : other(member);
    const before = rows.get(id);
    if (before === undefined) list.append(element);
    else before.replaceWith(element);
    rows.set(id, element);
    people.set(id, member);
  };

  const drawHeirs = () => {
    const others = [...people.values()].filter((member) => member.user.id !== me.user.id);
    fill(heirs, isOpen(org) && mayAct(org.role, "owner") && others.length > 0 && handOver(others));
  };

  /** @param {Member} member */
  const isOnlyOwner = (member) => member.role === "owner" && [...people.values()].every(({ user, role }) => role !== "owner" || user.id === member.user.id);

  /** @param {Member} member */
  const own = (member) => {
    const leave = () =>
      ask(
        root,
        { title: `Leave ${org.name}?`, submit: "Leave" },
        [
          h("p", {}, "You lose access at once, and the invitations you created are revoked. To rejoin, you need a new invitation code."),
          isOnlyOwner(member) && h("p", {}, "You are the only owner. Hand over the ownership first."),
        ],
        async () => {
          await request("DELETE", `${path}/${me.user.id}`, { signal });
          location.hash = "#/";
        },
      );
    return row(member, "you", isOpen(org) && { label: "Leave", name: `Leave ${org.name}`, task: leave });
  };

  /** @param {Member} member */
  const other = (member) => {
    const remove = () =>
      ask(
        root,
        { title: `Remove ${member.user.name}?`, submit: "Remove" },
        [h("p", {}, `${member.user.name} loses access to ${org.name} within a second, and the invitations they created are revoked. To rejoin, they need a new invitation code.`)],
        async () => {
          await request("DELETE", `${path}/${member.user.id}`, { signal });
          rows.get(member.user.id)?.remove();
          people.delete(member.user.id);
          drawHeirs();
          heading.focus();
        },
      );
    return row(member, "", canManage && mayAct(org.role, member.role) && { label: "Remove", name: `Remove ${member.user.name}`, task: remove });
  };

  /**
   * @param {Member} member @param {string} remark
   * @param {{ label: string, name: string, task: () => void } | false} end
   */
  const row = (member, remark, end) => {
    const problems = h("div", { class: "problems", "aria-live": "polite" });
    return h(
      "li",
      { "data-user": member.user.name },
      h("span", { class: "grow" }, icon("person"), member.user.name, remark !== "" && h("span", { class: "fine" }, remark)),
      h("span", { class: "fine" }, "joined ", moment(member.joined_at)),
      canManage && mayAct(org.role, member.role) ? roleOf(member, problems) : badge(humanize(member.role)),
      end !== false && button({ ...end, kind: "quiet", problems }, end.task),
      problems,
    );
  };

  /**
   * A choice that is made by a button of its own: arrow keys go through it without giving anybody anything.
   *
   * @param {Member} member @param {HTMLElement} problems
   */
  const roleOf = (member, problems) => {
    const select = h(
      "select",
      { class: "small", "aria-label": `Role of ${member.user.name}` },
      rolesUpTo(org.role).map((name) => h("option", { value: name, selected: name === member.role }, humanize(name))),
    );
    const save = button({ label: "Change", problems, name: `Change the role of ${member.user.name}` }, async () => {
      /** @type {{ data: Member }} */
      const { data } = await request("PATCH", `${path}/${member.user.id}`, { json: { role: select.value }, signal });
      if (member.user.id === me.user.id) {
        context.again();
        return;
      }
      draw(data);
      drawHeirs();
      rows.get(member.user.id)?.querySelector("select")?.focus();
    });
    save.classList.add("small");
    save.hidden = true;
    select.addEventListener("change", () => {
      save.hidden = select.value === member.role;
    });
    return [select, save];
  };

  /** @param {Member[]} others */
  const handOver = (others) => {
    const heir = h("select", {}, others.map((member) => h("option", { value: member.user.id }, `${member.user.name} (${member.role})`)));
    return h(
      "section",
      { class: "panel" },
      h("h2", {}, icon("key"), "Hand over"),
      h("p", { class: "fine" }, "Another member becomes an owner of the organization, and you become an admin."),
      form({ submit: "Hand over …", kind: "quiet" }, [field("New owner", heir)], async () => {
        const member = others.find(({ user }) => user.id === heir.value);
        if (member === undefined) return;
        ask(
          root,
          { title: `Hand ${org.name} over to ${member.user.name}?`, submit: "Hand over" },
          [h("p", {}, `${member.user.name} owns it from now on, and may suspend and delete it. You become an admin, and cannot take it back yourself.`)],
          async () => {
            await request("POST", `/v1/orgs/${org.id}/transfer`, { json: { user_id: member.user.id }, signal });
            context.again();
          },
        );
      }),
    );
  };

  for (const member of /** @type {Member[]} */ (await listAll(path, signal))) draw(member);
  drawHeirs();
  fill(
    root,
    organizationFrame(org, "members", context),
    h(
      "div",
      { class: canManage ? "split" : "" },
      h("section", { class: "panel" }, heading, list),
      canManage && h("aside", { class: "stack" }, await invitations(org, signal), heirs),
    ),
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
          // The expiry of a used or revoked invitation has no meaning.
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
      items.length === 0 && h("li", { class: "fine" }, "No invitations yet."),
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
    form({ submit: "Create code" }, [field("Role", role), field("Valid for", lifetime)], async () => {
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
    h("p", {}, "The code works once, for one person. It is shown only now."),
    h("div", { class: "code-line" }, output, copy),
    said,
    problems,
  );
}

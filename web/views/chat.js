/**
 * A project's chat: buttons for the canned actions, what everybody presses as it happens, and how often.
 *
 * One session for one open window. It is closed when the view is left, and when the page is (by a request that
 * outlives it), so that a closed window does not count against the limit.
 */

import { ApiProblem, isAbort, isClosure, request } from "../api.js";
import { button, emptyState, fill, h, humanize, icon, mayAct, moment, notice, problemBox } from "../elements.js";
import { lost } from "../session.js";
import { follow } from "../stream.js";
import { isClosed, organizationOf } from "../organization.js";
import { loadProject, projectFrame } from "./frames.js";

/** @import {ViewContext} from "../page" */
/** @import {ChatActionEvent, ChatCounters, ChatPressAccepted, ChatSession, ChatSessionClosedEvent} from "../types" */
/** @import {StreamState} from "../stream.js" */

const FEED_LENGTH = 100;

/** @type {Record<StreamState, string>} */
const STATES = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", ended: "Ended" };

/** @type {Record<ChatSessionClosedEvent["reason"], string>} */
const REASONS = {
  replaced: "This window was replaced by a newer one.",
  closed: "The chat session of this window was closed.",
  expired: "The chat session of this window has expired.",
};

/** @param {ViewContext} context */
export async function chat(context) {
  const { root, params, signal, me } = context;
  const [org, project] = await Promise.all([
    organizationOf(context),
    loadProject(params["org"] ?? "", params["project"] ?? "", signal),
  ]);
  if (isClosed(org)) {
    const nothing = emptyState("pause", "Chat is disabled", "It becomes available again when the organization is active.");
    fill(root, projectFrame(org, project, "chat", context), nothing);
    return;
  }
  const path = `/v1/orgs/${org.id}/projects/${project.id}/chat`;
  const canPress = mayAct(org.role, "member");

  const pads = h("div", { class: "pads" });
  const padProblems = h("div", { class: "problems", "aria-live": "polite" });
  const status = h("span", { class: "live", "aria-live": "polite" });
  const banner = h("div", { class: "banner", "aria-live": "assertive" });
  const feed = h("ol", {});
  const nothing = emptyState("chat", "No actions yet", canPress ? "Press a button. Everybody in this project sees it at once." : "Actions that others press appear here.");
  const sum = h("span", { class: "fine" });

  /** @type {Map<string, number>} */
  let counts = new Map();
  /** @type {Map<string, HTMLElement>} */
  const countOf = new Map();
  /** Events seen, so that what the answer of a press told already is not counted again. */
  /** @type {Set<string>} */
  const seen = new Set();

  fill(
    root,
    projectFrame(org, project, "chat", context),
    banner,
    h(
      "div",
      { class: "chat" },
      h(
        "section",
        { class: "panel", "aria-labelledby": "pads-title" },
        h("div", { class: "panel-head" }, h("h2", { id: "pads-title" }, "Actions"), sum),
        pads,
        !canPress && h("p", { class: "fine" }, "Pressing actions requires the role member."),
        padProblems,
      ),
      h(
        "section",
        { class: "panel", "aria-labelledby": "feed-title" },
        h("div", { class: "panel-head" }, h("h2", { id: "feed-title" }, "Live"), status),
        nothing,
        h("div", { class: "feed", role: "log", "aria-live": "polite", "aria-label": "Live actions", tabindex: 0 }, feed),
      ),
    ),
  );

  const drawCounts = () => {
    let total = 0;
    for (const count of counts.values()) total += count;
    fill(sum, total === 1 ? "1 action" : `${total} actions`);
    for (const [action, element] of countOf) fill(element, counts.get(action) ?? 0);
  };

  const readCounts = async () => {
    try {
      /** @type {{ data: ChatCounters }} */
      const { data } = await request("GET", `${path}/counters`, { signal });
      counts = new Map(data.items.map((item) => [item.action, item.count]));
      drawCounts();
    } catch (error) {
      if (!isAbort(error)) fill(padProblems, problemBox(error));
    }
  };

  /** @param {ChatActionEvent} event */
  const onAction = (event) => {
    if (seen.has(event.id)) return;
    seen.add(event.id);
    counts.set(event.action, (counts.get(event.action) ?? 0) + 1);
    drawCounts();
    nothing.hidden = true;
    const own = event.user.id === me.user.id;
    feed.prepend(
      h(
        "li",
        { class: own ? "own" : "", "data-action": event.action },
        h("span", { class: "feed-mark" }, icon(event.action)),
        h("span", { class: "grow" }, h("strong", {}, own ? "You" : event.user.name), " ", h("span", {}, humanize(event.action))),
        moment(event.at),
      ),
    );
    while (feed.children.length > FEED_LENGTH) feed.lastElementChild?.remove();
  };

  /** @param {StreamState} state */
  const drawState = (state) => {
    status.dataset["state"] = state;
    fill(status, h("span", { class: "live-dot" }), STATES[state]);
  };

  /** @param {ChatSession} session */
  const drawPads = (session) => {
    countOf.clear();
    fill(
      pads,
      session.actions.map((action) => {
        const count = h("span", { class: "pad-count" }, 0);
        countOf.set(action, count);
        const pad = h(
          "button",
          { type: "button", class: "pad", "data-action": action, disabled: !canPress },
          icon(action),
          h("span", { class: "pad-label" }, humanize(action)),
          count,
        );
        pad.addEventListener("click", () => void press(session, action, pad));
        return pad;
      }),
    );
    drawCounts();
  };

  /** @param {ChatSession} session @param {string} action @param {HTMLElement} pad */
  const press = async (session, action, pad) => {
    fill(padProblems);
    pad.classList.add("pressed");
    setTimeout(() => pad.classList.remove("pressed"), 180);
    try {
      await /** @type {Promise<{ data: ChatPressAccepted }>} */ (
        request("POST", `${path}/sessions/${session.id}/actions`, { json: { action }, signal })
      );
    } catch (error) {
      if (isAbort(error)) return;
      if (error instanceof ApiProblem && error.problem.status === 401) lost();
      else fill(padProblems, problemBox(error));
    }
  };

  /** @param {string} text */
  const stop = (text) => {
    drawState("ended");
    for (const pad of pads.querySelectorAll("button")) pad.disabled = true;
    const problems = h("div", { class: "problems" });
    fill(
      banner,
      h(
        "div",
        { class: "notice warn", role: "alert" },
        h("p", { class: "notice-title" }, text),
        h("p", {}, "New actions no longer appear here."),
        button({ label: "Use this window again", problems }, open),
        problems,
      ),
    );
  };

  const open = async () => {
    /** @type {{ data: ChatSession }} */
    const { data: session } = await request("POST", `${path}/sessions`, { json: {}, signal });
    fill(banner, session.closed_session_id !== null && notice("plain", h("p", {}, "You had too many chat windows open in this project, so the oldest one was closed.")));
    drawPads(session);
    let over = false;

    const stream = follow(`${path}/sessions/${session.id}/events`, {
      signal,
      events: {
        "chat.action": onAction,
        "chat.session-closed": (/** @type {ChatSessionClosedEvent} */ event) => {
          if (event.session_id !== session.id) return;
          over = true;
          stream.close();
          stop(REASONS[event.reason]);
        },
      },
      onState: (state) => {
        if (signal.aborted) return;
        if (state === "ended" && !over) {
          over = true;
          stop(REASONS.closed);
        }
        drawState(state);
      },
      onReset: () => void readCounts(),
      onProblem: (problem) => {
        over = true;
        if (problem.problem.status === 401) lost();
        // Of a closed organization the view itself tells, drawn anew.
        else if (!isClosure(problem)) fill(banner, problemBox(problem));
      },
    });

    const leave = () => {
      if (over) return;
      over = true;
      stream.close();
      // The view's own signal is aborted by now, and the page may be gone before the answer comes.
      request("DELETE", `${path}/sessions/${session.id}`, { keepalive: true }).catch(() => undefined);
    };
    signal.addEventListener("abort", leave, { once: true });
    addEventListener("pagehide", leave, { signal });
    // After the stream has begun, so that no press falls between the two; one that falls into both is rare and
    // put right by the next reading.
    await readCounts();
  };

  try {
    await open();
  } catch (error) {
    if (isAbort(error) || !(error instanceof ApiProblem)) throw error;
    if (error.problem.code !== "chat_session_limit") throw error;
    const problems = h("div", { class: "problems" });
    fill(banner, problemBox(error), button({ label: "Try again", problems }, open), problems);
  }
}

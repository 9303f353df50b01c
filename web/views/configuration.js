/**
 * The configuration of an organization or a project: what is in force and why, changes with a reason, and how far
 * each change has come.
 *
 * Events carry revisions, never values: on each one the list is read again. An editor that is open stays open.
 */

import { ApiProblem, isAbort, isClosure, listAll, request } from "../api.js";
import { badge, button, field, fill, form, h, icon, mayAct, moment, problemBox } from "../elements.js";
import { lost } from "../session.js";
import { follow } from "../stream.js";
import { isClosed, isOpen, organizationOf } from "../organization.js";
import { loadProject, organizationFrame, projectFrame } from "./frames.js";
import { editorFor, plain } from "./value-editor.js";

/** @import {ViewContext} from "../page" */
/** @import {ConfigChange, ConfigEntry, ConfigExplanation, ConfigList, ConfigScope, ConfigStatus, ConfigValue} from "../types" */

/** @type {Record<ConfigValue["source"], string>} */
const SOURCES = { builtin: "Built in", default: "Default", organization: "Organization", project: "Project" };

/** How long to wait for the processes before the status is read again, and how often. */
const STATUS_WAITS_MS = [150, 400, 1000, 2000, 5000];

/** @param {ViewContext} context */
export async function configuration(context) {
  const { root, params, signal } = context;
  const org = await organizationOf(context);
  const project = params["project"] === undefined ? null : await loadProject(org.id, params["project"], signal);
  /** @type {ConfigScope} */
  const scope = project === null ? "organization" : "project";
  const base = project === null ? `/v1/orgs/${org.id}/configs` : `/v1/orgs/${org.id}/projects/${project.id}/configs`;
  const canChange = mayAct(org.role, "admin") && isOpen(org);

  const rollout = h("div", { class: "rollout", role: "status" });
  const mine = h("ul", { class: "settings" });
  const operators = h("ul", { class: "settings" });
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  /** @type {Map<string, (value: ConfigValue, changed: boolean) => void>} */
  const redraw = new Map();
  /** @type {Map<string, string>} */
  const shown = new Map();
  let revision = 0;
  /** @param {ConfigValue} value */
  const isOurs = (value) => value.set_by === "admin" && value.scopes.includes(scope);

  /** @param {ConfigList} list */
  const draw = (list) => {
    const first = shown.size === 0;
    revision = list.revision;
    for (const value of list.items) {
      let update = redraw.get(value.key);
      if (update === undefined) {
        const item = h("li", { class: "setting", "data-key": value.key });
        (isOurs(value) ? mine : operators).append(item);
        update = setting(item);
        redraw.set(value.key, update);
      }
      const text = JSON.stringify([value.value, value.source]);
      update(value, !first && shown.get(value.key) !== text);
      shown.set(value.key, text);
    }
  };

  const read = async () => {
    /** @type {{ data: ConfigList }} */
    const { data } = await request("GET", base, { signal });
    draw(data);
  };

  let readings = 0;
  const readStatus = async () => {
    // The latest call wins; an older one that still waits gives up.
    const turn = ++readings;
    for (const wait of STATUS_WAITS_MS) {
      /** @type {{ data: ConfigStatus }} */
      const { data } = await request("GET", `/v1/orgs/${org.id}/configs/status`, { signal });
      if (turn !== readings) return;
      drawRollout(rollout, data);
      if (isDone(data)) return;
      await pause(wait, signal);
      if (turn !== readings) return;
    }
  };

  /** @param {unknown} error */
  const complain = (error) => {
    // Of a closed organization the view itself tells, drawn anew.
    if (isAbort(error) || isClosure(error)) return;
    if (error instanceof ApiProblem && error.problem.status === 401) lost();
    else fill(problems, problemBox(error));
  };

  /** @param {number} [least] what must be shown at least; our own change is shown already when its event comes */
  const refresh = async (least = Infinity) => {
    try {
      if (least > revision) await read();
      await readStatus();
    } catch (error) {
      complain(error);
    }
  };

  /**
   * One key. The value and the tools are drawn apart, so that a change by somebody else does not close an editor.
   *
   * @param {HTMLElement} item
   * @returns {(value: ConfigValue, changed: boolean) => void}
   */
  const setting = (item) => {
    const head = h("div", { class: "setting-head" });
    const tools = h("div", { class: "setting-tools" });
    const open = h("div", { class: "setting-open" });
    item.append(head, tools, open);
    let drawn = "";
    /** @type {ConfigValue | undefined} */
    let now;
    /** @type {string} */
    let shows = "";

    /** @param {string} what @param {() => Promise<Node> | Node} make */
    const toggle = async (what, make) => {
      shows = shows === what ? "" : what;
      for (const tool of tools.querySelectorAll("button")) {
        tool.setAttribute("aria-expanded", String(tool.dataset["what"] === shows));
      }
      fill(open);
      if (shows === what) {
        const made = await make();
        if (shows === what) fill(open, made);
      }
    };

    /** @param {string} label @param {string} what @param {() => Promise<Node> | Node} make */
    const tool = (label, what, make) => {
      const key = now?.key ?? "";
      const element = button({ label, kind: "quiet", problems, name: `${label}: ${key}` }, () => toggle(what, make));
      element.dataset["what"] = what;
      element.setAttribute("aria-expanded", "false");
      return element;
    };

    return (value, changed) => {
      now = value;
      fill(
        head,
        h("div", { class: "grow" }, h("h2", {}, h("code", {}, value.key)), h("p", { class: "fine" }, value.description)),
        h("div", { class: "setting-value" }, h("output", {}, plain(value.value)), badge(SOURCES[value.source] ?? value.source, value.source === scope ? "accent" : "plain")),
      );
      const settable = canChange && isOurs(value);
      if (drawn !== value.key) {
        drawn = value.key;
        fill(
          tools,
          settable && tool("Change", "change", () => editor(/** @type {ConfigValue} */ (now), () => toggle("change", () => h("div")))),
          tool("Why", "why", () => layers(value.key)),
          tool("History", "history", () => history(value.key)),
        );
      }
      if (changed) {
        item.classList.remove("changed");
        // Restarts the highlight when a second change follows at once.
        void item.offsetWidth;
        item.classList.add("changed");
      }
    };
  };

  /** @param {ConfigValue} value @param {() => Promise<void>} close */
  const editor = (value, close) => {
    const edit = editorFor(value);
    const reason = h("input", { type: "text", required: true, maxlength: 500, autocomplete: "off" });
    /** @type {string} the revision that the person saw when the editor was opened */
    let seen = `"${revision}"`;
    const failed = h("div", { class: "problems", "aria-live": "polite" });

    /** @param {() => Promise<unknown>} task */
    const attempt = async (task) => {
      try {
        await task();
      } catch (error) {
        if (!(error instanceof ApiProblem) || error.problem.code !== "precondition_failed") throw error;
        await read();
        seen = `"${revision}"`;
        throw new ApiProblem({
          ...error.problem,
          title: "Changed by somebody else",
          detail: "The configuration has changed since you read it. The current value is shown above; save again to replace it.",
        });
      }
      await close();
      void refresh();
    };

    const back = button({ label: "Use the inherited value", kind: "quiet", problems: failed }, async () => {
      if (!reason.reportValidity()) return;
      const why = encodeURIComponent(reason.value);
      await attempt(() => request("DELETE", `${base}/${value.key}?reason=${why}`, { ifMatch: seen, signal }));
    });
    return h(
      "div",
      {},
      form(
        { submit: "Save", class: "editor", extra: [value.source === scope && back] },
        [edit.element, field("Reason", reason, "Recorded in the history with your name.")],
        () =>
          attempt(() => {
            const json = { value: edit.read(), reason: reason.value };
            return /** @type {Promise<{ data: ConfigEntry }>} */ (
              request("PUT", `${base}/${value.key}`, { json, ifMatch: seen, signal })
            );
          }),
      ),
      failed,
    );
  };

  /** @param {string} key */
  const layers = async (key) => {
    /** @type {{ data: ConfigExplanation }} */
    const { data } = await request("GET", `${base}/${key}/explain`, { signal });
    return h(
      "ol",
      { class: "layers", "aria-label": "Values by scope, widest first" },
      data.layers.map((layer) =>
        h(
          "li",
          { class: layer.source === data.source ? "wins" : "" },
          h("span", {}, SOURCES[layer.source] ?? layer.source),
          layer.set ? h("output", {}, plain(layer.value)) : h("span", { class: "fine" }, "not set"),
          layer.source === data.source && badge("In effect", "accent"),
        ),
      ),
    );
  };

  /** @param {string} key */
  const history = async (key) => {
    /** @type {ConfigChange[]} */
    const items = await listAll(`${base}/${key}/history`, signal);
    if (items.length === 0) return h("p", { class: "fine" }, "No changes at this scope.");
    return h(
      "ol",
      { class: "history" },
      items.map((change) =>
        h(
          "li",
          {},
          h("span", { class: "history-revision" }, change.revision),
          h(
            "div",
            {},
            h(
              "p",
              {},
              h("output", {}, change.old_value === null ? "not set" : plain(change.old_value)),
              " → ",
              h("output", {}, change.action === "unset" ? "not set" : plain(change.new_value)),
              " ",
              badge(SOURCES[change.scope]),
            ),
            h("p", {}, change.reason),
            h("p", { class: "fine" }, change.author?.name ?? change.api_key ?? "operator", " · ", moment(change.changed_at)),
          ),
        ),
      ),
    );
  };

  await read();
  readStatus().catch(complain);
  fill(
    root,
    project === null ? organizationFrame(org, "configuration", context) : projectFrame(org, project, "configuration", context),
    rollout,
    problems,
    h("section", { class: "panel flush", "aria-label": "Configuration keys" }, mine),
    operators.childElementCount > 0 &&
      h(
        "details",
        { class: "panel flush" },
        h("summary", {}, "Set by the operator", h("span", { class: "fine" }, ` ${operators.childElementCount} keys`)),
        operators,
      ),
    !mayAct(org.role, "admin") && h("p", { class: "fine" }, "Changing the configuration requires the role admin."),
  );
  if (isClosed(org)) return;

  follow(`/v1/orgs/${org.id}/configs/events`, {
    signal,
    events: {
      "config.changed": (/** @type {{ revision: number }} */ event) => void refresh(event.revision),
    },
    onReset: () => void refresh(),
    onState: (state) => {
      rollout.dataset["state"] = state;
    },
    onProblem: complain,
  });
}

/**
 * Whether no process is behind. One that has never needed this organization reads the newest when it does.
 *
 * @param {ConfigStatus} status
 */
function isDone({ processes, revision }) {
  return processes.every((process) => process.revision === null || process.revision >= revision);
}

/** @param {HTMLElement} element @param {ConfigStatus} status */
function drawRollout(element, status) {
  const done = isDone(status);
  const lags = status.processes.flatMap((process) => process.lag_ms ?? []);
  const slowest = lags.length === 0 ? null : Math.max(...lags);
  fill(
    element,
    h("span", { class: done ? "rollout-mark done" : "rollout-mark" }, icon(done ? "check" : "running")),
    h(
      "p",
      { class: "grow" },
      h("strong", {}, `${status.applied}/${status.total} processes at revision ${status.revision}`),
      done && slowest !== null && h("span", { class: "fine" }, ` slowest after ${Math.round(slowest * 10) / 10} ms`),
    ),
    h(
      "details",
      { class: "processes" },
      h("summary", {}, "Processes"),
      h(
        "ul",
        { class: "rows" },
        status.processes.map((process) =>
          h(
            "li",
            {},
            h("code", { class: "grow" }, process.process),
            h("span", {}, process.revision === null ? "not needed yet" : `at revision ${process.revision}`),
            process.lag_ms !== null && h("span", { class: "fine" }, `${Math.round(process.lag_ms * 10) / 10} ms`),
          ),
        ),
      ),
    ),
  );
}

/** @param {number} ms @param {AbortSignal} signal */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve(undefined);
    });
  });
}

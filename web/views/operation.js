/**
 * The creation or the deletion of an organization, step by step, as it happens. A purge takes the record of its steps
 * with it: what is shown then is its certificate.
 */

import { address } from "../addresses.js";
import { ApiProblem, request } from "../api.js";
import { button, fact, fill, h, humanize, icon, mayAct, moment, notice, problemBox } from "../elements.js";
import { canRestore } from "../organization.js";
import { follow } from "../stream.js";

/** @import {ViewContext} from "../page" */
/** @import {DeletionCertificate, Operation, OperationFinishedEvent, OperationStepEvent, OperationStepStatus, Organization} from "../types" */
/** @import {Child} from "../elements.js" */

/** @type {Record<OperationStepStatus, { icon: string, text: string }>} */
const LOOKS = {
  PENDING: { icon: "dot", text: "Waiting" },
  RUNNING: { icon: "running", text: "Running" },
  DONE: { icon: "check", text: "Done" },
  FAILED: { icon: "cross", text: "Failed" },
  COMPENSATED: { icon: "rollback", text: "Compensated" },
};

/** Steps whose name alone does not say what they do. @type {Record<string, string>} */
const STEPS = {
  grace: "Grace period",
  forget: "Remove it from every process",
  purge: "Remove all data",
};

/** @type {Record<Operation["kind"], Record<Operation["status"], string>>} */
const STATES = {
  "organization.create": {
    PENDING: "Setting up. Each step appears as it happens.",
    COMPENSATING: "Failed. Completed steps are being undone.",
    COMMITTED: "Ready.",
    FAILED: "Failed. All completed steps were undone.",
  },
  "organization.delete": {
    PENDING: "The organization is closed and being deleted. Each step appears as it happens.",
    COMPENSATING: "The deletion is being undone.",
    COMMITTED: "Deleted. All data was removed.",
    FAILED: "Not deleted. The organization was restored.",
  },
};

/** @param {ViewContext} context */
export async function operation({ root, params, signal, again }) {
  const path = `/v1/operations/${params["operation"]}`;
  /** @type {{ data: Operation }} */
  const { data } = await request("GET", path, { signal });
  const deletes = data.kind === "organization.delete";
  const org = await organizationIn(data, signal);
  const name = org?.name ?? (deletes ? "Deleted organization" : "New organization");

  const heading = h("h1", {}, name);
  const state = h("p", { class: "lead", "aria-live": "polite" });
  const outcome = h("div", { class: "outcome", "aria-live": "polite" });
  const steps = h("ol", { class: "steps", "aria-label": "Steps" });
  /** @type {Map<string, HTMLElement>} */
  const rows = new Map();
  /** The step that failed: it is compensated, too, and would then look like the others. */
  let culprit = "";
  let tooLate = false;
  /** @param {string} step @param {OperationStepStatus} status @param {string | null} detail @param {number} attempts */
  const draw = (step, status, detail, attempts) => {
    let row = rows.get(step);
    if (row === undefined) {
      // The plan is not written yet when a fresh operation is read: steps appear as they come.
      row = h("li", {});
      rows.set(step, row);
      steps.append(row);
    }
    if (status === "FAILED") culprit = step;
    if (deletes && status === "DONE") {
      // The first step was the grace period: the deletion can no longer be canceled.
      tooLate = true;
      fill(outcome);
    }
    const cleaned = status === "COMPENSATED" && step === culprit;
    drawStep(row, step, cleaned ? "FAILED" : status, detail, attempts);
  };
  for (const step of data.steps) draw(step.name, step.status, step.detail, step.attempts);

  /** @param {Operation["status"]} status @param {Operation["failure"]} failure */
  const drawStatus = (status, failure) => {
    root.dataset["status"] = status;
    fill(state, STATES[data.kind][status]);
    if (!deletes && status === "PENDING") fill(outcome, whileItIsCreated(path, signal, again));
    else if (!deletes) fill(outcome, endOfCreation(status, failure, name, data.org_id));
    else if (status === "FAILED") fill(outcome, endOfDeletion(name, data.org_id));
    else if (status === "PENDING" && org !== null && !tooLate) fill(outcome, untilThePurge(org, signal, again));
    else fill(outcome);
  };

  /** @param {Operation} now */
  const drawAll = (now) => {
    for (const step of now.steps) draw(step.name, step.status, step.detail, step.attempts);
    drawStatus(now.status, now.failure);
    if (now.certificate !== undefined) fill(panel, certificate(now, now.certificate));
  };

  const panel = h("section", { class: "panel narrow" }, steps, outcome);
  fill(root, h("div", { class: "head" }, heading, state), panel);
  drawAll(data);
  if (data.finished_at !== null) return;

  const stream = follow(`${path}/events`, {
    signal,
    events: {
      "operation.step": (/** @type {OperationStepEvent} */ event) => {
        draw(event.step, event.status, event.detail, 0);
      },
      "operation.finished": (/** @type {OperationFinishedEvent} */ event) => {
        drawStatus(event.status, event.failure);
        stream.close();
        // Its certificate took the place of its steps.
        if (deletes && event.status === "COMMITTED") void refresh();
      },
    },
    // Finished between our read and our stream, or the stream lost its place: the resource knows.
    onReset: () => void refresh(),
    onState: (now) => {
      if (now === "ended" && root.dataset["status"] === "PENDING") void refresh();
    },
    onProblem: (problem) => fill(outcome, problemBox(problem)),
  });

  const refresh = async () => {
    if (signal.aborted) return;
    try {
      /** @type {{ data: Operation }} */
      const { data: now } = await request("GET", path, { signal });
      drawAll(now);
    } catch (error) {
      if (error instanceof ApiProblem) fill(outcome, problemBox(error));
    }
  };
}

/**
 * @param {HTMLElement} row @param {string} name @param {OperationStepStatus} status @param {string | null} detail
 * @param {number} attempts
 */
function drawStep(row, name, status, detail, attempts) {
  const look = LOOKS[status];
  row.dataset["status"] = status;
  fill(
    row,
    h("span", { class: "step-mark" }, icon(look.icon)),
    h(
      "div",
      {},
      h("span", { class: "step-name" }, STEPS[name] ?? humanize(name)),
      h("span", { class: "step-state" }, status === "RUNNING" && attempts > 1 ? `${look.text} · attempt ${attempts}` : look.text),
      detail !== null && h("p", { class: "fine" }, detail.charAt(0).toUpperCase() + detail.slice(1)),
    ),
  );
}

/** @param {string} path @param {AbortSignal} signal @param {() => void} again @returns {Child[]} */
function whileItIsCreated(path, signal, again) {
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  const cancel = button({ label: "Cancel", icon: "rollback", kind: "quiet", problems }, async () => {
    await request("POST", `${path}/cancel`, { signal });
    again();
  });
  // Mostly it is done before anybody could want that.
  return [h("div", { class: "form-actions late" }, cancel), problems];
}

/**
 * @param {Operation["status"]} status @param {Operation["failure"]} failure @param {string} name @param {string} org
 * @returns {Child[]}
 */
function endOfCreation(status, failure, name, org) {
  if (status === "COMMITTED") return [notice("good", h("p", {}, "The organization is ready.")), open(name, org)];
  if (status !== "FAILED") return [];
  return [
    h(
      "div",
      { class: "notice bad", role: "alert" },
      h("p", { class: "notice-title" }, "The organization was not created"),
      h("p", {}, failure?.detail ?? "No reason was recorded."),
      h("p", { class: "fine" }, "All completed steps were undone."),
    ),
    home(),
  ];
}

/** A deletion that was canceled. @param {string} name @param {string} org @returns {Child[]} */
function endOfDeletion(name, org) {
  return [notice("good", h("p", {}, `The deletion was canceled. ${name} was restored.`)), open(name, org)];
}

/** @param {Organization} org @param {AbortSignal} signal @param {() => void} again @returns {Child[]} */
function untilThePurge(org, signal, again) {
  if (!canRestore(org)) return [];
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  const restore = button({ label: "Cancel the deletion", icon: "rollback", kind: "quiet", problems }, async () => {
    await request("POST", `/v1/orgs/${org.id}/restore`, { signal });
    again();
  });
  return [
    notice("warn", h("p", {}, `All data of ${org.name} will be removed at `, moment(org.delete_at ?? ""), ". Until then members can read it, and an owner can cancel the deletion.")),
    h("div", { class: "form-actions" }, mayAct(org.role, "owner") && restore, h("a", { class: "button quiet", href: address("orgs", org.id) }, h("span", {}, `View ${org.name}`), icon("forward"))),
    problems,
  ];
}

/** The proof that nothing is left, for a person. @param {Operation} operation @param {DeletionCertificate} proof @returns {Child[]} */
function certificate({ id, org_id, created_at, finished_at }, { rows_removed, search, namespaces }) {
  const number = new Intl.NumberFormat();
  const tables = Object.entries(rows_removed).sort(([, a], [, b]) => b - a);
  const rows = tables.reduce((sum, [, count]) => sum + count, 0);
  return [
    h("h2", {}, icon("seal"), "Certificate of deletion"),
    h(
      "dl",
      { class: "facts" },
      fact("Organization", h("code", {}, org_id)),
      fact("Requested", moment(created_at)),
      finished_at !== null && fact("Data removed", moment(finished_at)),
      fact("Removed", `${number.format(rows)} rows from ${tables.length} tables`),
      fact("Found in PostgreSQL afterwards", `${search.rows_found} rows in ${search.tables} tables`),
      fact("Found in Redis afterwards", `${search.redis_traces_found} traces in ${number.format(search.redis_keys)} keys`),
      fact("In the cluster", namespaces.charAt(0).toUpperCase() + namespaces.slice(1)),
      fact("Operation", h("code", {}, id)),
    ),
    h(
      "details",
      {},
      h("summary", {}, "Rows removed, by table"),
      h("ul", { class: "rows" }, tables.map(([table, count]) => h("li", {}, h("code", { class: "grow" }, table), number.format(count)))),
    ),
    h("p", { class: "fine" }, "Only you can see this certificate, and only on this page. Save its address."),
    h("div", { class: "form-actions" }, home()),
  ];
}

/** @param {string} name @param {string} org */
function open(name, org) {
  return h("a", { class: "button primary", href: address("orgs", org) }, h("span", {}, `Open ${name}`), icon("forward"));
}

function home() {
  return h("a", { class: "button quiet", href: "#/" }, icon("back"), h("span", {}, "Your organizations"));
}

/**
 * The operation does not carry the name, and the organization may be gone: its creation failed, or it is deleted.
 *
 * @param {Operation} operation @param {AbortSignal} signal
 * @returns {Promise<Organization | null>}
 */
async function organizationIn({ org_id, certificate: proof }, signal) {
  if (proof !== undefined) return null;
  try {
    /** @type {{ data: Organization }} */
    const { data } = await request("GET", `/v1/orgs/${org_id}`, { signal });
    return data;
  } catch (error) {
    if (error instanceof ApiProblem && error.problem.status === 404) return null;
    throw error;
  }
}

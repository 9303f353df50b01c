/** The creation of an organization, step by step, as it happens. */

import { address } from "../addresses.js";
import { ApiProblem, request } from "../api.js";
import { fill, h, humanize, icon, notice, problemBox } from "../elements.js";
import { follow } from "../stream.js";

/** @import {Operation, OperationFinishedEvent, OperationStepEvent, Organization, StepStatus, ViewContext} from "../types" */

/** @type {Record<StepStatus, { icon: string, text: string }>} */
const LOOKS = {
  PENDING: { icon: "dot", text: "Waiting" },
  RUNNING: { icon: "running", text: "Running" },
  DONE: { icon: "check", text: "Done" },
  FAILED: { icon: "cross", text: "Failed" },
  COMPENSATED: { icon: "rollback", text: "Taken back" },
};

/** @param {ViewContext} context */
export async function operation({ root, params, signal }) {
  const path = `/v1/operations/${params["operation"]}`;
  /** @type {{ data: Operation }} */
  const { data } = await request("GET", path, { signal });
  const name = await nameOf(data.org_id, signal);

  const heading = h("h1", {}, name);
  const state = h("p", { class: "lead", "aria-live": "polite" });
  const outcome = h("div", { class: "outcome", "aria-live": "polite" });
  const steps = h("ol", { class: "steps", "aria-label": "Steps" });
  /** @type {Map<string, HTMLElement>} */
  const rows = new Map();
  /** The step that failed: it is taken back, too, and would look like the others then. */
  let culprit = "";
  /** @param {string} step @param {StepStatus} status @param {string | null} detail @param {number} attempts */
  const draw = (step, status, detail, attempts) => {
    let row = rows.get(step);
    if (row === undefined) {
      // The plan is not written yet when a fresh operation is read: steps appear as they come.
      row = h("li", {});
      rows.set(step, row);
      steps.append(row);
    }
    if (status === "FAILED") culprit = step;
    const cleaned = status === "COMPENSATED" && step === culprit;
    drawStep(row, step, cleaned ? "FAILED" : status, detail, attempts);
  };
  for (const step of data.steps) draw(step.name, step.status, step.detail, step.attempts);

  /** @param {Operation["status"]} status @param {Operation["failure"]} failure */
  const drawStatus = (status, failure) => {
    root.dataset["status"] = status;
    fill(state, stateText(status));
    if (status === "COMMITTED") {
      fill(
        outcome,
        notice("good", h("p", {}, "Everything is in place.")),
        h("a", { class: "button primary", href: address("orgs", data.org_id) }, h("span", {}, `Open ${name}`), icon("forward")),
      );
    } else if (status === "FAILED") {
      fill(
        outcome,
        h(
          "div",
          { class: "notice bad", role: "alert" },
          h("p", { class: "notice-title" }, "The organization was not created"),
          h("p", {}, failure?.detail ?? "No reason was recorded."),
          h("p", { class: "fine" }, "Every step that was done has been taken back."),
        ),
        h("a", { class: "button quiet", href: "#/" }, icon("back"), h("span", {}, "Your organizations")),
      );
    }
  };

  fill(root, h("div", { class: "head" }, heading, state), h("section", { class: "panel narrow" }, steps, outcome));
  drawStatus(data.status, data.failure);
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
      for (const step of now.steps) draw(step.name, step.status, step.detail, step.attempts);
      drawStatus(now.status, now.failure);
    } catch (error) {
      if (error instanceof ApiProblem) fill(outcome, problemBox(error));
    }
  };
}

/**
 * @param {HTMLElement} row @param {string} name @param {StepStatus} status @param {string | null} detail
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
      h("span", { class: "step-name" }, humanize(name)),
      h("span", { class: "step-state" }, status === "RUNNING" && attempts > 1 ? `${look.text} · attempt ${attempts}` : look.text),
      detail !== null && h("p", { class: "fine" }, detail.charAt(0).toUpperCase() + detail.slice(1)),
    ),
  );
}

/** @param {Operation["status"]} status */
function stateText(status) {
  return {
    PENDING: "Setting up. Each step appears as it happens.",
    COMPENSATING: "Something failed. What was done is being taken back.",
    COMMITTED: "Ready.",
    FAILED: "Failed, and cleaned up.",
  }[status];
}

/**
 * The operation does not carry the name, and the organization may be gone when its creation failed.
 *
 * @param {string} org @param {AbortSignal} signal
 */
async function nameOf(org, signal) {
  try {
    /** @type {{ data: Organization }} */
    const { data } = await request("GET", `/v1/orgs/${org}`, { signal });
    return data.name;
  } catch (error) {
    if (error instanceof ApiProblem && error.problem.status === 404) return "New organization";
    throw error;
  }
}

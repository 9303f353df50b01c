/**
 * The organization that a view is in: read for the view, and watched for as long as the view stands.
 *
 * Whether it is open, and what one may do in it, can change at any moment. The end of a stream tells of access that
 * ended, within a second; nothing tells of a role that grew, or of an organization that opened again. So it is read
 * again every few seconds while somebody looks, when they come back to the window, and at once when the API refuses
 * something. If it stands otherwise than when the view was drawn, the view is drawn anew.
 */

import { ApiProblem, isAbort, refusals, request } from "./api.js";
import { lost } from "./session.js";

/** @import {ViewContext} from "./page" */
/** @import {Organization} from "./types" */

const OPEN_MS = 15_000;
/** Nothing is live in one that is closed: this is all that shows that it opened again. */
const CLOSED_MS = 5_000;
/** Coming back to the window shortly after a look shows nothing new. */
const FRESH_MS = 1_000;

/**
 * @param {ViewContext} context
 * @returns {Promise<Organization>}
 */
export async function organizationOf(context) {
  const path = `/v1/orgs/${context.params["org"]}`;
  /** @type {{ data: Organization }} */
  const { data } = await request("GET", path, { signal: context.signal });
  watch(data, path, context);
  return data;
}

/** @param {Organization} org @returns {boolean} whether it can be worked in */
export function isOpen(org) {
  return org.status === "COMMITTED";
}

/** @param {Organization} org @returns {boolean} whether it is closed, and everything live in it has ended */
export function isClosed(org) {
  return org.status === "SUSPENDED" || org.status === "DELETING";
}

/** @param {Organization} org @returns {boolean} whether its deletion can still be canceled */
export function canRestore(org) {
  return org.status === "DELETING" && org.delete_at !== null && Date.parse(org.delete_at) > Date.now();
}

/** @param {Organization} org */
function shownState(org) {
  return JSON.stringify([org.status, org.suspended_by, org.delete_at, canRestore(org), org.role]);
}

/** @param {Organization} org @param {string} path @param {ViewContext} context */
function watch(org, path, { signal, again, end }) {
  const drawn = shownState(org);
  let lookedAt = performance.now();
  let looking = false;
  /** Refused while a look was under way, which may have begun before what the refusal is about. */
  let doubtful = false;
  /** @type {number | undefined} */
  let timer;

  const schedule = () => {
    clearTimeout(timer);
    // Spread, so that a thousand pages do not ask in the same instant.
    const wait = (isClosed(org) ? CLOSED_MS : OPEN_MS) * (0.75 + Math.random() / 2);
    timer = setTimeout(() => (document.hidden ? schedule() : void look()), wait);
  };

  const look = async () => {
    if (looking) {
      doubtful = true;
      return;
    }
    [looking, doubtful, lookedAt] = [true, false, performance.now()];
    try {
      /** @type {{ data: Organization }} */
      const { data } = await request("GET", path, { signal });
      if (shownState(data) !== drawn) {
        again();
        return;
      }
    } catch (error) {
      if (isAbort(error)) return;
      const status = error instanceof ApiProblem ? error.problem.status : 0;
      if (status === 404) {
        if (org.status === "DELETING" && !canRestore(org)) end(`${org.name} was deleted`, "The organization was deleted and all of its data was removed.");
        else end(`You no longer have access to ${org.name}`, "You are no longer a member of this organization, or it was deleted.");
        return;
      }
      if (status === 401) {
        lost();
        return;
      }
      // Not reachable just now: the next look tells.
    } finally {
      looking = false;
    }
    if (doubtful) void look();
    else schedule();
  };

  const back = () => {
    if (!document.hidden && performance.now() - lookedAt > FRESH_MS) void look();
  };
  refusals.addEventListener("refusal", () => void look(), { signal });
  document.addEventListener("visibilitychange", back, { signal });
  addEventListener("focus", back, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  schedule();
}

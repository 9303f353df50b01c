/**
 * Who is signed in here.
 *
 * The token itself is in an HttpOnly cookie. What the page remembers is only who it was and until when, so that a
 * visitor who never signed in is not answered with a needless 401, and so that other windows follow along. "Until
 * when" is counted from the moment of the sign-in by this machine's clock, which may be wrong but is wrong evenly.
 */

import { ApiProblem, request } from "./api.js";

/** @import {GuestSession, Me} from "./types" */

const STORE = "atrium.guest";

/** Tells the page that somebody signed in or out, here or in another window. */
export const changes = new EventTarget();

/** How long before the end the page says so. */
const NOTICE_MS = 60_000;

/** @type {number | undefined} */
let expiry;
/** @type {number | undefined} */
let noticeTimer;

/** @returns {Me | null} who was signed in, as far as the page remembers */
function remembered() {
  try {
    const me = /** @type {Me | null} */ (JSON.parse(localStorage.getItem(STORE) ?? "null"));
    return me !== null && Date.parse(me.expires_at) > Date.now() ? me : null;
  } catch {
    return null;
  }
}

/** Which sign-in the API has confirmed since the page was loaded. */
let confirmed = "";

/**
 * Who is signed in. Asks the API once whether the remembered sign-in still holds; later a 401 of any request tells.
 *
 * @returns {Promise<Me | null>}
 */
export async function current() {
  const memory = remembered();
  if (memory === null || memory.user.id === confirmed) return memory;
  try {
    const { data } = /** @type {{ data: Me }} */ (await request("GET", "/v1/auth/me"));
    const me = { user: data.user, expires_at: memory.expires_at };
    remember(me);
    return me;
  } catch (error) {
    if (error instanceof ApiProblem && error.problem.status === 401) {
      forget();
      return null;
    }
    throw error;
  }
}

/** Signs in as a new guest. */
export async function signIn() {
  const { data } = /** @type {{ data: GuestSession }} */ (await request("POST", "/v1/auth/guest", { json: {} }));
  remember({ user: data.user, expires_at: new Date(Date.now() + data.expires_in * 1000).toISOString() });
  changes.dispatchEvent(new Event("change"));
}

/** Signs out everywhere. A session that is over already is no failure. */
export async function signOut() {
  try {
    await request("POST", "/v1/auth/logout");
  } catch (error) {
    if (!(error instanceof ApiProblem && error.problem.status === 401)) throw error;
  }
  forget();
  changes.dispatchEvent(new Event("change"));
}

/** The API said that the session is over. */
export function lost() {
  forget();
  changes.dispatchEvent(new CustomEvent("change", { detail: "expired" }));
}

/** The session ends soon: a stream said so, or the clock did. There is nothing to renew it with. */
export function ending() {
  clearTimeout(noticeTimer);
  changes.dispatchEvent(new Event("ending"));
}

/** @param {Me} me */
function remember(me) {
  confirmed = me.user.id;
  localStorage.setItem(STORE, JSON.stringify(me));
  const left = Date.parse(me.expires_at) - Date.now();
  clearTimeout(expiry);
  clearTimeout(noticeTimer);
  expiry = setTimeout(lost, Math.max(0, left));
  noticeTimer = setTimeout(ending, Math.max(0, left - NOTICE_MS));
}

function forget() {
  confirmed = "";
  clearTimeout(expiry);
  clearTimeout(noticeTimer);
  localStorage.removeItem(STORE);
}

// Another window of the same browser signed in or out: the cookie is shared, so the guest is, too. A window that
// only looked who it is writes the same guest again.
addEventListener("storage", (event) => {
  const user = remembered()?.user.id ?? "";
  if (event.key === STORE && user !== confirmed) changes.dispatchEvent(new Event("change"));
});

/**
 * Who is signed in here, and for how much longer.
 *
 * The tokens themselves are in HttpOnly cookies. What the page remembers is only who it was and until when the access
 * token holds, so that a visitor who never signed in is not answered with a needless 401, and so that other windows
 * follow along. "Until when" is counted from the moment of the answer by this machine's clock, which may be wrong but is
 * wrong evenly.
 *
 * The token is renewed shortly before it expires, by one window for all of them: the others wait for the lock and then
 * see that it was done. Without locks two may renew at once, which the API forgives.
 */

import { ApiProblem, renewBy, request } from "./api.js";

/** @import {GuestSession, Me} from "./types" */

const STORE = "atrium.guest";

/** Tells the page that somebody signed in or out, here or in another window. */
export const changes = new EventTarget();

/** How long before the end the token is renewed. */
const EARLY_MS = 120_000;
/** How long to wait for an answer, and after a failure: the API takes the same refresh token again for 30 seconds. */
const PATIENCE_MS = 10_000;
const AGAIN_MS = 5_000;

/** @type {number | undefined} */
let timer;

/** @returns {Me | null} who was signed in, as far as the page remembers */
export function remembered() {
  try {
    return /** @type {Me | null} */ (JSON.parse(localStorage.getItem(STORE) ?? "null"));
  } catch {
    return null;
  }
}

/** @param {Me} me @returns {number} milliseconds until the access token expires */
function left(me) {
  return Date.parse(me.expires_at) - Date.now();
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
    if (left(memory) <= 0 && !(await renew())) {
      forget();
      return null;
    }
    const { data } = /** @type {{ data: Me }} */ (await request("GET", "/v1/auth/me"));
    const me = { user: data.user, expires_at: remembered()?.expires_at ?? data.expires_at };
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
  await enter("/v1/auth/guest");
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

/**
 * Gets new tokens, unless that was done since `before` was remembered.
 *
 * @param {Me | null} [before]
 * @returns {Promise<boolean>} false when the session is over
 */
export async function renew(before = remembered()) {
  if (before === null) return false;
  const once = async () => {
    const now = remembered();
    if (now === null || now.user.id !== before.user.id) return false;
    if (now.expires_at !== before.expires_at) {
      schedule(now);
      return true;
    }
    try {
      await enter("/v1/auth/refresh");
      return true;
    } catch (error) {
      if (error instanceof ApiProblem && error.problem.status === 401) return false;
      throw error;
    }
  };
  // Locks are there in secure contexts only.
  return "locks" in navigator ? navigator.locks.request(`${STORE}.renewal`, once) : once();
}
renewBy(() => renew());

/** Renews the session, as it ends soon. */
async function keep() {
  const me = remembered();
  if (me === null) return;
  try {
    if (await renew(me)) return;
    changes.dispatchEvent(new Event("ending"));
    timer = setTimeout(lost, Math.max(0, left(me)));
  } catch {
    timer = setTimeout(() => void keep(), AGAIN_MS);
  }
}

/** @param {"/v1/auth/guest" | "/v1/auth/refresh"} path */
async function enter(path) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const { data } = /** @type {{ data: GuestSession }} */ (await request("POST", path, { asIs: true, signal }));
  remember({ user: data.user, expires_at: new Date(Date.now() + data.expires_in * 1000).toISOString() });
}

/** @param {Me} me */
function remember(me) {
  confirmed = me.user.id;
  localStorage.setItem(STORE, JSON.stringify(me));
  schedule(me);
}

/** @param {Me} me */
function schedule(me) {
  clearTimeout(timer);
  timer = setTimeout(() => void keep(), Math.max(0, left(me) - EARLY_MS));
}

function forget() {
  confirmed = "";
  clearTimeout(timer);
  localStorage.removeItem(STORE);
}

// Another window of the same browser signed in or out, or renewed: the cookies are shared, so the guest is, too. A
// window that only looked who it is writes the same guest again.
addEventListener("storage", (event) => {
  if (event.key !== STORE) return;
  const me = remembered();
  if ((me?.user.id ?? "") !== confirmed) changes.dispatchEvent(new Event("change"));
  else if (me !== null) schedule(me);
});

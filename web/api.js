/**
 * The one way to the API: fetch, JSON in and out, and every failure as an ApiProblem.
 *
 * The session cookie authenticates; it is HttpOnly, so no script ever sees a token. When it is refused, it is renewed
 * once and the request sent again. A failure of the network is given the form of a problem document too, so that views
 * handle one kind of failure.
 */

/** @import {Failure, Page} from "./page" */

/** How the session is renewed; true when it was. session.js knows, and says so: pages without it have no session. */
let renew = () => Promise.resolve(false);

/** @param {() => Promise<boolean>} renewal */
export function renewBy(renewal) {
  renew = renewal;
}

/** Tells that the API refused something for what it is about or for who asks, which may have changed since a view was drawn. */
export const refusals = new EventTarget();

/** A refused or failed request. */
export class ApiProblem extends Error {
  /** @param {Failure} problem @param {number} retryAfter seconds; 0 when the answer named none */
  constructor(problem, retryAfter = 0) {
    super(problem.detail);
    this.name = "ApiProblem";
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/**
 * @template T
 * @typedef {object} Answer
 * @property {T} data
 * @property {string} etag  empty when the resource has none
 */

/**
 * @typedef {object} RequestOptions
 * @property {unknown} [json]  the body
 * @property {string} [ifMatch]
 * @property {string} [idempotencyKey]
 * @property {boolean} [keepalive]  outlives the page
 * @property {boolean} [asIs]  a 401 is the answer: the session is not renewed
 * @property {AbortSignal} [signal]
 */

/**
 * @template T
 * @param {"GET" | "POST" | "PUT" | "PATCH" | "DELETE"} method
 * @param {string} path
 * @param {RequestOptions} [options]
 * @returns {Promise<Answer<T>>}
 */
export async function request(method, path, options = {}) {
  /** @type {Record<string, string>} */
  const headers = { accept: "application/json, application/problem+json" };
  if (options.json !== undefined) headers["content-type"] = "application/json";
  if (options.ifMatch !== undefined) headers["if-match"] = options.ifMatch;
  if (options.idempotencyKey !== undefined) headers["idempotency-key"] = options.idempotencyKey;
  const send = async () => {
    try {
      return await fetch(path, {
        method,
        headers,
        credentials: "same-origin",
        cache: "no-store",
        keepalive: options.keepalive ?? false,
        signal: options.signal ?? null,
        body: options.json === undefined ? null : JSON.stringify(options.json),
      });
    } catch (error) {
      if (isAbort(error)) throw error;
      throw new ApiProblem(unreachable());
    }
  };
  let response = await send();
  // Nothing was done, so nothing is done twice.
  if (response.status === 401 && !options.asIs && (await renew())) response = await send();
  if (!response.ok) throw await problemOf(response);
  const data = response.status === 204 ? undefined : await response.json();
  return { data: /** @type {T} */ (data), etag: response.headers.get("etag") ?? "" };
}

/**
 * Every item of a list, page by page.
 *
 * @template T
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {Promise<T[]>}
 */
export async function listAll(path, signal) {
  /** @type {T[]} */
  const items = [];
  let cursor = "";
  do {
    const next = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const { data } = /** @type {Answer<Page<T>>} */ (await request("GET", `${path}?limit=100${next}`, { signal }));
    items.push(...data.items);
    cursor = data.next_cursor ?? "";
  } while (cursor !== "");
  return items;
}

/**
 * The problem an answer carries; a made one when something between us and the API answered instead.
 *
 * @param {Response} response
 * @returns {Promise<ApiProblem>}
 */
export async function problemOf(response) {
  if (response.status === 403 || response.status === 404) refusals.dispatchEvent(new Event("refusal"));
  const retryAfter = Number(response.headers.get("retry-after") ?? "0");
  if (response.headers.get("content-type")?.startsWith("application/problem+json")) {
    try {
      return new ApiProblem(/** @type {Failure} */ (await response.json()), retryAfter);
    } catch {
      // Cut off in the middle: told like an answer without a problem document.
    }
  }
  return new ApiProblem(
    {
      type: "",
      title: `HTTP ${response.status}`,
      status: response.status,
      detail: "The response did not come from Atrium. A proxy or gateway in between refused the request.",
      code: "unknown",
      request_id: response.headers.get("x-request-id") ?? "",
    },
    retryAfter,
  );
}

/** @param {unknown} error @returns {boolean} true when the view that asked is gone */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** @param {unknown} error @returns {boolean} true when the organization is suspended or being deleted */
export function isClosure(error) {
  return error instanceof ApiProblem && /^organization_(suspended|deleting)$/.test(error.problem.code);
}

/** @returns {Failure} */
function unreachable() {
  return {
    type: "",
    title: "Connection failed",
    status: 0,
    detail: "Atrium cannot be reached. Check the connection and try again.",
    code: "unreachable",
    request_id: "",
  };
}

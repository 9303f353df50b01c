/**
 * Following an event stream with the browser's own EventSource, without losing an event.
 *
 * EventSource connects again by itself after a lost connection and sends Last-Event-ID. It gives up forever on any
 * answer but 200. Then this module asks the same address with fetch, which can see the status: 204 means that
 * nothing will follow, 401 that the session is to be renewed or over, 429 and 503 that it should wait; after the wait it
 * opens a new EventSource with ?last_event_id=, from where the old one ended. The same when the token that the stream
 * was opened with expires: a new one carries the new cookie.
 */

import { ApiProblem, isAbort, problemOf } from "./api.js";
import { remembered, renew } from "./session.js";

/** @typedef {"connecting" | "live" | "waiting" | "ended"} StreamState */

/**
 * @typedef {object} StreamOptions
 * @property {Record<string, (data: any) => void>} events  by kind
 * @property {(state: StreamState) => void} [onState]
 * @property {(problem: ApiProblem) => void} [onProblem]  the stream was refused for good
 * @property {() => void} [onReset]  events may be missing: read the state again
 * @property {AbortSignal} signal  ends the stream
 */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

/**
 * @param {string} path
 * @param {StreamOptions} options
 * @returns {{ close: () => void }}
 */
export function follow(path, options) {
  let lastId = "";
  let opened = false;
  let waitMs = FIRST_WAIT_MS;
  let ended = options.signal.aborted;
  /** @type {EventSource | null} */
  let source = null;
  /** @type {number | undefined} */
  let timer;

  /** @param {StreamState} state */
  const tell = (state) => {
    if (!ended || state === "ended") options.onState?.(state);
  };

  const address = () => (lastId === "" ? path : `${path}?last_event_id=${encodeURIComponent(lastId)}`);

  const close = () => {
    if (ended) return;
    ended = true;
    source?.close();
    clearTimeout(timer);
    tell("ended");
  };

  /** @param {number} ms */
  const openAfter = (ms) => {
    source?.close();
    clearTimeout(timer);
    tell("waiting");
    // Spread, so that a thousand pages do not come back in the same instant.
    timer = setTimeout(open, ms * (0.75 + Math.random() / 2));
  };

  const open = () => {
    if (ended) return;
    tell("connecting");
    source = new EventSource(address());
    const from = lastId;
    source.onopen = () => {
      waitMs = FIRST_WAIT_MS;
      tell("live");
      // Open for the second time without a place to go on from: what happened in between is not told.
      if (opened && from === "" && lastId === "") options.onReset?.();
      opened = true;
    };
    source.onerror = () => {
      if (ended) return;
      if (source?.readyState === EventSource.CLOSED) void findOutWhy();
      else tell("waiting");
    };
    for (const [kind, handle] of Object.entries(options.events)) {
      source.addEventListener(kind, (event) => {
        if (ended) return;
        if (event.lastEventId !== "") lastId = event.lastEventId;
        handle(JSON.parse(event.data));
      });
    }
    source.addEventListener("position", (event) => {
      if (event.lastEventId !== "") lastId = event.lastEventId;
    });
    source.addEventListener("reset", (event) => {
      // The place we came from is gone. The event's own id, if it has one, is where the stream goes on.
      lastId = event.lastEventId === lastId ? "" : event.lastEventId;
      options.onReset?.();
    });
    const [here, session] = [source, remembered()];
    source.addEventListener("token-expiring", async () => {
      // If that fails, the stream ends, and what its address answers then is found out.
      const renewed = await renew(session).catch(() => false);
      if (renewed && source === here && !ended) openAfter(0);
    });
    source.addEventListener("drain", (event) => {
      /** @type {{ retry_ms: number }} */
      const { retry_ms } = JSON.parse(event.data);
      openAfter(retry_ms);
    });
  };

  /** EventSource does not say why it gave up; the same request by fetch does. */
  const findOutWhy = async () => {
    const probe = new AbortController();
    try {
      const answer = await fetch(address(), {
        headers: { accept: "text/event-stream" },
        cache: "no-store",
        signal: AbortSignal.any([probe.signal, options.signal]),
      });
      if (answer.status === 204) {
        close();
        return;
      }
      if (answer.status !== 200) {
        const problem = await problemOf(answer);
        if (answer.status === 401 && (await renew())) {
          if (!ended) openAfter(0);
          return;
        }
        const passing = answer.status === 429 || answer.status >= 500;
        if (!passing) {
          close();
          options.onProblem?.(problem);
          return;
        }
        waitMs = Math.max(waitMs, problem.retryAfter * 1000);
      }
    } catch (error) {
      if (isAbort(error)) return;
    } finally {
      probe.abort();
    }
    openAfter(waitMs);
    waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
  };

  options.signal.addEventListener("abort", close, { once: true });
  // Back from sleep or from a tunnel: do not sit out the wait.
  window.addEventListener(
    "online",
    () => {
      if (source?.readyState !== EventSource.OPEN) openAfter(0);
    },
    { signal: options.signal },
  );
  open();
  return { close };
}

/**
 * The page: who is signed in, which view the address asks for, and the frame around it.
 */

import { ApiProblem, isAbort } from "./api.js";
import { button, emptyState, fill, h, icon, problemBox } from "./elements.js";
import { resolve } from "./router.js";
import { changes, current, lost, signOut } from "./session.js";
import { signInView } from "./views/sign-in.js";

/** @import {Me} from "./types" */

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const account = /** @type {HTMLElement} */ (document.getElementById("account"));

const soon = h("span", { class: "badge warn", role: "status" });

let view = new AbortController();

/** @param {{ expired?: boolean, moved?: boolean }} [how] */
async function show(how = {}) {
  view.abort();
  view = new AbortController();
  const { signal } = view;
  try {
    const me = await current();
    if (signal.aborted) return;
    drawAccount(me);
    const root = h("div", { class: "view" });
    if (me === null) {
      document.body.dataset["at"] = "entrance";
      fill(main, root);
      signInView(root, how.expired ?? false);
      return;
    }
    document.body.dataset["at"] = "inside";
    const route = resolve(location.hash);
    if (route === null) {
      fill(root, h("h1", {}, "Page not found"), emptyState("search", "No such page", "Atrium has no page at this address."), homeLink());
      fill(main, root);
      return;
    }
    root.setAttribute("aria-busy", "true");
    // The old view stays until the new one has something to show: no flicker.
    await route.view({ root, params: route.params, signal, me, again: () => void again(signal), end: (title, text) => end(signal, title, text) });
    if (signal.aborted) return;
    root.removeAttribute("aria-busy");
    fill(main, root);
    // On a phone the parts do not fit beside each other.
    const here = /** @type {HTMLElement | null} */ (root.querySelector('.tabs [aria-current="page"]'));
    if (here?.parentElement) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 40;
    const heading = root.querySelector("h1");
    document.title = heading === null ? "Atrium" : `${heading.textContent} · Atrium`;
    if (how.moved) {
      scrollTo(0, 0);
      heading?.setAttribute("tabindex", "-1");
      heading?.focus({ preventScroll: true });
    }
  } catch (error) {
    if (signal.aborted || isAbort(error)) return;
    if (error instanceof ApiProblem && error.problem.status === 401) {
      lost();
      return;
    }
    fill(main, h("div", { class: "view" }, h("h1", {}, titleOf(error)), problemBox(error), hint(error), homeLink()));
    document.title = "Atrium";
  }
}

/** @param {AbortSignal} signal the view's that asks */
async function again(signal) {
  if (!signal.aborted) await show();
}

/** @param {AbortSignal} signal the view's that asks @param {string} title @param {string} text */
function end(signal, title, text) {
  if (signal.aborted) return;
  view.abort();
  fill(main, h("div", { class: "view" }, h("div", { class: "head", role: "alert" }, h("h1", {}, title), h("p", { class: "lead" }, text)), homeLink()));
  document.title = `${title} · Atrium`;
}

/** @param {unknown} error */
function titleOf(error) {
  return error instanceof ApiProblem && error.problem.status === 404 ? "Not found" : "Something went wrong";
}

/** @param {unknown} error */
function hint(error) {
  if (!(error instanceof ApiProblem) || error.problem.status !== 404) return null;
  return h("p", { class: "lead" }, "It does not exist, or you have no access to it. If somebody shared this address with you, ask them for an invitation code.");
}

function homeLink() {
  return h("p", {}, h("a", { href: "#/", class: "button quiet" }, icon("back"), h("span", {}, "Your organizations")));
}

/** @param {Me | null} me */
function drawAccount(me) {
  if (me === null) {
    fill(soon);
    fill(account);
    return;
  }
  const problems = h("div", { class: "problems" });
  fill(
    account,
    soon,
    h("span", { class: "who" }, icon("person"), me.user.name),
    button({ label: "Sign out", kind: "quiet", problems }, signOut),
    problems,
  );
}

// The link's own way, through the address, would look like another view.
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => void show({ moved: true }));
// Back from the browser's page cache: what was on the page is old, and its streams are closed.
addEventListener("pageshow", (event) => {
  if (event.persisted) void show();
});
changes.addEventListener("ending", () => fill(soon, "You will be signed out within two minutes"));
changes.addEventListener("change", (event) => {
  void show({ expired: event instanceof CustomEvent && event.detail === "expired", moved: true });
});
void show();

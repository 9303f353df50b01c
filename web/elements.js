/**
 * Building the page: elements, icons, and the few pieces every view uses.
 *
 * Text goes in as text nodes and attributes through setAttribute, never as markup, so whatever somebody chose as a
 * name stays a name.
 */

import { ApiProblem, isAbort } from "./api.js";

/** @import {Role} from "./types" */

/** @typedef {Node | string | number | null | undefined | false | Child[]} Child */
/** @typedef {Record<string, string | number | boolean | undefined>} Attributes */

/**
 * An element. An attribute that is true stands without a value; one that is false or undefined is left out.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

/** @param {Element} element @param {Child[]} children */
function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) {
      append(element, child);
      continue;
    }
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * Replaces what is in an element.
 *
 * @param {Element} element
 * @param {...Child} children
 */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/**
 * An icon of icons.svg, in the color of the text around it. Decoration only: the text says it, too.
 *
 * @param {string} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("viewBox", "0 0 24 24");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button that runs a task: disabled while it runs, its failure shown in `problems`.
 *
 * @param {{ label: string, icon?: string, kind?: "primary" | "quiet" | "danger", problems: HTMLElement, name?: string }} options
 * @param {() => Promise<void> | void} task
 * @returns {HTMLButtonElement}
 */
export function button(options, task) {
  const element = h(
    "button",
    { type: "button", class: `button ${options.kind ?? "primary"}`, "aria-label": options.name },
    options.icon !== undefined && icon(options.icon),
    h("span", {}, options.label),
  );
  element.addEventListener("click", () => void busy(element, options.problems, task));
  return element;
}

/**
 * A form around fields, with one submitting button.
 *
 * @param {{ submit: string, kind?: "primary" | "quiet" | "danger", icon?: string, class?: string, extra?: Child[] }} options
 * @param {Child[]} fields
 * @param {() => Promise<void>} task
 * @returns {HTMLFormElement}
 */
export function form(options, fields, task) {
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  const submit = h(
    "button",
    { type: "submit", class: `button ${options.kind ?? "primary"}` },
    options.icon !== undefined && icon(options.icon),
    h("span", {}, options.submit),
  );
  const element = h(
    "form",
    { class: `form ${options.class ?? ""}` },
    fields,
    h("div", { class: "form-actions" }, submit, options.extra ?? []),
    problems,
  );
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    void busy(submit, problems, task);
  });
  return element;
}

/**
 * @param {HTMLButtonElement} element
 * @param {HTMLElement} problems
 * @param {() => Promise<void> | void} task
 */
async function busy(element, problems, task) {
  if (element.disabled) return;
  element.disabled = true;
  element.setAttribute("aria-busy", "true");
  fill(problems);
  try {
    await task();
  } catch (error) {
    if (!isAbort(error)) fill(problems, problemBox(error));
  } finally {
    element.disabled = false;
    element.removeAttribute("aria-busy");
  }
}

let fieldCount = 0;

/**
 * A control with its label, and a hint that belongs to it.
 *
 * @template {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} T
 * @param {string} label
 * @param {T} control
 * @param {string} [hint]
 * @returns {HTMLElement}
 */
export function field(label, control, hint) {
  fieldCount += 1;
  control.id = `field-${fieldCount}`;
  if (hint !== undefined) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: control.id }, label),
    control,
    hint !== undefined && h("p", { class: "hint", id: `${control.id}-hint` }, hint),
  );
}

/**
 * What went wrong, for a person: what the API said, what is wrong with which field, and the request's id.
 *
 * @param {unknown} error
 * @returns {HTMLElement}
 */
export function problemBox(error) {
  if (!(error instanceof ApiProblem)) {
    // A mistake of the page itself: shown, and left for the browser's console.
    console.error(error);
    return h("div", { class: "notice bad", role: "alert" }, h("p", {}, "Something went wrong in this page. Reload it and try again."));
  }
  const { problem } = error;
  return h(
    "div",
    { class: "notice bad", role: "alert" },
    h("p", { class: "notice-title" }, problem.title),
    h("p", {}, problem.detail),
    problem.errors !== undefined &&
      h(
        "ul",
        {},
        problem.errors.map((item) => h("li", {}, `${place(item)}${item.detail}`)),
      ),
    h(
      "p",
      { class: "fine" },
      problem.type !== "" && h("a", { href: problem.type }, problem.code),
      problem.request_id !== "" && [" · request ", h("code", {}, problem.request_id)],
    ),
  );
}

/** @param {{ pointer?: string, header?: string, parameter?: string }} item */
function place(item) {
  const where = item.pointer?.replace(/^\//, "").replaceAll("/", " › ") ?? item.header ?? item.parameter ?? "";
  return where === "" ? "" : `${where}: `;
}

/**
 * A message that is no failure.
 *
 * @param {"good" | "plain" | "warn"} kind
 * @param {...Child} children
 */
export function notice(kind, ...children) {
  return h("div", { class: `notice ${kind}`, role: "status" }, ...children);
}

/**
 * A friendly nothing.
 *
 * @param {string} iconName @param {string} title @param {string} text
 */
export function emptyState(iconName, title, text) {
  return h("div", { class: "empty" }, icon(iconName), h("p", { class: "empty-title" }, title), h("p", {}, text));
}

/** @param {string} text @param {string} kind */
export function badge(text, kind = "plain") {
  return h("span", { class: `badge ${kind}` }, text);
}

/** A name and what it stands for, in a list of facts (`dl`). @param {string} name @param {Child} value */
export function fact(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

/** @param {string} text snake_case, kebab-case or SHOUTING @returns {string} as a person writes it */
export function humanize(text) {
  const words = text.replaceAll(/[_-]/g, " ").toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayAndClock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/**
 * A moment, as a time today and as a date otherwise.
 *
 * @param {string} at
 */
export function moment(at) {
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  return h(
    "time",
    { datetime: at, title: dayAndClock.format(date) },
    today ? clock.format(date) : dayAndClock.format(date),
  );
}

/** @type {Role[]} */
const ROLES = ["viewer", "member", "admin", "owner"];

/** @param {Role} role @param {Role} least @returns {boolean} */
export function mayAct(role, least) {
  return ROLES.indexOf(role) >= ROLES.indexOf(least);
}

/** @param {Role} role @returns {Role[]} the roles that somebody of this role may give */
export function rolesUpTo(role) {
  return ROLES.slice(0, ROLES.indexOf(role) + 1);
}

/**
 * The API reference: /v1/openapi.json, by tag, to browse and to search.
 *
 * It knows the parts of OpenAPI 3.1 that the contract uses. A schema that is named is shown once it is opened, so
 * that the page stays short and schemas may refer to each other.
 */

import { request } from "./api.js";
import { badge, fill, h, problemBox } from "./elements.js";
import { inline, prose } from "./markdown.js";

/** @typedef {Record<string, any>} Json */

const METHODS = ["get", "post", "put", "patch", "delete"];

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const contents = /** @type {HTMLElement} */ (document.getElementById("contents"));
const search = /** @type {HTMLInputElement} */ (document.getElementById("search"));
const found = /** @type {HTMLElement} */ (document.getElementById("found"));

/** @type {Json} */
let document_ = {};

/** @typedef {{ element: HTMLElement, link: HTMLElement, group: HTMLElement, text: string }} Entry */
/** @type {Entry[]} */
const entries = [];

async function show() {
  try {
    const { data } = /** @type {{ data: Json }} */ (await request("GET", "/v1/openapi.json"));
    document_ = data;
    draw();
    reveal();
    filter();
  } catch (error) {
    main.append(problemBox(error));
  }
  main.removeAttribute("aria-busy");
}

function draw() {
  const { info, tags, paths } = document_;
  main.append(
    h("p", { class: "lead" }, `${info.title} ${info.version}. `, info.summary ?? ""),
    h("details", { class: "panel intro", open: true }, h("summary", {}, "How this API works"), prose(info.description ?? "")),
  );
  for (const tag of tags) {
    const section = h("section", { class: "group" }, h("h2", { id: `tag-${tag.name}` }, tag.name), prose(tag.description ?? ""));
    const list = h("ul", {});
    const group = h("div", { class: "contents-group" }, h("h3", {}, h("a", { href: `#tag-${tag.name}` }, tag.name)), list);
    for (const [path, item] of Object.entries(paths)) {
      for (const method of METHODS) {
        const operation = item[method];
        if (operation === undefined || !operation.tags?.includes(tag.name)) continue;
        const element = operationEntry(method, path, item, operation);
        const link = h("li", {}, h("a", { href: `#${operation.operationId}` }, methodMark(method), h("span", {}, operation.summary)));
        section.append(element);
        list.append(link);
        entries.push({ element, link, group: section, text: searchText(method, path, operation) });
      }
    }
    main.append(section);
    contents.append(group);
  }
}

/** @param {string} method */
function methodMark(method) {
  return h("span", { class: `method ${method}` }, method.toUpperCase());
}

/** @param {string} method @param {string} path @param {Json} operation */
function searchText(method, path, operation) {
  return `${method} ${path} ${JSON.stringify(operation)}`.toLowerCase();
}

/** @param {string} method @param {string} path @param {Json} item @param {Json} operation */
function operationEntry(method, path, item, operation) {
  const element = h("details", { class: "panel operation", id: operation.operationId });
  element.append(
    h("summary", {}, methodMark(method), h("code", { class: "path" }, path), h("span", { class: "summary" }, operation.summary)),
  );
  // Drawn when it is opened first: most never are.
  element.addEventListener("toggle", () => {
    if (element.childElementCount === 1) element.append(operationBody(item, operation));
  });
  return element;
}

/** @param {Json} item @param {Json} operation */
function operationBody(item, operation) {
  const parameters = [...(item["parameters"] ?? []), ...(operation["parameters"] ?? [])].map(resolved);
  const open = Array.isArray(operation["security"]) && operation["security"].length === 0;
  return h(
    "div",
    { class: "operation-body" },
    prose(operation["description"] ?? ""),
    h(
      "p",
      { class: "meta" },
      badge(open ? "No sign-in required" : "Sign-in required", open ? "good" : "plain"),
      operation["x-minimum-role"] !== undefined && badge(`Role ${operation["x-minimum-role"]} or higher`, "accent"),
    ),
    parameters.length > 0 && [h("h3", {}, "Parameters"), parameterTable(parameters)],
    operation["requestBody"] !== undefined && requestBody(resolved(operation["requestBody"])),
    h("h3", {}, "Responses"),
    Object.entries(operation["responses"])
      .filter(([status]) => status !== "default")
      .map(([status, response]) => answer(status, resolved(response))),
    problems(operation["x-problem-codes"] ?? []),
  );
}

/** @param {Json[]} parameters */
function parameterTable(parameters) {
  return h(
    "dl",
    { class: "fields" },
    parameters.map((parameter) => [
      h(
        "dt",
        {},
        h("code", {}, parameter["name"]),
        badge(parameter["in"]),
        parameter["required"] ? badge("required", "accent") : null,
      ),
      h("dd", {}, prose(parameter["description"] ?? ""), h("p", { class: "fine" }, typeText(parameter["schema"] ?? {}))),
    ]),
  );
}

/** @param {Json} body */
function requestBody(body) {
  return h(
    "div",
    {},
    h("h3", {}, "Body", body["required"] ? null : h("span", { class: "fine" }, " optional")),
    mediaTypes(body["content"] ?? {}),
  );
}

/** @param {string} status @param {Json} response */
function answer(status, response) {
  return h(
    "details",
    { class: "answer", open: status.startsWith("2") },
    h("summary", {}, badge(status, status.startsWith("2") ? "good" : "plain"), h("span", {}, inline(response["description"]))),
    headerList(response["headers"] ?? {}),
    mediaTypes(response["content"] ?? {}),
  );
}

/**
 * The errors of an operation: all have the same body, so their codes are enough.
 *
 * @param {string[]} codes
 */
function problems(codes) {
  const known = document_["components"]["schemas"]["ProblemCode"]["x-problems"];
  /** @type {Map<number, string[]>} */
  const byStatus = new Map();
  for (const code of codes) {
    const { status } = known[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const statuses = [...byStatus].sort(([a], [b]) => a - b);
  return h(
    "details",
    { class: "answer" },
    h("summary", {}, badge("4xx, 5xx"), h("span", {}, "Problems")),
    h(
      "dl",
      { class: "fields" },
      statuses.map(([status, ofStatus]) => [
        h("dt", {}, badge(String(status), status >= 500 ? "bad" : "plain")),
        h(
          "dd",
          {},
          ofStatus.map((code, at) => [at > 0 ? ", " : "", h("a", { href: `/docs/errors#${code}` }, h("code", {}, code))]).flat(),
        ),
      ]),
    ),
    mediaTypes(document_["components"]["responses"]["ProblemResponse"]["content"]),
  );
}

/** @param {Json} headers */
function headerList(headers) {
  // Every answer has the request's id; the introduction says so once.
  const names = Object.keys(headers).filter((name) => name !== "x-request-id");
  if (names.length === 0) return null;
  return h(
    "dl",
    { class: "fields" },
    names.map((name) => [h("dt", {}, h("code", {}, name), badge("header")), h("dd", {}, prose(resolved(headers[name])["description"] ?? ""))]),
  );
}

/** @param {Json} content by media type */
function mediaTypes(content) {
  return Object.entries(content).map(([type, media]) => {
    const events = media["x-sse-events"];
    const example = media.example ?? /** @type {Json | undefined} */ (Object.values(media.examples ?? {})[0])?.["value"];
    return h(
      "div",
      { class: "media" },
      h("p", { class: "fine" }, h("code", {}, type)),
      events !== undefined
        ? h("dl", { class: "fields" }, Object.entries(events).map(([kind, schema]) => [h("dt", {}, h("code", {}, kind), badge("event")), h("dd", {}, schemaView(schema))]))
        : type.endsWith("json") && schemaView(media.schema ?? {}),
      example !== undefined &&
        h("details", {}, h("summary", {}, "Example"), h("pre", { tabindex: 0 }, typeof example === "string" ? example : JSON.stringify(example, null, 2))),
    );
  });
}

/** @param {Json} schema @returns {Node} */
function schemaView(schema) {
  const name = nameOf(schema);
  const full = resolved(schema);
  if (full["type"] === "object" && full["properties"] !== undefined) {
    return h("div", { class: "schema" }, name !== "" && h("p", {}, h("code", {}, name), " ", inline(full["description"] ?? "")), propertyList(full));
  }
  return h("p", {}, typeText(schema), " ", inline(full["description"] ?? ""));
}

/** @param {Json} schema */
function propertyList(schema) {
  const required = new Set(schema["required"] ?? []);
  return h(
    "dl",
    { class: "fields" },
    Object.entries(schema["properties"]).map(([name, property]) => [
      h("dt", {}, h("code", {}, name), !required.has(name) && badge("optional")),
      h(
        "dd",
        {},
        h("p", {}, h("span", { class: "fine" }, typeText(property)), " ", inline(property.description ?? resolved(property)["description"] ?? "")),
        nested(property),
      ),
    ]),
  );
}

/** @param {Json} schema @returns {Node | null} what is inside, to be opened */
function nested(schema) {
  const parts = [schema, schema["items"] ?? {}, ...(schema["oneOf"] ?? [])];
  const inner = parts.find((part) => resolved(part)["properties"] !== undefined);
  if (inner === undefined) return null;
  const element = h("details", {}, h("summary", {}, nameOf(inner) === "" ? "Fields" : h("code", {}, nameOf(inner))));
  element.addEventListener("toggle", () => {
    if (element.childElementCount === 1) element.append(propertyList(resolved(inner)));
  });
  return element;
}

/** @param {Json} schema @returns {string} */
function typeText(schema) {
  const full = resolved(schema);
  if (full["const"] !== undefined) return `always ${JSON.stringify(full["const"])}`;
  if (full["enum"] !== undefined) return `one of ${full["enum"].join(", ")}`;
  if (full["oneOf"] !== undefined) return full["oneOf"].map(typeText).join(" or ");
  const types = [full["type"] ?? "any value"].flat();
  const text = types
    .map((type) => (type === "array" ? `list of ${typeText(full["items"] ?? {})}` : type === "object" ? nameOf(schema) || "object" : type))
    .join(" or ");
  /** @type {string[]} */
  const limits = [];
  if (full["format"] !== undefined) limits.push(full["format"]);
  if (full["minimum"] !== undefined || full["maximum"] !== undefined) limits.push(`${full["minimum"] ?? ""}…${full["maximum"] ?? ""}`);
  if (full["maxLength"] !== undefined) limits.push(`${full["minLength"] ?? 0}…${full["maxLength"]} characters`);
  if (full["default"] !== undefined) limits.push(`default ${JSON.stringify(full["default"])}`);
  return limits.length === 0 ? text : `${text} (${limits.join(", ")})`;
}

/** @param {Json} schema @returns {string} the name of a schema that has one */
function nameOf(schema) {
  return typeof schema["$ref"] === "string" ? (schema["$ref"].split("/").pop() ?? "") : "";
}

/** @param {Json} node @returns {Json} with its reference followed; what stands beside the reference wins */
function resolved(node) {
  const reference = node["$ref"];
  if (typeof reference !== "string" || !reference.startsWith("#/")) return node;
  /** @type {any} */
  let target = document_;
  for (const part of reference.slice(2).split("/")) {
    target = target?.[part.replaceAll("~1", "/").replaceAll("~0", "~")];
  }
  const { $ref: _, ...beside } = node;
  const full = resolved(target ?? {});
  // A code that is narrowed by an answer keeps the problem's other fields.
  const properties = beside["properties"] === undefined ? full["properties"] : { ...full["properties"], ...beside["properties"] };
  return properties === undefined ? { ...full, ...beside } : { ...full, ...beside, properties };
}

/** Shows the operations that have every word, in what is seen or in what is folded away. */
function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
  let count = 0;
  for (const entry of entries) {
    const fits = words.every((word) => entry.text.includes(word));
    entry.element.hidden = !fits;
    entry.link.hidden = !fits;
    if (fits) count += 1;
  }
  for (const { group } of entries) group.hidden = group.querySelector(".operation:not([hidden])") === null;
  for (const group of contents.querySelectorAll(".contents-group")) {
    /** @type {HTMLElement} */ (group).hidden = group.querySelector("li:not([hidden])") === null;
  }
  const intro = main.querySelector(".intro");
  if (intro instanceof HTMLElement) intro.hidden = words.length > 0;
  fill(found, words.length === 0 ? `${count} operations` : `${count} of ${entries.length} operations`);
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

search.addEventListener("input", filter);
addEventListener("hashchange", reveal);
void show();

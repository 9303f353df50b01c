/**
 * A control that fits a key's JSON Schema: a number, a choice, a set of choices, a text. The schema is the server's;
 * what the control lets through is checked there again.
 */

import { field, h, humanize } from "../elements.js";

/** @import {ValueSchema} from "../page" */
/** @import {ConfigValue} from "../types" */

/**
 * @param {ConfigValue} setting
 * @returns {{ element: HTMLElement, read: () => unknown }}
 */
export function editorFor({ schema: document, value }) {
  const schema = /** @type {ValueSchema} */ (document);
  if (schema.enum !== undefined) {
    const choices = schema.enum;
    const select = h(
      "select",
      {},
      choices.map((choice, at) => h("option", { value: at, selected: choice === value }, plain(choice))),
    );
    return { element: field("Value", select), read: () => choices[Number(select.value)] };
  }
  if (schema.type === "integer" || schema.type === "number") {
    const input = h("input", {
      type: "number",
      required: true,
      min: schema.minimum,
      max: schema.maximum,
      step: schema.type === "integer" ? 1 : "any",
      value: Number(value),
    });
    return { element: field("Value", input, limits(schema)), read: () => Number(input.value) };
  }
  if (schema.type === "boolean") {
    const select = h(
      "select",
      {},
      [true, false].map((choice) => h("option", { value: String(choice), selected: choice === value }, choice ? "Yes" : "No")),
    );
    return { element: field("Value", select), read: () => select.value === "true" };
  }
  if (schema.type === "array" && schema.items?.enum !== undefined) {
    const chosen = Array.isArray(value) ? value : [];
    const boxes = schema.items.enum.map((choice) => ({
      choice,
      box: h("input", { type: "checkbox", checked: chosen.includes(choice) }),
    }));
    const element = h(
      "fieldset",
      { class: "choices" },
      h("legend", {}, "Value"),
      boxes.map(({ choice, box }) => h("label", {}, box, humanize(String(choice)))),
    );
    return { element, read: () => boxes.filter(({ box }) => box.checked).map(({ choice }) => choice) };
  }
  if (schema.type === "string") {
    const input = h("input", { type: "text", autocomplete: "off", value: String(value) });
    return { element: field("Value", input), read: () => input.value };
  }
  const text = h("textarea", { rows: 4, class: "mono", spellcheck: "false" }, JSON.stringify(value, null, 2));
  return {
    element: field("Value (JSON)", text),
    read: () => {
      text.setCustomValidity("");
      try {
        return JSON.parse(text.value);
      } catch {
        // Sent as it is: the server says what is wrong with it, at the place where every refusal is shown.
        return text.value;
      }
    },
  };
}

/** @param {unknown} value @returns {string} a value as a person reads it */
export function plain(value) {
  if (Array.isArray(value)) return value.map((item) => humanize(String(item))).join(", ");
  if (value === "") return "(empty)";
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}

/** @param {{ minimum?: number, maximum?: number }} schema */
function limits({ minimum, maximum }) {
  if (minimum !== undefined && maximum !== undefined) return `From ${minimum} to ${maximum}.`;
  return undefined;
}

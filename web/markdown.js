/**
 * The few forms of Markdown that the contract uses, as elements: headings, paragraphs, lists, `code`, **bold**,
 * *emphasis*.
 * Everything else stays the text it is; nothing is ever parsed as markup.
 */

import { h } from "./elements.js";

/** @typedef {{ kind: "heading", level: number, text: string } | { kind: "paragraph", text: string } | { kind: "list", items: string[] }} Block */

/** @param {string} source @returns {Block[]} */
export function blocks(source) {
  /** @type {Block[]} */
  const found = [];
  for (const part of source.replaceAll("\r", "").split(/\n{2,}/)) {
    const text = part.trim();
    if (text === "") continue;
    const heading = /^(#{1,4}) (.*)$/.exec(text);
    if (heading !== null) {
      found.push({ kind: "heading", level: heading[1]?.length ?? 1, text: heading[2] ?? "" });
    } else if (text.startsWith("- ")) {
      found.push({ kind: "list", items: text.slice(2).split(/\n- /).map(joined) });
    } else {
      found.push({ kind: "paragraph", text: joined(text) });
    }
  }
  return found;
}

/** @param {string} source @returns {HTMLElement[]} paragraphs and lists */
export function prose(source) {
  return blocks(source).map((block) => {
    if (block.kind === "list") return h("ul", { class: "bullets" }, block.items.map((item) => h("li", {}, inline(item))));
    return h("p", {}, inline(block.text));
  });
}

/** @param {string} text @returns {(Node | string)[]} */
export function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s](?:[^*]*[^*\s])?\*)/).map((part) => {
    if (part.startsWith("`") && part.length > 2) return h("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.length > 4) return h("strong", {}, inline(part.slice(2, -2)));
    if (part.startsWith("*") && part.length > 2) return h("em", {}, inline(part.slice(1, -1)));
    return part;
  });
}

/** @param {string} text lines of one paragraph */
function joined(text) {
  return text.replace(/\s*\n\s*/g, " ");
}

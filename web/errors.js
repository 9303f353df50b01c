/** The error catalog as a page: one section for each code, with the code as its anchor. */

import { problemOf } from "./api.js";
import { badge, fill, h, problemBox } from "./elements.js";
import { blocks, inline } from "./markdown.js";

const catalog = /** @type {HTMLElement} */ (document.getElementById("catalog"));

async function show() {
  try {
    const response = await fetch("/docs/error-catalog.md");
    if (!response.ok) throw await problemOf(response);
    draw(await response.text());
    // The anchor was not there yet when the browser looked for it.
    reveal();
  } catch (error) {
    fill(catalog, problemBox(error));
  }
  catalog.removeAttribute("aria-busy");
}

/** @param {string} source */
function draw(source) {
  fill(catalog);
  const index = h("ul", { class: "code-index", "aria-label": "All codes" });
  /** @type {HTMLElement} */
  let section = h("section", { class: "catalog-intro" });
  catalog.append(section);
  for (const block of blocks(source)) {
    if (block.kind === "heading" && block.level === 1) continue;
    if (block.kind === "heading") {
      const [, code = block.text, status = ""] = /^`([a-z_]+)` \((\d{3})\)$/.exec(block.text) ?? [];
      section = h(
        "section",
        { class: "panel entry", id: code },
        h("h2", {}, h("a", { href: `#${code}` }, h("code", {}, code)), badge(status, status.startsWith("5") ? "bad" : "plain")),
      );
      catalog.append(section);
      index.append(h("li", {}, h("a", { href: `#${code}` }, h("code", {}, code))));
    } else if (block.kind === "paragraph") {
      section.append(h("p", {}, inline(block.text)));
    }
  }
  catalog.firstElementChild?.append(index);
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  target?.scrollIntoView();
  for (const entry of catalog.querySelectorAll(".entry")) entry.classList.toggle("here", entry === target);
}

addEventListener("hashchange", reveal);
void show();

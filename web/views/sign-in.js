/** The entrance: one button makes a guest. */

import { button, fill, h, icon, notice } from "../elements.js";
import { signIn } from "../session.js";

/** @param {HTMLElement} root @param {boolean} expired */
export function signInView(root, expired) {
  document.title = "Atrium";
  const problems = h("div", { class: "problems", "aria-live": "polite" });
  fill(
    root,
    h(
      "section",
      { class: "entrance" },
      h("img", { src: "/mark.svg", alt: "", width: 88, height: 88 }),
      h("h1", {}, "Atrium"),
      h("p", { class: "lead" }, "One well-lit room for every team: organizations, projects, live signals and live settings."),
      expired && notice("warn", h("p", {}, "Your guest session has ended. Come in again as a new guest.")),
      button({ label: "Enter as a guest", icon: "enter", problems }, signIn),
      problems,
      h("p", { class: "fine" }, "No registration and no personal data. A guest stays until signing out, for 30 days after the last visit and 180 days at most."),
    ),
    h(
      "ul",
      { class: "promises" },
      promise("people", "Invite by code", "Bring people in with a code that works once."),
      promise("chat", "Signal, do not chat", "Press Ready, Blocked or Deployed. Everybody sees it at once."),
      promise("sliders", "Settings that are live", "Change a value and watch every process take it over."),
    ),
  );
}

/** @param {string} iconName @param {string} title @param {string} text */
function promise(iconName, title, text) {
  return h("li", {}, icon(iconName), h("h2", {}, title), h("p", {}, text));
}

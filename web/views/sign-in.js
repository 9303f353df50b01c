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
      h("p", { class: "lead" }, "Organizations, projects, live chat and live configuration for every team."),
      expired && notice("warn", h("p", {}, "You were signed out. Sign in again as a new guest.")),
      button({ label: "Sign in as a guest", icon: "enter", problems }, signIn),
      problems,
      h("p", { class: "fine" }, "No registration and no personal data. You stay signed in until you sign out, for 30 days after your last visit and 180 days at most."),
    ),
    h(
      "ul",
      { class: "promises" },
      promise("people", "Invite by code", "Add members with a code that works once."),
      promise("chat", "Chat by actions", "Press Ready, Blocked or Deployed. Everybody sees it at once."),
      promise("sliders", "Live configuration", "Change a value and watch every process apply it."),
    ),
  );
}

/** @param {string} iconName @param {string} title @param {string} text */
function promise(iconName, title, text) {
  return h("li", {}, icon(iconName), h("h2", {}, title), h("p", {}, text));
}

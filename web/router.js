/**
 * Which view an address shows. Addresses are hashes, so that two windows can stand at the same project and the
 * server has one page to serve. Each view gets a signal that ends with it: requests, streams and listeners hang on
 * that signal, so that nothing of a view outlives it.
 */

import { audit } from "./views/audit.js";
import { chat } from "./views/chat.js";
import { configuration } from "./views/configuration.js";
import { members } from "./views/members.js";
import { operation } from "./views/operation.js";
import { organizations } from "./views/organizations.js";
import { projects } from "./views/projects.js";
import { settings } from "./views/settings.js";

/** @import {View} from "./page" */

/** @type {[template: string, view: View][]} */
const ROUTES = [
  ["/", organizations],
  ["/operations/:operation", operation],
  ["/orgs/:org", projects],
  ["/orgs/:org/members", members],
  ["/orgs/:org/configuration", configuration],
  ["/orgs/:org/audit", audit],
  ["/orgs/:org/settings", settings],
  ["/orgs/:org/projects/:project", chat],
  ["/orgs/:org/projects/:project/configuration", configuration],
];

/**
 * @param {string} hash
 * @returns {{ view: View, params: Record<string, string> } | null} null when no view has this address
 */
export function resolve(hash) {
  const parts = hash.replace(/^#?\/?/, "").split("/").filter((part) => part !== "");
  for (const [template, view] of ROUTES) {
    const names = template.split("/").filter((part) => part !== "");
    if (names.length !== parts.length) continue;
    /** @type {Record<string, string>} */
    const params = {};
    const fits = names.every((name, at) => {
      const part = parts[at] ?? "";
      if (!name.startsWith(":")) return name === part;
      params[name.slice(1)] = part;
      // Ids only: what is typed into an address never becomes a path of its own.
      return /^[0-9a-f-]{36}$/i.test(part);
    });
    if (fits) return { view, params };
  }
  return null;
}

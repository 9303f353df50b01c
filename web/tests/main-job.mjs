/**
 * The main job in a real browser, as two guests do it in two windows.
 *
 *   ATRIUM_URL=http://127.0.0.1:8080 npm run test:browser
 *
 * ATRIUM_URL      where Atrium answers (required)
 * CHROMIUM        the browser (default: /usr/bin/chromium)
 * ATRIUM_API_PID  the API's process: it is told to stop, and a window must not notice (default: not done)
 * SCREENSHOTS     a folder for pictures of every view, light, dark and phone-wide (default: none)
 *
 * Exits with 1 at the first failed expectation; also on an error in the console, on a violation of the
 * Content-Security-Policy, and on what axe finds wrong with a view.
 */

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import http from "node:http";
import path from "node:path";
import { chromium } from "playwright-core";

const base = process.env.ATRIUM_URL;
if (base === undefined) throw new Error("ATRIUM_URL says where Atrium answers, for example http://127.0.0.1:8080");
const pictures = process.env.SCREENSHOTS;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What went wrong beside the steps: errors in a console, policy violations. @type {string[]} */
const complaints = [];
/** Refusals that a step provokes; the browser writes each into the console. @type {RegExp | null} */
let provoked = null;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

/** A proxy that can be cut: a browser's own "offline" leaves streams alone that are open already. */
const wire = {
  down: false,
  /** @type {Set<import("node:net").Socket>} */
  sockets: new Set(),
  address: "",
  async open() {
    const server = http.createServer((near, answer) => {
      const far = http.request(near.url, { method: near.method, headers: near.headers }, (reply) => {
        answer.writeHead(reply.statusCode, reply.rawHeaders);
        reply.pipe(answer);
        reply.on("error", () => answer.destroy());
      });
      far.on("error", () => answer.destroy());
      answer.on("close", () => far.destroy());
      near.pipe(far);
    });
    server.on("connection", (socket) => {
      if (this.down) socket.destroy();
      this.sockets.add(socket);
      socket.on("close", () => this.sockets.delete(socket));
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    server.unref();
    this.address = `http://127.0.0.1:${server.address().port}`;
  },
  cut() {
    this.down = true;
    for (const socket of this.sockets) socket.destroy();
  },
  mend() {
    this.down = false;
  },
};

/** A browser of its own: cookies and storage apart. */
async function guest(proxy) {
  const context = await browser.newContext({
    viewport: { width: 1200, height: 860 },
    reducedMotion: "reduce",
    baseURL: base,
    ...(proxy === undefined ? {} : { proxy: { server: proxy, bypass: "<-loopback>" } }),
  });
  context.setDefaultTimeout(10_000);
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  context.on("page", watch);
  return context;
}

function watch(page) {
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error}`));
  page.on("console", (message) => {
    if (message.type() !== "error" || provoked?.test(message.text())) return;
    complaints.push(`${page.url()}: ${message.text()}`);
  });
}

async function step(name, work) {
  const begin = performance.now();
  try {
    const result = await work();
    assert.deepEqual(complaints, [], "complaints of the browser");
    console.log(`ok   ${String(Math.round(performance.now() - begin)).padStart(6)} ms  ${name}`);
    return result;
  } catch (error) {
    console.log(`FAIL ${String(Math.round(performance.now() - begin)).padStart(6)} ms  ${name}`);
    for (const [at, page] of browser.contexts().flatMap((context) => context.pages()).entries()) {
      await picture(page, `failed-${at}`).catch(() => undefined);
      console.log(`  window ${at} at ${page.url()}:\n${(await page.locator("main").innerText().catch(() => "")).replaceAll(/^/gm, "    ")}`);
    }
    throw error;
  }
}

/** Accessibility by axe, and a picture in every dress. */
async function look(page, name) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  assert.deepEqual(found, [], `what axe finds at ${name}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name} scrolls sideways by ${wide} pixels`);
  await picture(page, name);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.evaluate(axe);
  const dark = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["color-contrast"] }));
  assert.deepEqual(dark.violations.map(({ nodes }) => nodes.map((node) => node.html)), [], `contrast in the dark at ${name}`);
  await picture(page, `${name}-dark`);
  await page.emulateMedia({ colorScheme: "light" });
  const size = page.viewportSize();
  await page.setViewportSize({ width: 380, height: 780 });
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(over <= 0, `${name} scrolls sideways by ${over} pixels on a phone`);
  await picture(page, `${name}-phone`);
  await page.setViewportSize(size);
}

async function picture(page, name) {
  if (pictures === undefined) return;
  await mkdir(pictures, { recursive: true });
  await page.waitForTimeout(250);
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
}

async function enter(context) {
  const page = await context.newPage();
  await page.goto("/");
  await page.getByRole("button", { name: "Sign in as a guest" }).click();
  await page.getByRole("heading", { name: "Your organizations" }).waitFor();
  return page;
}

const feedOf = (page) => page.getByRole("log");
const pad = (page, name) => page.locator(".pad", { hasText: name });
const press = (page, name) => pad(page, name).click();
const setting = (page, key) => page.locator(`.setting[data-key="${key}"]`);

async function change(page, key, fillIn, reason) {
  const row = setting(page, key);
  await row.getByRole("button", { name: /^Change/ }).click();
  await fillIn(row);
  await row.getByLabel("Reason").fill(reason);
  await row.getByRole("button", { name: "Save" }).click();
  await row.getByLabel("Reason").waitFor({ state: "detached" });
}

const memberRow = (page, who) => page.locator(`li[data-user="${who}"]`);
const who = async (page) => (await page.locator(".who").innerText()).trim();
const openTab = (page, name) => page.getByRole("navigation", { name: "Sections" }).getByRole("link", { name, exact: true }).click();
const live = (page) => page.locator('.live[data-state="live"]').waitFor();
/** Every organization view asks now and then; nothing else tells of a role that grew, or of an organization that opened. */
const found = { timeout: 40_000 };

async function invite(page, role) {
  await page.getByLabel("Role", { exact: true }).selectOption(role);
  await page.getByRole("button", { name: "Create code" }).click();
  return page.getByLabel("Invitation code").inputValue();
}

/** How an organization is governed: roles, suspension, deletion, and the log of it all. */
async function government(anna, ben, chat) {
  const third = await guest();
  const organization = chat.replace(/\/projects\/.*/, "");

  await step("a member is promoted, and what they may do appears in their window", async () => {
    await anna.goto(`${organization}/members`);
    await ben.goto(`${organization}/members`);
    await ben.getByRole("heading", { name: "Members" }).waitFor();
    assert.equal(await ben.getByRole("button", { name: "Create code" }).count(), 0);
    const row = memberRow(anna, await who(ben));
    await row.getByRole("combobox").selectOption("admin");
    await row.getByRole("button", { name: /^Change/ }).click();
    await row.getByRole("button", { name: /^Change/ }).waitFor({ state: "hidden" });
    await ben.getByRole("button", { name: "Create code" }).waitFor(found);
    await look(anna, "members-owner");
    provoked = /409/;
    const own = memberRow(anna, await who(anna));
    await own.getByRole("combobox").selectOption("member");
    await own.getByRole("button", { name: /^Change/ }).click();
    await own.getByRole("alert").getByText("last_owner").waitFor();
    await own.getByRole("button", { name: /^Leave/ }).click();
    await anna.getByRole("dialog").getByRole("button", { name: "Leave" }).click();
    await anna.getByRole("dialog").getByText("last_owner").waitFor();
    await look(anna, "members-leave");
    await anna.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    provoked = null;
  });

  await step("a member is removed, and their window finds out", async () => {
    const cara = await enter(third);
    await cara.getByLabel("Invitation code").fill(await invite(anna, "viewer"));
    await cara.getByRole("button", { name: "Join" }).click();
    await cara.getByRole("heading", { name: "Northwind", level: 1 }).waitFor();
    await cara.goto(chat);
    await live(cara);
    await anna.reload();
    provoked = /40[34]/;
    await memberRow(anna, await who(cara)).getByRole("button", { name: /^Remove/ }).click();
    await anna.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await memberRow(anna, await who(cara)).waitFor({ state: "detached" });
    await cara.getByRole("heading", { name: "You no longer have access to Northwind" }).waitFor(found);
    await look(cara, "removed");
    await third.close();
    provoked = null;
  });

  await step("a suspension is seen in every window, and its end, too", async () => {
    await ben.goto(chat);
    await live(ben);
    await openTab(anna, "Settings");
    await look(anna, "settings");
    provoked = /403/;
    await anna.getByRole("button", { name: "Suspend …" }).click();
    await anna.getByRole("dialog").getByRole("button", { name: "Suspend" }).click();
    for (const page of [anna, ben]) await page.getByText("Northwind is suspended").waitFor(found);
    assert.equal(await ben.locator(".pad").count(), 0);
    await look(ben, "chat-suspended");
    let streams = 0;
    const count = (request) => {
      if (request.url().endsWith("/events")) streams += 1;
    };
    ben.on("request", count);
    for (const name of ["Projects", "Members", "Configuration", "Audit"]) {
      await openTab(anna, name);
      await anna.locator(`.tabs [aria-current="page"]`, { hasText: name }).waitFor();
      await anna.getByText("Northwind is suspended").waitFor();
      assert.equal(await anna.getByRole("main").getByRole("button", { name: /^(Create|Create code|Change|Remove|Leave)/ }).count(), 0);
      await look(anna, `suspended-${name.toLowerCase()}`);
    }
    assert.equal(streams, 0, "a window of a closed organization asks for no stream");
    ben.off("request", count);
    await anna.getByRole("link", { name: "Organizations", exact: true }).click();
    await anna.getByRole("listitem").getByText("Suspended").waitFor();
    await look(anna, "organizations-suspended");
    await anna.goto(`${organization}/members`);
    await anna.getByRole("button", { name: "Resume" }).click();
    await anna.getByRole("button", { name: "Create code" }).waitFor();
    await ben.locator('.live[data-state="live"]').waitFor(found);
    provoked = null;
    await press(ben, "Ready");
    await feedOf(ben).getByText("Ready").waitFor();
  });

  await step("a deletion is asked for by name, watched, and canceled", async () => {
    await openTab(anna, "Settings");
    await anna.getByRole("button", { name: "Delete …" }).click();
    await anna.getByLabel("Organization name, to confirm").fill("Southwind");
    await anna.getByRole("button", { name: "Delete organization" }).click();
    assert.equal(await anna.getByRole("dialog").locator("input:invalid").count(), 1);
    await look(anna, "delete");
    provoked = /403/;
    await anna.getByLabel("Organization name, to confirm").fill("Northwind");
    await anna.getByRole("button", { name: "Delete organization" }).click();
    await anna.locator('.steps li[data-status="RUNNING"]', { hasText: "Grace period" }).waitFor();
    await look(anna, "deletion");
    await ben.getByText("Northwind will be deleted").waitFor(found);
    await look(ben, "chat-deleting");
    await anna.goto(`${organization}/settings`);
    await anna.getByRole("link", { name: "Watch the deletion" }).click();
    await anna.locator(".steps li").first().waitFor();
    await anna.getByRole("button", { name: "Cancel the deletion" }).click();
    await anna.getByText("Northwind was restored").waitFor(found);
    await look(anna, "deletion-canceled");
    await live(ben);
    provoked = null;
  });

  await step("the audit log tells all of it", async () => {
    await anna.goto(`${organization}/audit`);
    const [a, b] = [await who(anna), await who(ben)];
    const entry = (text) => anna.locator(".audit li", { hasText: text });
    for (const deed of ["canceled the organization's deletion", "requested the organization's deletion", "resumed the organization", "suspended the organization", "removed guest-"]) {
      await entry(`${a} ${deed}`).first().waitFor();
    }
    await entry(`${a} changed the role of ${b}`).getByText("Member → Admin").waitFor();
    await entry(`${a} set chat.max_active_sessions`).getByText("One window is enough during the release.").waitFor();
    const numbers = await anna.locator(".audit summary").evaluateAll((all) => all.map((one) => Number(/\d+/.exec(one.textContent)[0])));
    assert.deepEqual(numbers, numbers.toSorted((x, y) => y - x), "newest first");
    await anna.locator(".audit summary").first().click();
    await look(anna, "audit");
    await anna.getByLabel("Show").selectOption("organization.suspended");
    await anna.locator('.audit li:not([data-action="organization.suspended"])').first().waitFor({ state: "detached" });
    await entry("suspended the organization").waitFor();
    assert.equal(await anna.locator(".audit li").count(), 1);
  });

  await step("ownership is handed over, and the former owner leaves", async () => {
    await openTab(anna, "Members");
    await anna.getByRole("button", { name: "Hand over …" }).click();
    await look(anna, "hand-over");
    await anna.getByRole("dialog").getByRole("button", { name: "Hand over" }).click();
    await memberRow(anna, await who(ben)).getByText("Owner").waitFor();
    assert.equal(await anna.getByRole("link", { name: "Settings" }).count(), 0);
    await memberRow(anna, await who(anna)).getByRole("button", { name: /^Leave/ }).click();
    await anna.getByRole("dialog").getByRole("button", { name: "Leave" }).click();
    await anna.getByText("No organizations yet").waitFor();
  });
}

async function mainJob() {
  await wire.open();
  const [first, second] = [await guest(), await guest(wire.address)];

  const anna = await step("a guest comes in", async () => {
    const page = await first.newPage();
    await page.goto("/");
    await page.getByRole("button", { name: "Sign in as a guest" }).waitFor();
    await look(page, "entrance");
    await page.close();
    return enter(first);
  });

  await step("creates an organization and sees every step", async () => {
    await look(anna, "organizations-empty");
    await anna.getByLabel("Name", { exact: true }).fill("Northwind");
    await anna.getByRole("button", { name: "Create" }).click();
    await anna.getByRole("link", { name: "Open Northwind" }).waitFor();
    const states = await anna.locator(".steps li").evaluateAll((rows) => rows.map((row) => row.dataset.status));
    assert.ok(states.length >= 3 && states.every((state) => state === "DONE"), `steps ended as ${states}`);
    await look(anna, "operation");
    await anna.getByRole("link", { name: "Open Northwind" }).click();
    await anna.getByRole("heading", { name: "Northwind", level: 1 }).waitFor();
  });

  await step("creates a project", async () => {
    await anna.getByText("No projects yet").waitFor();
    await look(anna, "projects-empty");
    await anna.getByLabel("Name", { exact: true }).fill("Storefront");
    await anna.getByRole("button", { name: "Create" }).click();
    await anna.getByRole("heading", { name: "Storefront", level: 1 }).waitFor();
    await anna.locator('.live[data-state="live"]').waitFor();
    await look(anna, "chat-empty");
  });
  const chat = anna.url();

  const ben = await step("invites a second guest, who joins by the code", async () => {
    await anna.getByRole("link", { name: "Northwind" }).click();
    await anna.getByRole("link", { name: "Members" }).click();
    const code = await invite(anna, "member");
    await look(anna, "members");
    const page = await enter(second);
    await page.getByLabel("Invitation code").fill(code);
    await page.getByRole("button", { name: "Join" }).click();
    await page.getByRole("heading", { name: "Northwind", level: 1 }).waitFor();

    const third = await guest();
    const late = await enter(third);
    provoked = /404/;
    await late.getByLabel("Invitation code").fill(code);
    await late.getByRole("button", { name: "Join" }).click();
    await late.getByRole("alert").getByText("invitation_not_found").waitFor();
    await late.goto(chat);
    await late.getByRole("heading", { name: "Not found" }).waitFor();
    await look(late, "not-found");
    await third.close();
    provoked = null;
    return page;
  });

  await step("two windows see each other's signals at once", async () => {
    await anna.goto(chat);
    await ben.goto(chat);
    for (const page of [anna, ben]) await page.locator('.live[data-state="live"]').waitFor();
    await press(anna, "Ready");
    for (const page of [anna, ben]) await feedOf(page).getByText("Ready").waitFor();
    await press(ben, "Tests green");
    for (const page of [anna, ben]) await feedOf(page).getByText("Tests green").waitFor();
    assert.equal(await feedOf(anna).getByText("You").count(), 1);
    for (const page of [anna, ben]) assert.equal(await pad(page, "Ready").locator(".pad-count").innerText(), "1");
    await look(anna, "chat");
  });

  await step("a change of the configuration is live everywhere", async () => {
    const watcher = await second.newPage();
    await watcher.goto(`${chat}/configuration`);
    await setting(watcher, "chat.max_active_sessions").locator("output").getByText("3").waitFor();
    await watcher.locator('.rollout[data-state="live"]').waitFor();
    const admin = await first.newPage();
    await admin.goto(`${chat}/configuration`);
    await change(admin, "chat.max_active_sessions", (row) => row.getByLabel("Value").fill("1"), "One window is enough during the release.");
    await setting(watcher, "chat.max_active_sessions").locator("output").getByText("1").waitFor();
    const rollout = admin.locator(".rollout strong");
    await rollout.getByText(/^(\d+)\/\1 processes at revision \d+$/).waitFor();
    console.log(`                 ${await admin.locator(".rollout p").innerText()}`);
    const row = setting(admin, "chat.max_active_sessions");
    await row.getByRole("button", { name: /^History/ }).click();
    await row.getByText("One window is enough during the release.").waitFor();
    await look(admin, "configuration");
    await row.getByRole("button", { name: /^Why/ }).click();
    await row.getByText("In effect").waitFor();
    await row.getByRole("button", { name: /^Change/ }).click();
    await look(admin, "configuration-change");
    provoked = /422/;
    await row.getByLabel("Value").evaluate((input) => input.removeAttribute("max"));
    await row.getByLabel("Value").fill("99");
    await row.getByLabel("Reason").fill("To see it refused.");
    await row.getByRole("button", { name: "Save" }).click();
    await row.getByRole("alert").getByText("config_value_invalid").waitFor();
    provoked = null;
    await picture(admin, "configuration-refused");
    await watcher.close();
    await admin.close();
  });

  await step("the newest window wins under the new limit", async () => {
    const newer = await second.newPage();
    await newer.goto(chat);
    await newer.locator('.live[data-state="live"]').waitFor();
    await ben.getByText("This window was replaced by a newer one.").waitFor();
    await look(ben, "chat-replaced");
    await press(newer, "Deployed");
    await feedOf(anna).getByText("Deployed").waitFor();
    assert.equal(await feedOf(ben).getByText("Deployed").count(), 0);
    await newer.close();
    await ben.getByRole("button", { name: "Use this window again" }).click();
    await ben.locator('.live[data-state="live"]').waitFor();
  });

  await step("a window that lost its connection misses nothing", async () => {
    provoked = /net::ERR_/;
    wire.cut();
    await ben.locator('.live:not([data-state="live"])').waitFor();
    await press(anna, "Blocked");
    await feedOf(anna).getByText("Blocked").waitFor();
    wire.mend();
    await press(anna, "Rollback");
    for (const name of ["Blocked", "Rollback"]) {
      await feedOf(ben).getByText(name).waitFor();
      assert.equal(await feedOf(ben).getByText(name).count(), 1);
    }
    provoked = null;
  });

  const api = Number(process.env.ATRIUM_API_PID ?? "0");
  if (api > 0) {
    await step("a restart of the API is not noticed", async () => {
      provoked = /net::ERR_|50[0-9]/;
      process.kill(api, "SIGTERM");
      await anna.locator('.live:not([data-state="live"])').waitFor();
      for (const page of [anna, ben]) await page.locator('.live[data-state="live"]').waitFor({ timeout: 40_000 });
      await press(anna, "In review");
      for (const page of [anna, ben]) {
        await feedOf(page).getByText("In review").waitFor();
        assert.equal(await feedOf(page).getByText("In review").count(), 1);
      }
      provoked = null;
    });
  }

  await government(anna, ben, chat);

  await step("the API reference and the error catalog can be read", async () => {
    const page = await second.newPage();
    await page.goto("/docs");
    await page.locator(".operation").first().waitFor();
    const all = await page.locator(".operation:visible").count();
    assert.ok(all > 30, `${all} operations`);
    await page.getByLabel("Search").fill("chat session events");
    await page.locator("#found").getByText(/of/).waitFor();
    const some = await page.locator(".operation:visible").count();
    assert.ok(some > 0 && some < all, `${some} of ${all} operations`);
    await page.goto("/docs#streamChat");
    await page.locator("#streamChat").getByText("chat.session-closed").first().waitFor();
    await look(page, "reference");
    await page.goto("/docs/errors#rate_limited");
    await page.locator("#rate_limited.here").waitFor();
    await look(page, "errors");
    await page.close();
  });

  await step("stays signed in when the access token runs out, in two windows at once", async () => {
    const twin = await first.newPage();
    await twin.goto("/");
    const signedIn = (page) => page.getByRole("button", { name: "Sign out" }).waitFor();
    await signedIn(twin);
    const refreshed = (page) => page.waitForResponse((answer) => answer.url().endsWith("/v1/auth/refresh") && answer.ok());
    // The clock: what one window remembers, the others follow.
    const early = refreshed(anna);
    await twin.evaluate(() => {
      const me = JSON.parse(localStorage.getItem("atrium.guest"));
      localStorage.setItem("atrium.guest", JSON.stringify({ ...me, expires_at: new Date(Date.now() + 5_000).toISOString() }));
    });
    await early;
    // A refusal: the tokens expired while nobody looked.
    provoked = /401/;
    await first.clearCookies({ name: "atrium_session" });
    const late = Promise.any([refreshed(anna), refreshed(twin)]);
    await Promise.all([anna.reload(), twin.reload()]);
    await late;
    await Promise.all([signedIn(anna), signedIn(twin)]);
    provoked = null;
    const names = async (path) => (await first.cookies(base + path)).map(({ name }) => name).sort();
    assert.deepEqual(await names("/v1/auth/refresh"), ["atrium_refresh", "atrium_session"]);
    assert.deepEqual(await names("/v1/orgs"), ["atrium_session"]);
    await twin.close();
  });

  await step("signs out", async () => {
    provoked = /401/;
    await anna.getByRole("button", { name: "Sign out" }).click();
    await anna.getByRole("button", { name: "Sign in as a guest" }).waitFor();
    provoked = null;
  });
}

let code = 0;
try {
  await mainJob();
} catch (error) {
  console.error(error);
  code = 1;
} finally {
  await browser.close();
}
process.exit(code);

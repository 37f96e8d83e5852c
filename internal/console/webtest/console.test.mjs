// The console in Chromium. web_test.go serves what is looked at, and starts this.
import { test, after } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const control = async (what) => {
  const answer = await fetch(process.env.CONTROL + what);
  if (!answer.ok) throw new Error(`${what}: ${await answer.text()}`);
  return answer.json();
};
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium", timeout: 120_000,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
after(() => browser.close());

// patience is only there to end what hangs, in ms.
const patience = Number(process.env.PATIENCE ?? 60_000);

const complaints = []; // of pages: none is well
let deliberate = 0; // while it is not 0, refusals are what we want

// person opens a browser of its own; inside says into which console.
async function person(inside, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, timezoneId: "America/Montreal", locale: "en-CA", ...options });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  page.on("console", (m) => { if (m.type() === "error" && !deliberate) complaints.push(`${page.url()}: ${m.text()}`); });
  page.on("pageerror", (e) => complaints.push(`${page.url()}: ${e.stack}`));
  if (inside) {
    await page.goto(await control(`/link?of=${inside}`));
    await page.waitForURL((url) => url.pathname === "/");
    await page.locator("#pulse[data-state=on]").waitFor();
  }
  return page;
}

// until waits for a condition, never for a time.
async function until(what, ok) {
  for (const end = Date.now() + patience; ;) {
    const got = await ok();
    if (got) return got;
    if (Date.now() > end) assert.fail(`it never came that ${what}`);
    await new Promise((go) => setTimeout(go, 50));
  }
}

// painted counts the pixels of a lane that have the colour of a phase.
const painted = (page, slot, phase) => page.evaluate(([slot, phase]) => {
  const canvas = document.querySelector(`canvas[data-slot="${slot}"]`);
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${phase}`).trim();
  probe.fillRect(0, 0, 1, 1);
  const want = probe.getImageData(0, 0, 1, 1).data, have = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let n = 0;
  for (let i = 0; i < have.length; i += 4) if (have[i] === want[0] && have[i + 1] === want[1] && have[i + 2] === want[2]) n++;
  return n;
}, [slot, phase]);

const shots = process.env.SHOTS;
if (shots) mkdirSync(shots, { recursive: true });
async function shot(page, name, options = {}) {
  if (shots) await page.screenshot({ path: join(shots, `${name}.png`), animations: "disabled", ...options });
}

// accessible looks with axe-core; of a page that was looked at before, in other
// colours, at what depends on them.
async function accessible(page, what, rules) {
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate((rules) => axe.run(document, { resultTypes: ["violations"], ...(rules && { runOnly: rules }) }), rules);
  const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
  assert.deepEqual(serious.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.any[0]?.message ?? ""}`).join("; ")}`), [], `${what} keeps people out`);
}

test("a stranger gets nothing, and a link lets one browser in, once", async () => {
  deliberate++;
  const stranger = await person();
  const link = await control("/link?of=fleet"), root = new URL("/", link).href;
  for (const path of ["", "runs", "images", "live?page=now", "assets/x/page.js", "enter/AAAAAAAAAAAAAAAAAAAAAAAAAA"]) {
    const answer = await stranger.goto(root + path);
    assert.equal(answer.status(), 401, path);
    assert.match(await stranger.textContent("body"), /There is no session.*tasuki console/s);
  }
  const first = await person();
  await first.goto(link);
  await first.waitForURL(root);
  assert.equal(await first.title(), "Now · mini-3 · Tasuki");
  const [cookie] = await first.context().cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict", JSON.stringify(cookie));
  assert.equal((await stranger.goto(link)).status(), 401, "the link works twice");
  // Another site that makes its name mean our address.
  const rebound = await fetch(root, { headers: { cookie: `${cookie.name}=${cookie.value}` } });
  assert.equal(rebound.status, 200);
  await first.getByRole("button", { name: "Sign out" }).click();
  await first.getByText("The session has ended").waitFor();
  assert.equal((await first.goto(root)).status(), 401);
  await first.context().close();
  await stranger.context().close();
  deliberate--;
});

let page;

test("the lanes change while jobs run, without a reload", async () => {
  page = await person("fleet");
  await page.evaluate(() => { globalThis.untouched = true; });
  await page.locator("#slots .chip.idle").nth(1).waitFor();
  await control("/submit?n=3&label=app");
  await page.locator("#slots .chip.busy").first().waitFor();
  await page.locator("#slots .what", { hasText: "build (" }).first().waitFor();
  const slot = await page.locator("#slots .lane", { has: page.locator(".chip.busy") }).first().locator("canvas").getAttribute("data-slot");
  await page.getByRole("button", { name: "15 min" }).click();
  const some = await until("the lane shows a job", () => painted(page, slot, "busy"));
  assert.ok(some > 0);
  assert.ok(await page.evaluate(() => globalThis.untouched), "the page was loaded again");
});

test("a job that waits has its reason", async () => {
  const waits = page.locator("#waits .wait", { hasText: 'pool "app"' });
  await waits.waitFor();
  await waits.getByText(/no free slot: the host has 2, taken by 1 busy in pool app, 1 idle in pool mac/).waitFor();
});

test("a run has its waterfall and its log while it goes on, and then its end", async () => {
  await page.locator("#slots .what", { hasText: "build (" }).first().click();
  await page.waitForURL(/\/runs\/tasuki-/);
  await page.evaluate(() => { globalThis.untouched = true; });
  await page.locator("#waterfall li.open .name", { hasText: "job" }).waitFor();
  assert.equal(await page.locator("#waterfall li").count(), 10);
  assert.ok(await page.locator("#waterfall rect.starting").count() >= 5, "the steps before the job");
  const log = page.locator("#log");
  await log.getByText(/line 1 of <b>the job<\/b>/).waitFor(); // text, with neither markup nor colours
  const before = (await log.textContent()).length;
  await until("the log grows", async () => (await log.textContent()).length > before);
  assert.doesNotMatch(await log.textContent(), /\u001b|\[32m/);
  await control("/finish");
  await page.locator("#facts .chip.success").waitFor();
  await page.locator("#logstate", { hasText: "complete" }).waitFor();
  await log.getByText("completed with result: Succeeded").waitFor();
  assert.equal(await page.locator("#waterfall li.open").count(), 0);
  assert.ok(await page.evaluate(() => globalThis.untouched), "the page was loaded again");
  await shot(page, "run-live");
});

test("a pool and the host are drained and resumed, after a question", async () => {
  await page.goto(new URL("/", page.url()).href);
  const pools = page.locator("#pools");
  await page.getByRole("link", { name: "Drain pool mac" }).click();
  const ask = page.locator("#ask");
  await ask.getByRole("heading", { name: "Drain pool mac?" }).waitFor();
  await ask.getByText("Cancel").click();
  assert.equal((await control("/status")).pools.some((p) => p.draining), false, "cancelled, and drained");
  await page.getByRole("link", { name: "Drain pool mac" }).click();
  await ask.getByRole("button", { name: "Drain" }).click();
  await pools.getByRole("link", { name: "Resume pool mac" }).waitFor();
  assert.equal((await control("/status")).pools.find((p) => p.name === "mac").draining, true);
  await page.locator("#waits .wait", { hasText: "the pool is drained" }).waitFor();
  await pools.getByRole("link", { name: "Resume pool mac" }).click();
  await ask.getByRole("button", { name: "Resume" }).click();
  await pools.getByRole("link", { name: "Drain pool mac" }).waitFor();
  await page.getByRole("link", { name: "Drain host…" }).click();
  await ask.getByRole("button", { name: "Drain" }).click();
  await page.getByRole("link", { name: "Resume host…" }).waitFor();
  assert.equal((await control("/status")).draining, true);
  // Without scripts the question is a page.
  const plain = await person(null, { javaScriptEnabled: false });
  await plain.context().addCookies(await page.context().cookies());
  await plain.goto(new URL("/resume", page.url()).href);
  await plain.getByRole("button", { name: "Resume" }).click();
  await plain.getByText("Drain host…").waitFor();
  assert.equal((await control("/status")).draining, false);
  await plain.context().close();
  await page.getByRole("link", { name: "Drain host…" }).waitFor(); // the other page hears of it
});

test("what is over is in Runs, and a job that failed is marked", async () => {
  await control("/submit?n=1&label=mac");
  await until("the job has failed", async () => {
    await page.goto(new URL("/runs?conclusion=failure", page.url()).href);
    return page.locator("tbody .chip.failure").count();
  });
  await page.locator("tbody tr", { hasText: "build" }).filter({ hasText: "failure" }).first().waitFor();
  await page.getByLabel("Pool").selectOption("app");
  await page.getByLabel("Conclusion").selectOption("success");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/pool=app/);
  assert.ok(await page.locator("tbody .chip.success").count() >= 1);
  assert.equal(await page.locator("tbody .chip.failure").count(), 0);
  await page.locator("#plots canvas").nth(2).waitFor();
});

test("a thousand runs", async () => {
  const full = await person("full");
  await full.goto(new URL("/runs?time=24h", full.url()).href);
  await full.locator("#plots canvas").nth(2).waitFor();
  assert.equal(await full.locator("tbody tr[data-row]").count(), 100);
  await full.getByRole("link", { name: "Older" }).click();
  await full.getByText("Latest before").waitFor();
  const seen = new Set();
  for (let next = "/runs?time=24h"; next; ) {
    const html = await (await full.request.get(new URL(next, full.url()).href)).text();
    for (const [, name] of html.matchAll(/<a href="\/runs\/(tasuki-[a-z0-9-]+)"/g)) seen.add(name);
    next = html.match(/href="([^"]+)" rel="next"/)?.[1].replaceAll("&amp;", "&");
  }
  assert.ok(seen.size >= 1000, `the pages list ${seen.size} runs`);
  await full.getByRole("link", { name: "Latest" }).click();
  await full.locator("tbody tr a").nth(40).click();
  assert.equal(await full.locator("#waterfall li").count(), 10);
  await full.locator("#log", { hasText: "no longer kept" }).waitFor();
  await full.context().close();
});

test("Now costs less than 150 KB, and times are the viewer's", async () => {
  const full = await person(null);
  const devtools = await full.context().newCDPSession(full);
  let bytes = 0;
  await devtools.send("Network.enable");
  devtools.on("Network.loadingFinished", (e) => { bytes += e.encodedDataLength; });
  devtools.on("Network.dataReceived", (e) => { if (streams.has(e.requestId)) bytes += e.dataLength; });
  const streams = new Set();
  devtools.on("Network.responseReceived", (e) => { if (e.type === "EventSource") streams.add(e.requestId); });
  await full.goto(await control("/link?of=full"));
  await full.waitForURL((url) => url.pathname === "/");
  await full.locator("#pulse[data-state=on]").waitFor();
  await until("the lanes are there", () => painted(full, 0, "busy"));
  console.log(`Now: ${Math.round(bytes / 1000)} kB transferred`);
  assert.ok(bytes > 5_000 && bytes < 150_000, `${bytes} bytes`);

  const time = full.locator(".needs time, .well time").first();
  if (await time.count()) assert.match(await time.getAttribute("title"), /UTC$/);
  await full.goto(new URL("/runs", full.url()).href);
  const began = full.locator("tbody time").first();
  const utc = new Date(await began.getAttribute("datetime"));
  const local = new Intl.DateTimeFormat("en-CA", { timeZone: "America/Montreal", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(utc);
  assert.ok((await began.textContent()).includes(local), `${await began.textContent()} is not ${local}`);
  assert.equal(await began.getAttribute("title"), `${utc.toISOString().slice(0, 19).replace("T", " ")} UTC`);
  await full.context().close();
});

test("a host where much is wrong says so", async () => {
  const failing = await person("failing");
  await failing.getByText("401 Bad credentials").waitFor();
  await failing.locator("#needs .problem", { hasText: "3 GB are free" }).waitFor();
  await failing.locator("#needs", { hasText: "failed twice" }).waitFor();
  await failing.locator(".chip.failed", { hasText: "held" }).waitFor();
  assert.ok(await failing.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page is wider than the window");
  await accessible(failing, "Now of a failing host");
  await failing.goto(new URL("/images", failing.url()).href);
  await failing.getByText("database disk image is malformed").waitFor();
  deliberate++;
  const answer = await failing.goto(new URL("/runs", failing.url()).href);
  assert.equal(answer.status(), 500);
  await failing.getByText("database disk image is malformed").waitFor();
  deliberate--;
  await failing.context().close();
});

test("a host on its first day", async () => {
  const empty = await person("empty");
  await empty.getByText("This host has no slots").waitFor();
  await empty.getByText("No pool is configured.").first().waitFor();
  await accessible(empty, "Now of an empty host");
  await empty.goto(new URL("/runs", empty.url()).href);
  await empty.getByText("No runs in this time").waitFor();
  await empty.goto(new URL("/images", empty.url()).href);
  await empty.getByText("No image from a registry is on this host").waitFor();
  await empty.context().close();
});

test("a stream that breaks comes back, and an agent that ended lets nobody stay", async () => {
  const empty = await person("empty");
  deliberate++;
  await control("/stop?of=empty");
  await empty.locator("#pulse[data-state=late]").waitFor();
  await control("/start?of=empty");
  await empty.getByText("The session has ended. Open the console again").waitFor();
  deliberate--;
  await empty.context().close();
});

test("the keyboard is enough", async () => {
  const full = await person("full");
  await full.keyboard.press("?");
  await full.getByRole("heading", { name: "Keyboard" }).waitFor();
  await full.keyboard.press("Escape");
  await full.getByRole("heading", { name: "Keyboard" }).waitFor({ state: "hidden" });
  await full.keyboard.press("j");
  await full.keyboard.press("j");
  const focused = await full.evaluate(() => document.activeElement.getAttribute("href"));
  assert.match(focused, /^\/runs\//);
  await full.locator("#slots").evaluate((list) => new Promise((go) => setTimeout(go, 0))); // a part that is replaced keeps the focus
  await full.keyboard.press("]");
  await full.locator('#windows [data-window="6h"][aria-pressed="true"]').waitFor();
  assert.equal(await full.evaluate(() => document.activeElement.getAttribute("href")), focused);
  await full.keyboard.press("Enter");
  await full.waitForURL(/\/runs\/tasuki/);
  await full.keyboard.press("g");
  await full.keyboard.press("r");
  await full.waitForURL(/\/runs$/);
  await full.keyboard.press("/");
  assert.equal(await full.evaluate(() => document.activeElement.name), "repository");
  await full.keyboard.type("grtj?");
  assert.match(full.url(), /\/runs$/);
  await full.keyboard.press("Tab");
  await full.context().close();
});

for (const scheme of ["light", "dark"]) {
  test(`every page is accessible in ${scheme}, and looks right`, async () => {
    const full = await person("full", { colorScheme: scheme });
    await until("the lanes are there", () => painted(full, 0, "busy"));
    const rules = scheme === "dark" ? ["color-contrast", "link-in-text-block"] : undefined;
    await accessible(full, `Now, ${scheme}`, rules);
    await shot(full, `now-${scheme}`);
    const run = await full.locator("#slots .lane a.what").first().getAttribute("href");
    for (const [name, path] of [["runs", "/runs?time=24h&failed=1"], ["run", run], ["images", "/images"], ["question", "/drain?pool=ios"]]) {
      await full.goto(new URL(path, full.url()).href);
      if (name === "runs") await full.locator("#plots canvas").nth(2).waitFor();
      if (name === "run") await full.getByText("Running job").waitFor();
      await accessible(full, `${name}, ${scheme}`, rules);
      if (shots && name === "runs") await full.goto(new URL("/runs?time=24h", full.url()).href);
      if (shots && name === "runs") await full.locator("#plots canvas").nth(2).waitFor();
      await shot(full, `${name}-${scheme}`);
    }
    await full.context().close();
  });
}

test("the switch of colours is kept", async () => {
  const full = await person("full", { colorScheme: "light" });
  const ground = () => full.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const light = await ground();
  await full.keyboard.press("t");
  await full.keyboard.press("t");
  const dark = await ground();
  assert.notEqual(dark, light);
  await full.reload();
  assert.equal(await ground(), dark);
  await full.context().close();
});

test("a phone's width is enough", async () => {
  const phone = await person("full", { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
  await until("the lanes are there", () => painted(phone, 0, "busy"));
  for (const [name, path] of [["now", "/"], ["runs", "/runs?time=24h"], ["images", "/images"], ["run", await phone.locator("#slots .lane a.what").first().getAttribute("href")]]) {
    await phone.goto(new URL(path, phone.url()).href);
    if (name === "now") await until("the lanes are there", () => painted(phone, 0, "busy"));
    if (name === "runs") await phone.locator("#plots canvas").nth(2).waitFor();
    assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is wider than the phone`);
    if (name === "now") await accessible(phone, `${name} on a phone`);
    await shot(phone, `${name}-phone`);
  }
  await phone.context().close();
});

test("no page complained", () => assert.deepEqual(complaints, []));

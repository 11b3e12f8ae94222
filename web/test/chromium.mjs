// Tests the package, and the page, in a headless Chromium: see web/check.
//
//   node chromium.mjs PACKAGES quick|table|all [SCREENSHOTS]
//
// `table` also checks the whole table of cases, in a browser for each core, where `quick` checks every twelfth. `all`
// checks it in one browser, and measures the device's rates and a network in each look of the page.
// PACKAGES has the npm package `playwright-core`. CHROMIUM is the browser, if it is not `chromium` in PATH.
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { testPage } from "./page.mjs";

const [packages, mode, screenshots] = process.argv.slice(2);
const { chromium } = createRequire(join(packages, "/"))("playwright-core");
const folder = fileURLToPath(new URL("..", import.meta.url));
const types = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".wasm": "application/wasm" };
const executablePath = process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
const flags = [
  "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
];

let failures = 0;
const fail = (what) => {
  failures++;
  console.log(`FAILED: ${what}`);
};

/** Serves `web/`, as a static server would from any folder. */
const server = createServer(async (request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname)).slice(1);
  const file = join(folder, path.endsWith("/") ? `${path}index.html` : path);
  const body = await readFile(file).catch(() => null);
  if (!body) return response.writeHead(404).end();
  response.writeHead(200, { "Content-Type": types[extname(file)] ?? "application/octet-stream" }).end(body);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}/`;

/**
 * Opens a page in a browser of its own, since a process has one device; what it complains of fails, but for what is
 * expected. `prepare` is called before it is loaded.
 */
async function open(path, { prepare, expected, ...options } = {}) {
  const browser = await chromium.launch({ executablePath, args: flags });
  const page = await browser.newPage(options);
  await prepare?.(page);
  page.on("pageerror", (error) => fail(`${path}: ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !expected?.test(message.text())) fail(`${path}: ${message.text()}`);
  });
  page.on("crash", () => fail(`${path}: the page crashed`));
  page.on("request", (request) => {
    if (!/^(http:\/\/127\.0\.0\.1|data:|blob:)/.test(request.url())) fail(`${path}: a request to ${request.url()}`);
  });
  await page.goto(url + path);
  return { browser, page };
}

{
  const { browser, page } = await open("test/tests.html");
  await page.exposeFunction("say", (line) => console.log(line));
  failures += await page.evaluate(async (mode) => {
    const [gpuconv, { run }] = await Promise.all([import("/package/dist/gpuconv.js"), import("/test/tests.js")]);
    const readme = await (await fetch("/package/README.md")).text();
    return run({ gpuconv, readme, mode, log: say });
  }, mode);
  const shaders = page.evaluate(async () => (await import("/test/shaders.js")).testShaders());
  const complaints = await shaders.catch((error) => [`the page's shaders: ${error}`]);
  complaints.forEach(fail);
  if (!complaints.length) console.log("ok: the page's shaders");
  await browser.close();
}

/** Checks a share of the table. */
async function verify(share, shares) {
  const { browser, page } = await open("test/tests.html");
  const { cases, checks, failed, seconds } = await page.evaluate(async ([share, shares]) => {
    const gpuconv = await import("/package/dist/gpuconv.js");
    await gpuconv.default();
    const gpu = await gpuconv.GpuConv.create();
    return gpu.verify({ problems: gpuconv.cases().filter((_, index) => index % shares === share) });
  }, [share, shares]);
  failed.forEach((check) => fail(`verify: ${JSON.stringify(check)}`));
  if (!cases || checks < cases) fail(`verify: ${checks} checks on ${cases} cases`);
  console.log(`verify, ${share + 1} of ${shares}: ${checks} checks on ${cases} cases, ${seconds.toFixed()} s`);
  await browser.close();
}

if (mode === "table") {
  // SwiftShader compiles on one core.
  const shares = Math.min(availableParallelism(), 8);
  await Promise.all(Array.from({ length: shares }, (_, share) => verify(share, shares)));
}
await testPage({ open, fail, mode, screenshots });
server.close();
process.exit(failures ? 1 : 0);

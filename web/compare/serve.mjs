// Bundles the others and serves the page: see run.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { CASES } from "./cases.js";

const [packages, headless, ...cases] = process.argv.slice(2);
const known = CASES.map(({ problem }) => problem);
const unknown = cases.filter((line) => !known.includes(line));
if (unknown.length) {
  console.error(`no case ${unknown.map((line) => `'${line}'`).join(", ")}. There are:\n  ${known.join("\n  ")}`);
  process.exit(2);
}
const require = createRequire(join(packages, "/"));
const folder = fileURLToPath(new URL(".", import.meta.url));
const built = join(packages, "built");
mkdirSync(built, { recursive: true });
for (const name of ["ort", "tfjs"]) {
  require("esbuild").buildSync({
    entryPoints: [join(folder, `${name}.js`)], outfile: join(built, `${name}.js`), nodePaths: [join(packages, "node_modules")],
    bundle: true, minify: true, format: "esm", target: "es2022", external: ["node:*"], logLevel: "error",
  });
}
for (const type of ["mjs", "wasm"]) {
  const file = `ort-wasm-simd-threaded.asyncify.${type}`;
  cpSync(join(packages, "node_modules", "onnxruntime-web", "dist", file), join(built, file));
}

const types = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const server = createServer(async (request, response) => {
  let path;
  try {
    path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  } catch {
    return response.writeHead(400).end();
  }
  const file = path.startsWith("/compare/built/") ? join(built, path.slice(15)) : join(folder, "..", path);
  const body = await readFile(path.endsWith("/") ? join(file, "index.html") : file).catch(() => null);
  if (!body) return response.writeHead(404).end();
  response.writeHead(200, { "Content-Type": types[extname(path)] ?? "text/html" }).end(body);
});
await new Promise((resolve) => server.listen(headless ? 0 : 8080, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}/compare/`;

if (headless) {
  const { chromium } = require("playwright-core");
  const executablePath = process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
  const args = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  const browser = await chromium.launch({ executablePath, args });
  const page = await browser.newPage();
  page.on("console", (message) => message.type() === "error" && console.error(message.text()));
  await page.goto(url + "?" + new URLSearchParams(cases.map((line) => ["case", line])));
  await page.click("button");
  await page.waitForFunction(() => /Done|failed/.test(document.getElementById("state").textContent), null, { timeout: 3600e3 });
  console.log(await page.textContent("#state"));
  console.log(await page.inputValue("textarea"));
  await browser.close();
  process.exit(0);
}
console.log(`open ${url} in the browser to compare in; Ctrl+C ends it`);

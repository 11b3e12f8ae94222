// Tests the package in Node.js, on Dawn: see web/check.
//
//   node dawn.mjs PACKAGES quick|table|all
//
// PACKAGES has the npm package `webgpu`.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { run } from "./tests.js";

const [packages, mode] = process.argv.slice(2);
const { create, globals } = createRequire(join(packages, "/"))("webgpu");
Object.assign(globalThis, globals);
const gpu = create(process.platform === "linux" ? ["backend=vulkan"] : []);
// As the package's README has it: `gpu` cannot be changed.
const navigator = Object.defineProperty({ userAgent: "Node.js" }, "gpu", { value: gpu });
Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });

const folder = fileURLToPath(new URL("../package/", import.meta.url));
const module_or_path = await readFile(join(folder, "dist", "gpuconv_bg.wasm"));
const gpuconv = await import("../package/dist/gpuconv.js");
const readme = await readFile(join(folder, "README.md"), "utf8");
const failures = await run({ gpuconv, wasm: { module_or_path }, readme, mode, log: (line) => console.log(line) });
process.exit(failures ? 1 : 0);

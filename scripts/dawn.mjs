// Compiles the shaders of a folder with Dawn, runs those that have data, and compares: see scripts/dawn.
//
//   node dawn.mjs PACKAGES FOLDER quick|all
//
// PACKAGES has the package `webgpu`. tests/host/shaders/dawn.rs writes FOLDER.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [packages, folder, mode] = process.argv.slice(2);
const { create, globals } = createRequire(join(packages, "/"))("webgpu");
Object.assign(globalThis, globals);
/** Relative error that passes: verify's `MOST_RELATIVE_ERROR`. */
const MOST_RELATIVE_ERROR = 2e-5;
/**
 * A NaN that no arithmetic makes. It fills outputs and workspaces, and surrounds every buffer. Its halves are such NaNs
 * too.
 */
const POISON = 0x7fc57fc5;
const POISON_OF_HALVES = POISON & 0xffff;
/** Bytes around a buffer. A multiple of the alignment of bindings. */
const GUARD = 256;
/** Shaders that are compiled at a time, and runs whose shaders are there at a time. */
const AT_ONCE = 16;

const { shaders, runs } = JSON.parse(readFileSync(join(folder, "index.json"), "utf8"));
const data = readFileSync(join(folder, "data"));
const gpu = create(process.platform === "linux" ? ["backend=vulkan"] : []);
const adapter = await gpu.requestAdapter();
// Dawn does not keep these alive for the device.
globalThis.kept = [gpu, adapter];
const hasHalves = adapter.features.has("shader-f16");
const device = await adapter.requestDevice({ requiredFeatures: hasHalves ? ["subgroups", "shader-f16"] : ["subgroups"] });
console.log(`${adapter.info.description}, ${adapter.info.device}${hasHalves ? "" : ", without shader-f16"}`);
let failures = 0;
const fail = (what, why) => ++failures <= 20 && console.error(`failed: ${what}\n    ${why}`);

// Tint's front end, which checks all that WGSL asks for, takes each shader.
const modules = [];
for (const [number, shader] of shaders.entries()) modules.push(await check(shader, number));
const seconds = () => `${(performance.now() / 1e3).toFixed()} s`;
console.log(`${modules.filter((module) => module).length} of ${shaders.length} shaders accepted, ${seconds()}`);

// The rest of Tint, and the driver, take longer. A pipeline takes megabytes, so each goes when it was last needed.
const chosen = mode === "all" ? runs : runs.filter((run) => run.quick);
// Without halves, runs that need them have no shaders.
const possible = chosen.filter(({ passes }) => hasHalves || passes.every(({ shader }) => !needsHalves(shader)));
const lastUse = new Map(possible.flatMap(({ passes }, number) => passes.map(({ shader }) => [shader, number])));
const [pipelines, tried] = [new Map(), new Set()];
let [right, compiled] = [0, 0];
for (let first = 0; first < possible.length; first += AT_ONCE) {
  const now = possible.slice(first, first + AT_ONCE);
  await compileAll(new Set(now.flatMap(({ passes }) => passes.map(({ shader }) => shader))));
  for (const run of now) {
    const why = await execute(run).catch((error) => error.message);
    why ? fail(run.name, why) : right++;
  }
  await forget((shader) => lastUse.get(shader) < first + AT_ONCE);
}
const others = mode === "all" ? [...shaders.keys()].filter((shader) => !lastUse.has(shader)) : [];
for (let first = 0; first < others.length; first += AT_ONCE) {
  await compileAll(others.slice(first, first + AT_ONCE));
  await forget(() => true);
}
console.log(`${compiled} of ${tried.size} shaders compiled, ${seconds()}`);
const halves = possible.filter(({ half }) => half).length;
console.log(`${right} of ${possible.length} runs right, ${halves} of them in f16, ${seconds()}`);
process.exit(failures ? 1 : 0);

function textOf(number) {
  return readFileSync(join(folder, `${number}.wgsl`), "utf8");
}

/** Whether a shader has half-precision numbers of its own. */
function needsHalves(number) {
  return /^enable f16;$/m.test(textOf(number));
}

/** A shader's module, or null. */
async function check({ origin }, number) {
  const text = textOf(number);
  if (!hasHalves && needsHalves(number)) return null;
  // naga 30, wgpu's own front end, does not know this line.
  const code = /\bsubgroup[A-Z]/.test(text) ? `enable subgroups;\n${text}` : text;
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code });
  const error = await device.popErrorScope();
  if (error) fail(`${origin}, ${number}.wgsl`, error.message);
  return error ? null : module;
}

/** Makes the pipelines that were not made before, some at a time. */
async function compileAll(numbers) {
  const missing = [...numbers].filter((number) => !tried.has(number));
  missing.forEach((number) => tried.add(number));
  for (let first = 0; first < missing.length; first += AT_ONCE) {
    await Promise.all(missing.slice(first, first + AT_ONCE).map(compile));
  }
}

/** Lets go of pipelines, and of their modules. Node.js frees them when it collects garbage, whose size it does not see. */
async function forget(isDone) {
  for (const shader of [...pipelines.keys()].filter(isDone)) {
    pipelines.delete(shader);
    modules[shader] = null;
  }
  globalThis.gc?.();
  await new Promise(setImmediate);
}

/** Makes a shader's pipeline. */
async function compile(number) {
  if (!modules[number]) return;
  const { origin, written } = shaders[number];
  const types = ["uniform", ...written.map((is) => (is ? "storage" : "read-only-storage"))];
  const entries = types.map((type, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } }));
  const layout = device.createPipelineLayout({ bindGroupLayouts: [device.createBindGroupLayout({ entries })] });
  const compute = { module: modules[number], entryPoint: "main" };
  const made = await device.createComputePipelineAsync({ layout, compute }).catch((error) => error);
  if (!(made instanceof GPUComputePipeline)) return fail(`${origin}, ${number}.wgsl`, made.message);
  pipelines.set(number, made);
  compiled++;
}

/** Runs a recipe. Gives what is wrong, if anything is. */
async function execute({ buffers, output, passes, expected, bounds, half, norm }) {
  const missing = passes.find(({ shader }) => !pipelines.has(shader));
  if (missing) return `${missing.shader}.wgsl was not compiled`;
  device.pushErrorScope("validation");
  const made = buffers.map(guarded);
  const encoder = device.createCommandEncoder();
  for (const { shader, params, bindings, grid } of passes) {
    const usage = GPUBufferUsage.UNIFORM;
    made.push(filled(params.length * 4, usage, (words) => words.set(params)));
    // The guard behind a buffer is bound with it, so that Dawn's checks of indices let stray accesses through.
    const resource = (index) => ({ buffer: made[index], offset: GUARD });
    const resources = [{ buffer: made.at(-1) }, ...bindings.map(resource)];
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipelines.get(shader));
    pass.setBindGroup(0, device.createBindGroup({ layout: pipelines.get(shader).getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(...grid);
    pass.end();
  }
  const { size } = made[output];
  const copy = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  encoder.copyBufferToBuffer(made[output], 0, copy, 0, size);
  device.queue.submit([encoder.finish()]);
  const error = await device.popErrorScope();
  if (error) return error.message;
  await copy.mapAsync(GPUMapMode.READ);
  const all = copy.getMappedRange().slice(0);
  [...made, copy].forEach((buffer) => buffer.destroy());
  return judge(all, numbers(expected), numbers(bounds), half && numbers(half), norm);
}

/** What is wrong with an output and its guards. `half` has what the stores of an output in f16 may change. */
function judge(all, expected, bounds, half, norm) {
  const bits = half ? new Uint16Array(all) : new Uint32Array(all);
  const values = half ? Float64Array.from(bits, fromHalf) : new Float32Array(all);
  const poison = half ? POISON_OF_HALVES : POISON;
  const start = GUARD / bits.BYTES_PER_ELEMENT;
  let [stray, unwritten, share, squares] = [0, 0, 0, 0];
  bits.forEach((element, index) => {
    const inside = index >= start && index < start + expected.length;
    stray += !inside && element !== poison;
    unwritten += inside && element === poison;
  });
  expected.forEach((value, index) => {
    // Math.max keeps a NaN.
    const error = Math.max(0, Math.abs(values[start + index] - value) - (half?.[index] ?? 0));
    share = Math.max(share, error / bounds[index]);
    squares += error * error;
  });
  const relative = Math.sqrt(squares) / norm;
  const passes = stray + unwritten === 0 && share <= 1 && relative <= MOST_RELATIVE_ERROR;
  return passes ? "" : `${share} of the bound, relative error ${relative}, ${unwritten} unwritten, ${stray} stray`;
}

/** The number of an f16's bits. */
function fromHalf(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : sign * 2 ** -24 * fraction;
}

function numbers({ at, bytes }) {
  return new Float64Array(data.buffer, data.byteOffset + at, bytes / 8);
}

/** A buffer between guards: with values from `data`, or with poison. */
function guarded({ at, bytes }) {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
  // A buffer has whole words, and a tensor of halves may end inside one.
  return filled(Math.ceil(bytes / 4) * 4 + 2 * GUARD, usage, (words) => {
    words.fill(POISON);
    if (at !== undefined) new Uint8Array(words.buffer).set(data.subarray(at, at + bytes), GUARD);
  });
}

function filled(size, usage, fill) {
  const buffer = device.createBuffer({ size, usage, mappedAtCreation: true });
  fill(new Uint32Array(buffer.getMappedRange()));
  buffer.unmap();
  return buffer;
}

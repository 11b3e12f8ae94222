// The page. All that computes is in worker.js.
const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let calls = 0;
let device;

worker.onmessage = ({ data: { id, result, error, progress, lost, uncaptured } }) => {
  if (lost !== undefined) return trouble(`The device is lost (${lost}). Reload the page to get another.`);
  if (uncaptured !== undefined) {
    // After what is worse, or said already, there are often many.
    const words = `The device reports an error, so what this page shows may be wrong: ${uncaptured}`;
    return $("trouble").hidden && trouble(words);
  }
  const call = waiting.get(id);
  if (progress) return call.progress?.(progress);
  waiting.delete(id);
  if (error) call.reject(Object.assign(new Error(error.message), { name: error.name }));
  else call.resolve(result);
};
worker.onerror = (event) => {
  // Without words it was not loaded, most likely since what web/build makes is not there.
  const built = "it cannot be loaded. If you serve the page from the source code, run web/build first";
  $("facts").innerHTML = "<dt>Device</dt><dd>none</dd>";
  trouble(`The page's worker failed: ${event.message || built}.`);
};

/** Has the worker call one of its functions. */
function ask(call, args = [], { progress, transfer = [], signal } = {}) {
  const id = ++calls;
  signal?.addEventListener("abort", () => worker.postMessage({ stop: id }));
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, progress });
    worker.postMessage({ id, call, args }, transfer);
  });
}

function trouble(words) {
  $("trouble").textContent = words;
  $("trouble").hidden = false;
}

/** Runs something, with the forms' buttons off meanwhile; says so, and what went wrong. */
async function busy(state, words, run) {
  // All forms measure or check on one device.
  const forms = ["pair", "network", "verify"].map($);
  const buttons = forms.flatMap((form) => [...form.querySelectorAll("button:not([type=button])")]);
  const focused = document.activeElement;
  buttons.forEach((button) => (button.disabled = true));
  state.textContent = words;
  try {
    state.textContent = (await run()) ?? "";
  } catch (error) {
    state.textContent = error.message === "stopped" ? "Stopped." : `It failed: ${error.message}.`;
  } finally {
    buttons.forEach((button) => (button.disabled = false));
    // Browsers take the focus from a button that is off.
    if ([null, document.body].includes(document.activeElement)) focused?.focus({ preventScroll: true });
  }
}

const escaped = (text) => text.replace(/[&<>"]/g, (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[char]);

function table(caption, header, rows) {
  const heads = header.map((cell) => `<th scope="col">${escaped(cell)}</th>`).join("");
  const cell = (words, index) => (index ? `<td>${words}</td>` : `<th scope="row">${words}</th>`);
  const cells = (row) => row.map((value, index) => cell(escaped(String(value)), index)).join("");
  const name = escaped(caption);
  // What scrolls must be reached by the keyboard, and have a name.
  return `<div class="table" tabindex="0" role="region" aria-label="${name}"><table><caption>${name}</caption>
    <thead><tr>${heads}</tr></thead>
    <tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join("")}</tbody></table></div>`;
}

const figure = (number) => (number >= 100 ? number.toFixed(0) : number.toPrecision(3));
const millions = (number) => `${figure(number / 1e6)} M`;
const sum = (list, value) => list.reduce((total, each) => total + value(each), 0);

// Your GPU.

async function open() {
  if (!navigator.gpu) {
    const why = isSecureContext ? "" : " It has it only on pages that come by https or from this machine.";
    $("facts").innerHTML = "<dt>Device</dt><dd>none</dd>";
    return trouble(`This browser has no WebGPU.${why} Chrome and Edge have it from 113 on, Firefox from 141, Safari from 26.`);
  }
  try {
    device = await ask("open");
  } catch (error) {
    $("facts").innerHTML = "<dt>Device</dt><dd>none</dd>";
    return trouble(`There is no device: ${error.message}.`);
  }
  const { info, version, networks, vendor, architecture, description, limits, features } = device;
  $("software").hidden = !info.is_software;
  const facts = {
    Device: [description || [vendor, architecture].filter(Boolean).join(" ") || "the browser does not say", info.is_software && "(on the CPU)"].filter(Boolean).join(" "),
    "Taken for": info.planned_as,
    Subgroups: info.subgroup ? `of ${[...new Set(info.subgroup)].join(" to ")} lanes` : "none",
    Clock: info.timestamps ? "the device's" : "the host's",
    "Largest binding": `${(info.max_storage_binding / 2 ** 20).toFixed()} MiB`,
    "Workgroup memory": `${info.max_workgroup_memory / 1024} KiB`,
    "Half precision": info.f16 ? "in shaders" : "two to a word",
    gpuconv: version,
  };
  $("facts").innerHTML = Object.entries(facts).map(([name, fact]) => `<dt>${name}</dt><dd>${escaped(fact)}</dd>`).join("");
  const rows = [["features", escaped(features.join(", ")) || "none"], ...Object.entries(limits).sort()];
  $("limits").tBodies[0].innerHTML = rows
    .map(([name, limit]) => `<tr><th scope="row">${name}</th><td>${limit}</td></tr>`)
    .join("");
  for (const select of document.querySelectorAll("#network [name=name], #classify [name=name]")) {
    select.append(...networks.map((name) => new Option(name)));
  }
  for (const control of document.querySelectorAll("button, input[type=file]")) control.disabled = false;
  $("footer").textContent = `gpuconv ${version}. MIT or Apache 2.0.`;
  try {
    const canvas = $("canvas").transferControlToOffscreen();
    await ask("canvas", [canvas], { transfer: [canvas] });
  } catch (error) {
    trouble(`This browser shows no pictures of the device: ${error.message}.`);
  }
}

// Measure.

/** The times that were measured on this page, by problem: they go with the result of the check. */
const times = new Map();

/** A row of a form of a convolution: the least times of its steps, what else was measured, and what they do. */
function row(form, steps, others = []) {
  const [ms, flops, bytes] = ["ms", "flops", "bytes"].map((name) => sum(steps, (step) => step[name]));
  const recipes = steps.map((step) => step.recipe).join(" + ");
  const work = [millions(flops / 2), `${figure(bytes / 1e6)} MB`, figure(flops / (ms * 1e6))];
  return [form, figure(ms), ...others, ...work, recipes];
}

const clock = () => (device.info.timestamps ? "the device's clock" : "the host's clock");

$("pair").addEventListener("submit", (event) => {
  event.preventDefault();
  const { in: inputs, out, size, kernel, stride, dtype } = Object.fromEntries(new FormData(event.target));
  const pad = (kernel - 1) / 2;
  const [input, geometry] = [`1x${inputs}x${size}x${size} -> ${out}`, `k${kernel} s${stride} p${pad} ${dtype}`];
  busy($("measure-state"), "Compiling and measuring…", async () => {
    const rows = [];
    const forms = [["standard", `conv ${input} ${geometry}`, "auto"], ["separable, two dispatches", `separable ${input} ${geometry}`, "never"], ["separable, as planned", `separable ${input} ${geometry}`, "auto"]];
    const least = [];
    for (const [form, problem, fusion] of forms) {
      $("measure-state").textContent = `Compiling and measuring: ${form}…`;
      const start = performance.now();
      // First, since what was measured is compiled.
      const { load_ms, first_ms, e2e_ms } = await ask("bench", [problem, 1, { fusion }]);
      const steps = await ask("measure", [problem, { fusion }]);
      const others = [figure(load_ms + first_ms), `${figure(e2e_ms.median)} (of ${e2e_ms.runs} runs)`];
      rows.push(row(form, steps, others));
      least.push(sum(steps, (step) => step.ms));
      times.set(`${form}: ${problem}`, { least_ms: least.at(-1), load_ms, first_ms, e2e_ms, steps });
      if (performance.now() - start > 60e3) break;
    }
    $("measured").innerHTML = `${table(
      `${input}, ${geometry}`,
      ["form", "ms on the device, least", "ms of the warm-up", "ms from array to array, median", "multiply-adds",
        "from and to memory", "GFLOP/s on the device", "by"],
      rows,
    )}<p class="note">On the device: the steps alone, each the least of several runs, by ${clock()}. Warm-up: weights to
      the device, compiling (unless this page has compiled it before) and the first run. From array to array: a run with
      its input to the device and its output back, by the host's clock, without the warm-up.</p>`;
    report();
    if (least.length < 2) return "The standard one took over a minute, so the others were not measured.";
    const faster = figure(least[0] / Math.min(...least.slice(1)));
    return `The separable one is ${faster} times as fast as the standard one on the device.`;
  });
});

$("network").addEventListener("submit", (event) => {
  event.preventDefault();
  const { name, dtype } = Object.fromEntries(new FormData(event.target));
  const problem = `${name} 1 ${dtype}`;
  busy($("measure-state"), "Measuring the device's rates…", async () => {
    const rates = await ask("probe");
    $("measure-state").textContent = "Compiling and measuring each step…";
    const steps = await ask("measure", [problem, {}]);
    const [svg, words] = await draw(steps, rates);
    $("measured").innerHTML = `<h3>Roofline</h3><p>${words}</p>${svg}${table(
      `${problem}: each step on its own, the least of several runs after a warm-up, by ${clock()}`,
      ["step", "ms, least", "multiply-adds", "from and to memory", "GFLOP/s", "by"],
      steps.map((step) => row(step.layer, [step])),
    )}`;
    const least_ms = sum(steps, (step) => step.ms);
    times.set(problem, { least_ms, rates, steps });
    report();
    return `${steps.length} steps, ${figure(least_ms)} ms in all: the sum of their least times.`;
  });
});

let charts;

/** Loaded only here: the rest of the page works without them, and says what is missing. */
async function loadCharts() {
  const module = await import("./charts/charts.js");
  await module.default();
  const style = document.createElement("style");
  style.textContent = module.style();
  document.head.append(style);
  return module;
}

/** The roofline as the command line's report draws it, and its message in words. */
async function draw(steps, rates) {
  charts ??= loadCharts();
  const { roofline } = await charts;
  const width = Math.min(960, $("measured").clientWidth);
  return roofline(JSON.stringify({ device: device.info.adapter, rates, steps }), width);
}

// Right?

let stopping;
$("stop").addEventListener("click", () => stopping?.abort());
$("verify").addEventListener("submit", (event) => {
  event.preventDefault();
  stopping = new AbortController();
  const [bar, state, place] = ["verify-progress", "verify-state", "verify-place"].map($);
  const wanted = new URLSearchParams(location.search).getAll("case");
  const options = wanted.length ? { problems: wanted } : {};
  [bar.value, place.textContent] = [0, ""];
  for (const element of [$("stop"), bar, place]) element.hidden = false;
  const start = performance.now();
  let at = { done: 0, total: 0, checks: 0, failures: 0, problem: null };
  const failed = [];
  let tenths = 0;
  const progress = (now) => {
    at = now;
    failed.push(...now.failed);
    const { done, total, checks, failures, problem } = now;
    [bar.max, bar.value] = [total, done];
    place.textContent = `${done} of ${total} cases, ${checks} checks, ${failures} failed. In work: ${problem}`;
    // Not each one, for those who listen.
    if (tenths === (tenths = Math.floor((10 * done) / total))) return;
    state.textContent = `${10 * tenths} % are checked.`;
  };
  busy(state, "Compiling and checking…", async () => {
    try {
      verified = await ask("verify", [options], { progress, signal: stopping.signal });
      report();
      const { checks, failures, seconds } = verified;
      const words = failures ? `${failures} of ${checks} checks failed` : `All ${checks} checks passed`;
      return `${words}, in ${seconds.toFixed(1)} s.`;
    } catch (error) {
      // What there is until then may be what an issue is about.
      const { version, info } = device;
      const { done: cases, total: cases_in_all, checks, failures, problem: in_work } = at;
      const ended = error.message === "stopped" ? "stopped by the visitor" : error.message;
      const seconds = (performance.now() - start) / 1e3;
      const adapter = info.adapter;
      verified = { version, adapter, cases, cases_in_all, checks, failures, seconds, ended, in_work, failed };
      report();
      throw error;
    }
  }).finally(() => {
    // Who works by the keyboard is not to be left on a button that is gone.
    if (document.activeElement === $("stop")) $("verify").querySelector("button").focus();
    $("stop").hidden = bar.hidden = place.hidden = true;
  });
});

/** Shows what was checked, all of it or until it ended, and gives it to copy, with the times that there are by now. */
let verified;
function report() {
  if (!verified) return;
  const { version, adapter, checks, cases, failures, seconds, kernels, failed } = verified;
  const { ended, cases_in_all, in_work } = verified;
  const header = ["kernel", "cases", "checks", "failed", "worst share of bound", "worst relative error"];
  const number = (value, digits) => (value === null ? "not a number" : value.toPrecision(digits));
  const rows = kernels?.map((kernel) => [kernel.kernel, kernel.cases, kernel.checks, kernel.failures,
    number(kernel.worst_share_of_bound, 3), number(kernel.worst_rel_err, 2)]);
  const { vendor, architecture, description, limits, features } = device;
  const browser = navigator.userAgent;
  const what = { browser, vendor, architecture, description, limits, features };
  const result = { ...verified, ...what, times: Object.fromEntries(times) };
  const text = [
    `gpuconv ${version} on ${adapter}, ${browser}`,
    `${checks} checks on ${ended ? `${cases} of ${cases_in_all}` : cases} cases, ${failures} failed, ` +
      `${seconds.toFixed(1)} s`,
    ...(ended ? [`ended early: ${ended}`, `in work: ${in_work ?? "none"}`] : []),
    ...failed.map(({ problem, schedule, complaint }) => `failed: ${problem}: ${schedule}: ${complaint}`),
    ...[...times].map(([what, time]) => `${what}: ${words(time)}`),
  ].join("\n");
  $("verified").innerHTML = `${rows ? table("By kernel", header, rows) : ""}
    <h3>The result, for an issue</h3>
    <textarea readonly aria-label="The result as text">${escaped(text)}</textarea>
    <p><button type="button" id="copy-text">Copy as text</button>
    <button type="button" id="copy-json">Copy as JSON</button></p>`;
  $("copy-text").addEventListener("click", () => copy(text, "text"));
  $("copy-json").addEventListener("click", () => copy(JSON.stringify(result, null, 2), "JSON"));
}

/** Measured times in words. */
function words({ least_ms, load_ms, first_ms, e2e_ms }) {
  const device = `${figure(least_ms)} ms by ${clock()}, the sum of its steps' least`;
  if (!e2e_ms) return device;
  const [warm_up, median] = [load_ms + first_ms, e2e_ms.median].map(figure);
  return `${device}; warm-up ${warm_up} ms; array to array ${median} ms, median of ${e2e_ms.runs}`;
}

async function copy(text, form) {
  try {
    await navigator.clipboard.writeText(text);
    $("verify-state").textContent = `Copied as ${form}.`;
  } catch {
    const area = $("verified").querySelector("textarea");
    area.value = text;
    area.select();
    $("verify-state").textContent = "The browser lets no page copy here: the result is selected, to copy it by hand.";
  }
}

// Try it.

let picture;
let video;
const filter = () => $("filter").elements.filter.value;

/** Filters the picture that there is, and says how long that took. */
let shown = 0;
async function show() {
  if (!picture || video) return;
  const own = ++shown;
  // Of several that were asked for at once the last one counts.
  const say = (words) => own === shown && ($("frame-state").textContent = words);
  try {
    const bitmap = await createImageBitmap(picture);
    const { width, height } = bitmap;
    const ms = await ask("frame", [bitmap, filter()], { transfer: [bitmap] });
    say(`${width}x${height} in ${figure(ms)} ms.`);
  } catch (error) {
    say(`It failed: ${error.message}.`);
  }
}

async function take(file) {
  try {
    const bitmap = await createImageBitmap(file);
    // A large photograph is made smaller: this is a look, not a workshop.
    const scale = Math.min(1, 1600 / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((extent) => Math.max(1, Math.round(extent * scale)));
    picture = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height });
  } catch {
    return ($("frame-state").textContent = `${file.name} is no picture that this browser can read.`);
  }
  stopCamera();
  await show();
  await classify();
}

$("filter").addEventListener("change", (event) => event.target.name === "filter" && show());
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("filter").elements.picture.addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));

$("sample").addEventListener("click", async () => {
  const canvas = new OffscreenCanvas(640, 360);
  const context = canvas.getContext("2d");
  const sky = context.createLinearGradient(0, 0, 0, 360);
  sky.addColorStop(0, "#2b5fa8");
  sky.addColorStop(1, "#f2c28b");
  context.fillStyle = sky;
  context.fillRect(0, 0, 640, 360);
  context.fillStyle = "#fbe7a1";
  context.beginPath();
  context.arc(480, 110, 48, 0, 7);
  context.fill();
  for (const [colour, height, step] of [["#5d6d7e", 210, 90], ["#34495e", 260, 70], ["#1b2631", 310, 45]]) {
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(0, 360);
    for (let x = 0; x <= 640 + step; x += step) context.lineTo(x, height - 60 * Math.abs(Math.sin(x / 1.7)));
    context.lineTo(640, 360);
    context.fill();
  }
  picture = await createImageBitmap(canvas);
  stopCamera();
  await show();
  await classify();
});

function stopCamera() {
  video?.srcObject.getTracks().forEach((track) => track.stop());
  video = undefined;
  $("frame-rate").textContent = "";
  $("camera").setAttribute("aria-pressed", "false");
}

/** Opens the camera. None if it was refused, or stopped before it played. */
async function openCamera() {
  const own = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
  try {
    own.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    video = own;
    await own.play();
  } catch (error) {
    if (video === own) stopCamera();
    const words = { NotAllowedError: "The camera was refused.", NotFoundError: "There is no camera." };
    $("frame-state").textContent = words[error.name] ?? `There is no picture from the camera: ${error.message}`;
  }
  return video === own ? own : undefined;
}

/** Whether frames of a video go to the worker as they are: one may be on the GPU, and stay there. */
let takesFrames = "VideoFrame" in self;

$("camera").addEventListener("click", async () => {
  const state = $("frame-state");
  if (video) {
    stopCamera();
    state.textContent = "The camera is off.";
    return;
  }
  // A second click must not ask for a second camera.
  $("camera").disabled = true;
  const own = await openCamera();
  $("camera").disabled = false;
  if (!own) return;
  const ended = new Promise((done) => own.srcObject.getVideoTracks()[0].addEventListener("ended", done));
  $("camera").setAttribute("aria-pressed", "true");
  state.textContent = "The camera plays.";
  let [frames, since] = [0, performance.now()];
  while (video === own) {
    const next = new Promise(own.requestVideoFrameCallback ? (done) => own.requestVideoFrameCallback(done) : requestAnimationFrame);
    const event = await Promise.race([next, ended]);
    if (video !== own) return;
    if (event?.type === "ended") {
      stopCamera();
      state.textContent = "The camera is gone.";
      return;
    }
    try {
      const frame = takesFrames ? new VideoFrame(own) : await createImageBitmap(own);
      const ms = await ask("frame", [frame, filter()], { transfer: [frame] });
      frames++;
      const seconds = (performance.now() - since) / 1e3;
      if (seconds > 1 && video === own) {
        // Not in what is spoken: each second would be too often.
        $("frame-rate").textContent = `${(frames / seconds).toFixed(1)} frames a second, each in ${figure(ms)} ms.`;
        [frames, since] = [0, performance.now()];
      }
    } catch (error) {
      // Not every browser that has them copies them to a texture.
      if (takesFrames) {
        takesFrames = false;
        continue;
      }
      stopCamera();
      state.textContent = `It failed: ${error.message}.`;
    }
  }
});

let network;
async function openNetwork(file) {
  const state = $("classify-state");
  state.textContent = `Reading ${file.name}…`;
  try {
    const bytes = await file.arrayBuffer();
    const name = $("classify").elements.name.value || undefined;
    network = await ask("network", [bytes, name], { transfer: [bytes] });
    state.textContent = picture ? `${network} is there.` : `${network} is there. Choose a picture above.`;
    await classify();
  } catch (error) {
    state.textContent = `${file.name} was not taken: ${error.message}.`;
  }
}

async function classify() {
  if (!network || !picture) return;
  try {
    const bitmap = await createImageBitmap(picture);
    const { classes, ms } = await ask("classify", [bitmap], { transfer: [bitmap] });
    $("classes").innerHTML = classes
      .map(({ index, probability }) => `<li>class ${index}: ${(100 * probability).toFixed(1)} %</li>`)
      .join("");
    $("classify-state").textContent = `${network} took ${figure(ms)} ms.`;
  } catch (error) {
    $("classify-state").textContent = `It failed: ${error.message}.`;
  }
}

$("classify").addEventListener("submit", (event) => event.preventDefault());
$("classify").elements.weights.addEventListener("change", (event) => event.target.files[0] && openNetwork(event.target.files[0]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  // Without a device the page has said why.
  if (file && device) file.type.startsWith("image/") ? take(file) : openNetwork(file);
});

open();

// The page: its device, what it measures, and what it checks. The rest is in try.js, and all that computes in worker.js.
import { $, ask, noDevice, trouble } from "./page.js";
import { openNetwork, setQuiet, take } from "./try.js";
import { escaped, failed, figure, say, table } from "./words.js";

/** What the worker says of the device: undefined before it does, null if there is none. */
let device;

/**
 * Runs what a form begins, with the forms' buttons off and the form's own to stop it meanwhile. Says so, and what went
 * wrong. What runs is given a signal, and a function that says whether the page was hidden since it began.
 */
async function busy(form, state, words, run) {
  // All forms measure or check on one device.
  const forms = ["pair", "network", "verify"].map($);
  const buttons = forms.flatMap((form) => [...form.querySelectorAll("button:not([type=button])")]);
  const { stop } = form.elements;
  const focused = document.activeElement;
  const [stopping, ended] = [new AbortController(), new AbortController()];
  stop.addEventListener("click", () => stopping.abort(new Error("stopped")), { signal: ended.signal });
  let hidden = document.hidden;
  const look = () => (hidden ||= document.hidden);
  document.addEventListener("visibilitychange", look, { signal: ended.signal });
  buttons.forEach((button) => (button.disabled = true));
  stop.hidden = false;
  setQuiet(true);
  say(state, words);
  try {
    say(state, await run(stopping.signal, () => hidden));
  } catch (error) {
    say(state, error.message === "stopped" ? "Stopped." : failed("It failed", error.message));
  } finally {
    setQuiet(false);
    ended.abort();
    buttons.forEach((button) => (button.disabled = false));
    // Who works by the keyboard is not to be left on a button that is gone.
    if (document.activeElement === stop) form.querySelector("button").focus();
    stop.hidden = true;
    // Browsers take the focus from a button that is off.
    if ([null, document.body].includes(document.activeElement)) focused?.focus({ preventScroll: true });
  }
}

const millions = (number) => `${figure(number / 1e6)} M`;
const sum = (list, value) => list.reduce((total, each) => total + value(each), 0);

// Your GPU.

async function open() {
  if (!navigator.gpu) {
    const why = isSecureContext ? "" : " It has it only on pages that come by https or from this machine.";
    device = null;
    return noDevice(`This browser has no WebGPU.${why} Chrome and Edge have it from 113 on, Firefox from 141, Safari from 26.`);
  }
  try {
    device = await ask("open");
  } catch (error) {
    device = null;
    return noDevice(failed("There is no device", error.message));
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
    if (!$("canvas").transferControlToOffscreen) throw new Error("its workers draw on no canvas");
    const canvas = $("canvas").transferControlToOffscreen();
    await ask("canvas", [canvas], { transfer: [canvas] });
  } catch (error) {
    trouble(failed("This browser shows no pictures of the device", error.message));
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

/** What goes with times that were measured while the page was hidden. */
const HIDDEN = "The page was hidden meanwhile, so these times may be wrong.";
const note = (wasHidden) => (wasHidden() ? `<p class="note">${HIDDEN}</p>` : "");
/** The same in what is kept. */
const flag = (wasHidden) => (wasHidden() ? { hidden_meanwhile: true } : {});

/** The rows of the forms of a convolution, with what goes with them. */
function showPair(caption, rows, wasHidden) {
  $("measured").innerHTML = `${table(
    caption,
    ["form", "ms on the device, least", "ms of the warm-up", "ms from array to array, median", "multiply-adds",
      "from and to memory", "GFLOP/s on the device", "by"],
    rows,
  )}${note(wasHidden)}<p class="note">On the device: the steps alone, each the least of several runs, by ${clock()}. Warm-up:
    weights to the device, compiling (unless this page has compiled it before) and the first run. From array to array: a run
    with its input to the device and its output back, by the host's clock, without the warm-up.</p>`;
}

$("pair").addEventListener("submit", (event) => {
  event.preventDefault();
  const { dtype, ...fields } = Object.fromEntries(new FormData(event.target));
  // A field takes 1e1, and a problem does not.
  const [inputs, out, size, kernel, stride] = ["in", "out", "size", "kernel", "stride"].map((name) => Number(fields[name]));
  const pad = (kernel - 1) / 2;
  const [input, geometry] = [`1x${inputs}x${size}x${size} -> ${out}`, `k${kernel} s${stride} p${pad} ${dtype}`];
  busy(event.target, "measure-state", "Compiling and measuring…", async (signal, wasHidden) => {
    const rows = [];
    const forms = [["standard", `conv ${input} ${geometry}`, "auto"], ["separable, two dispatches", `separable ${input} ${geometry}`, "never"], ["separable, as planned", `separable ${input} ${geometry}`, "auto"]];
    const least = [];
    for (const [form, problem, fusion] of forms) {
      say("measure-state", `Compiling and measuring: ${form}…`);
      const start = performance.now();
      // First, since what was measured is compiled.
      const { load_ms, first_ms, e2e_ms } = await ask("bench", [problem, 1, { fusion }], { signal });
      const steps = await ask("measure", [problem, { fusion }], { signal });
      const others = [figure(load_ms + first_ms), `${figure(e2e_ms.median)} (of ${e2e_ms.runs} runs)`];
      rows.push(row(form, steps, others));
      least.push(sum(steps, (step) => step.ms));
      times.set(`${form}: ${problem}`, { least_ms: least.at(-1), load_ms, first_ms, e2e_ms, steps, ...flag(wasHidden) });
      // Each time, since it may end early.
      showPair(`${input}, ${geometry}`, rows, wasHidden);
      report();
      if (performance.now() - start > 60e3) break;
    }
    if (least.length < 2) return "The standard one took over a minute, so the others were not measured.";
    const faster = figure(least[0] / Math.min(...least.slice(1)));
    return `The separable one is ${faster} times as fast as the standard one on the device.`;
  });
});

$("network").addEventListener("submit", (event) => {
  event.preventDefault();
  const { name, dtype } = Object.fromEntries(new FormData(event.target));
  const problem = `${name} 1 ${dtype}`;
  busy(event.target, "measure-state", "Measuring the device's rates…", async (signal, wasHidden) => {
    const rates = await ask("probe");
    say("measure-state", "Compiling and measuring each step…");
    const steps = await ask("measure", [problem, {}], { signal });
    $("measured").innerHTML = table(
      `${problem}: each step on its own, the least of several runs after a warm-up, by ${clock()}`,
      ["step", "ms, least", "multiply-adds", "from and to memory", "GFLOP/s", "by"],
      steps.map((step) => row(step.layer, [step])),
    ) + note(wasHidden);
    const least_ms = sum(steps, (step) => step.ms);
    times.set(problem, { least_ms, rates, steps, ...flag(wasHidden) });
    report();
    // The times are there without it.
    const missing = ({ message }) => `<p>${escaped(failed("The chart cannot be drawn", message))}</p>`;
    const chart = await draw(steps, rates).catch(missing);
    $("measured").insertAdjacentHTML("afterbegin", `<h3>Roofline</h3>${chart}`);
    return `${steps.length} steps, ${figure(least_ms)} ms in all: the sum of their least times.`;
  });
});

let charts;
let tries = 0;

/** Loaded only here: the rest of the page works without them, and says what is missing. */
async function loadCharts() {
  // Browsers may keep that a module failed, under its address: https://github.com/whatwg/html/issues/6768
  const module = await import(`./charts/charts.js${tries++ ? `?${tries}` : ""}`);
  await module.default();
  const style = document.createElement("style");
  style.textContent = module.style();
  document.head.append(style);
  return module;
}

/** The roofline as the command line's report draws it, below its message in words. */
async function draw(steps, rates) {
  charts ??= await loadCharts();
  const width = Math.min(960, $("measured").clientWidth);
  const [svg, words] = charts.roofline(JSON.stringify({ device: device.info.adapter, rates, steps }), width);
  return `<p>${words}</p>${svg}`;
}

// Right?

$("verify").addEventListener("submit", (event) => {
  event.preventDefault();
  const [bar, place] = ["verify-progress", "verify-place"].map($);
  const wanted = new URLSearchParams(location.search).getAll("case");
  const options = wanted.length ? { problems: wanted } : {};
  [bar.value, place.textContent] = [0, ""];
  bar.hidden = place.hidden = false;
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
    say("verify-state", `${10 * tenths} % are checked.`);
  };
  busy(event.target, "verify-state", "Compiling and checking…", async (signal) => {
    try {
      verified = await ask("verify", [options], { progress, signal });
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
  }).finally(() => (bar.hidden = place.hidden = true));
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
function words({ least_ms, load_ms, first_ms, e2e_ms, hidden_meanwhile }) {
  const device = `${figure(least_ms)} ms by ${clock()}, the sum of its steps' least`;
  const hidden = hidden_meanwhile ? "; the page was hidden meanwhile" : "";
  if (!e2e_ms) return device + hidden;
  const [warm_up, median] = [load_ms + first_ms, e2e_ms.median].map(figure);
  return `${device}; warm-up ${warm_up} ms; array to array ${median} ms, median of ${e2e_ms.runs}${hidden}`;
}

async function copy(text, form) {
  try {
    await navigator.clipboard.writeText(text);
    say("verify-state", `Copied as ${form}.`);
  } catch {
    const area = $("verified").querySelector("textarea");
    area.value = text;
    area.select();
    say("verify-state", "The browser lets no page copy here: the result is selected, to copy it by hand.");
  }
}

addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (!file) return;
  const [state, use] = file.type.startsWith("image/") ? ["frame-state", take] : ["classify-state", openNetwork];
  if (device) return use(file);
  const why = device === null ? "there is no device" : "the device is not there yet. Drop it again when it is";
  say(state, failed(`${file.name} was not taken`, why));
});

open();

// Measures each library on each case in turn.
import { failed, figure, say } from "../page/words.js";
import { CASES, data } from "./cases.js";

const LIBRARIES = { gpuconv: "./gpuconv.js", "ONNX Runtime Web": "./built/ort.js", "TensorFlow.js": "./built/tfjs.js" };
const SECONDS = Number(new URLSearchParams(location.search).get("seconds") ?? 2);
const wanted = new URLSearchParams(location.search).getAll("case");
const $ = (id) => document.getElementById(id);

/** The first run with all before it, and the median of the runs after two. */
async function measure(library, test, tensors) {
  const start = performance.now();
  const session = await library.open(test, tensors);
  try {
    let values = await session.run();
    const first = performance.now() - start;
    values = await session.run();
    const times = [];
    for (const all = performance.now(); times.length < 3 || performance.now() - all < 1e3 * SECONDS; ) {
      const run = performance.now();
      values = await session.run();
      times.push(performance.now() - run);
    }
    const output = session.nchw ? await session.nchw(values) : Float32Array.from(values);
    return { first, ms: times.sort((a, b) => a - b)[times.length >> 1], output };
  } finally {
    await session.close();
  }
}

/** The norm of the difference over the norm. */
function difference(values, others) {
  if (values.length !== others.length) return NaN;
  let [error, norm] = [0, 0];
  values.forEach((value, index) => {
    error += (value - others[index]) ** 2;
    norm += value ** 2;
  });
  return Math.sqrt(error / norm);
}

function show(names, rows, words) {
  const head = ["case", ...names.map((name) => `${name}, ms`), "best other / gpuconv", ...names.map((name) => `${name}, first run`)];
  const lines = rows.map(({ problem, results }) => {
    const ours = results.gpuconv?.ms;
    const best = Math.min(...Object.entries(results).filter(([name]) => name !== "gpuconv").map(([, { ms }]) => ms ?? Infinity));
    const cells = names.map((name) => (results[name] ? (results[name].error ?? figure(results[name].ms)) : ""));
    const first = names.map((name) => (results[name]?.first ? figure(results[name].first) : ""));
    return [problem, ...cells, ours && best < Infinity ? (best / ours).toFixed(2) : "", ...first];
  });
  const markdown = [head, head.map((_, column) => (column ? "---:" : "---")), ...lines].map((row) => `| ${row.join(" | ")} |`);
  const table = document.createElement("table");
  for (const row of [head, ...lines]) {
    const cells = row.map((text) => Object.assign(document.createElement(row === head ? "th" : "td"), { textContent: text }));
    table.insertRow().append(...cells);
  }
  const area = Object.assign(document.createElement("textarea"), { readOnly: true, ariaLabel: "The table as text" });
  area.value = `${markdown.join("\n")}\n\n${words}`;
  const scroll = Object.assign(document.createElement("div"), { className: "table" });
  scroll.append(table);
  $("results").replaceChildren(scroll, area);
}

/** What the browser says of its GPU. */
async function describe() {
  if (!navigator.gpu) throw new Error("this browser has no WebGPU");
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error("the browser has WebGPU, but no device for it");
  // Some browsers do not say what an adapter is.
  const { vendor, architecture, description } = adapter.info ?? {};
  return description || [vendor, architecture].filter(Boolean).join(" ") || "an unknown device";
}

async function compare() {
  const device = await describe();
  const [libraries, versions] = [{}, []];
  for (const [name, url] of Object.entries(LIBRARIES)) {
    say("state", `Loading ${name}…`);
    libraries[name] = await import(url);
    versions.push(`${name} ${libraries[name].version}`);
  }
  const words = `${versions.join(", ")}; ${device}; ${navigator.userAgent}`;
  const [names, rows] = [Object.keys(libraries), []];
  for (const test of CASES.filter(({ problem }) => !wanted.length || wanted.includes(problem))) {
    const [tensors, results] = [data(test), {}];
    rows.push({ problem: test.problem, results });
    for (const name of names) {
      say("state", `${test.problem}: ${name}…`);
      try {
        const result = await measure(libraries[name], test, tensors);
        results[name] = result;
        // Without an answer of gpuconv's there is nothing to compare with.
        const ours = results.gpuconv?.output;
        const error = name === "gpuconv" || !ours ? 0 : difference(ours, result.output);
        if (!(error < 1e-3)) throw new Error(`its answer differs by ${error.toExponential(1)}`);
      } catch (error) {
        results[name] = { error: error.message };
      }
      show(names, rows, words);
    }
    Object.values(results).forEach((result) => delete result.output);
  }
  say("state", "Done.");
}

$("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [button] = event.target.elements;
  button.disabled = true;
  await compare().catch((error) => say("state", failed("It failed", error.message)));
  button.disabled = false;
});

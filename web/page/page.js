// The page's side of its worker, which computes all.
import { failed, say } from "./words.js";

export const $ = (id) => document.getElementById(id);

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let calls = 0;

worker.onmessage = ({ data: { id, result, error, progress, lost, uncaptured } }) => {
  if (lost !== undefined) return trouble(`${failed("The device is lost", lost)} Reload the page to get another.`);
  if (uncaptured !== undefined) {
    // After what is worse, or said already, there are often many.
    const what = "The device reports an error, so what this page shows may be wrong";
    return $("trouble").hidden && trouble(failed(what, uncaptured));
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
  noDevice(failed("The page's worker failed", event.message || built));
};

/** Has the worker call one of its functions. A signal stops it. */
export function ask(call, args = [], { progress, transfer = [], signal } = {}) {
  if (signal?.aborted) return Promise.reject(signal.reason);
  const id = ++calls;
  signal?.addEventListener("abort", () => worker.postMessage({ stop: id }));
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, progress });
    worker.postMessage({ id, call, args }, transfer);
  });
}

export function trouble(words) {
  say("trouble", words);
  $("trouble").hidden = false;
}

/** Says that the page has no device, and why. */
export function noDevice(words) {
  $("facts").innerHTML = "<dt>Device</dt><dd>none</dd>";
  trouble(words);
}

// ONNX Runtime Web on its WebGPU provider.
import * as ort from "onnxruntime-web/webgpu";

import { model } from "./onnx.js";

export const version = ort.env.versions.web;

export async function open(test, { input, weights }) {
  // The graph is on the GPU, and threads would need a page that is isolated.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  const options = { executionProviders: ["webgpu"], logSeverityLevel: 3 };
  const session = await ort.InferenceSession.create(model(test, weights), options);
  return {
    run: async () => (await session.run({ x: new ort.Tensor("float32", input, test.shape) })).y.data,
    close: () => session.release(),
  };
}

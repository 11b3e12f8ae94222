// This package: upload, forward, download.
import init, { GpuConv, version as own } from "../page/gpuconv/gpuconv.js";

await init({ module_or_path: new URL("../page/gpuconv/gpuconv_bg.wasm", import.meta.url) });
export const version = own();
let gpu;

export async function open({ problem, shape }, { input, weights }) {
  gpu ??= await GpuConv.create();
  const layer = await gpu.chain(problem, weights);
  return {
    run: async () => {
      const x = gpu.upload(input, shape);
      const y = await layer.forward(x);
      const values = await gpu.download(y);
      x.free();
      y.free();
      return values;
    },
    close: () => layer.free(),
  };
}

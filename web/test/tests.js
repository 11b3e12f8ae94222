// The tests of the package, the same in a browser and in Node.js.
import { equal, floats, rejects, throws } from "./expect.js";
import { efficientnetLite0, mobilenetV1, mobilenetV3, safetensors } from "./weights.js";

/**
 * Runs all, and gives the number of those that failed. `gpuconv` is the package, `wasm` what `init` takes, `readme` the text of
 * the package's README.
 */
export async function run({ gpuconv, wasm, readme, mode, log }) {
  await gpuconv.default(wasm);
  const gpu = await gpuconv.GpuConv.create();
  log(`${gpuconv.version()} on ${JSON.stringify(gpu.info)}`);
  let failures = 0;
  for (const [name, test] of Object.entries(tests)) {
    const start = performance.now();
    try {
      await test({ gpuconv, gpu, readme, mode, log });
      log(`ok: ${name}, ${(performance.now() - start).toFixed()} ms`);
    } catch (error) {
      failures++;
      log(`FAILED: ${name}: ${error.stack ?? error}`);
    }
  }
  log(failures ? `${failures} failed` : "all passed");
  return failures;
}

const tests = {
  /** The README's example, as written, but for its import: the module is there already. */
  async "the README's example"({ gpuconv, readme }) {
    const example = readme.match(/```js\n([^]*?)```/)[1];
    const lines = [];
    const body = example.replace(/^import .*$/m, "");
    const AsyncFunction = (async () => {}).constructor;
    const console = { log: (...values) => lines.push(JSON.stringify(values)) };
    await new AsyncFunction("init", "GpuConv", "console", body)(async () => {}, gpuconv.GpuConv, console);
    equal(lines, ["[[1,16,16,16],4096]"]);
  },

  async "numbers worked out by hand"({ gpu }) {
    const twice = await gpu.pointwise({ inChannels: 1, outChannels: 1 }, { weight: floats(2), bias: floats(1) });
    equal(await gpu.download(await twice.forward(gpu.upload(floats(3), [1, 1, 1, 1]))), floats(7));

    const edges = await gpu.conv2d({ inChannels: 1, outChannels: 1, kernelSize: [1, 3] }, { weight: floats(-1, 0, 1) });
    equal(edges.outputShape([1, 1, 1, 4]), [1, 1, 1, 2]);
    equal(await gpu.download(await edges.forward(gpu.upload(floats(0, 0, 1, 1), [1, 1, 1, 4]))), floats(1, 1));

    const weight = floats(1, 1, 1, 1, 0.25, 0.25, 0.25, 0.25);
    const sums = await gpu.depthwise({ channels: 2, kernelSize: 2 }, { weight });
    const x = gpu.upload(floats(1, 2, 3, 4, 1, 2, 3, 4), [1, 2, 2, 2]);
    equal(await gpu.download(await sums.forward(x)), floats(10, 2.5));

    // The same in the other layout.
    const nhwc = gpu.upload(floats(1, 1, 2, 2, 3, 3, 4, 4), [1, 2, 2, 2], "nhwc");
    const y = await sums.forward(nhwc);
    equal([y.layout, ...(await gpu.download(y))], ["nhwc", 10, 2.5]);

    const clamped = await gpu.pointwise(
      { inChannels: 1, outChannels: 1, activation: [0, 4], residual: "after" },
      { weight: floats(2) },
    );
    const residual = gpu.upload(floats(10), [1, 1, 1, 1]);
    equal(await gpu.download(await clamped.forward(gpu.upload(floats(3), [1, 1, 1, 1]), residual)), floats(14));

    const chain = await gpu.chain("pool 1x2x1x2", []);
    equal(await gpu.download(await chain.forward(gpu.upload(floats(1, 3, 10, 30), [1, 2, 1, 2]))), floats(2, 20));
  },

  async "chains, gates and scales"({ gpu }) {
    const scaled = await gpu.pointwise({ inChannels: 2, outChannels: 1, scaled: true }, { weight: floats(1, 1) });
    const x = gpu.upload(floats(1, 2, 3, 4), [1, 2, 1, 2]);
    const scale = gpu.upload(floats(10, 100), [1, 2, 1, 1]);
    equal(await gpu.download(await scaled.forward(x, undefined, scale)), floats(310, 420));
    await rejects(scaled.forward(x), /scale/);

    // Squeeze and excite: means 2 and 8, the gate of the first channel is hard-sigmoid(2 + 8 - 7) = 1, of the second 0.5. Then
    // both channels' sum, and the input's first channel, which another step computes.
    const steps = [
      { problem: "gate 1x2x1x2 -> 1 relu hardsigmoid" },
      { problem: "pointwise 1x2x1x2 -> 1 nobias", reads: 0 },
      { problem: "pointwise 1x2x1x2 -> 1 nobias relu", reads: 0, scaledBy: 1, adds: 2 },
    ];
    const weights = [
      { weight: floats(1, 1), bias: floats(-7) },
      { weight: floats(1, 0), bias: floats(0, 0) },
      { weight: floats(1, 0) },
      { weight: floats(1, 1) },
    ];
    const block = await gpu.chain(steps, weights);
    const y = await block.forward(gpu.upload(floats(1, 3, 6, 10), [1, 2, 1, 2]));
    equal(await gpu.download(y), floats(1 + 1 + 3, 3 + 3 + 5));
    // A line stands for a step, and a separable one for two links.
    const two = await gpu.chain(["separable 1x1x1x1 -> 1 k1 nobias", { problem: "pointwise 1x1x1x1 -> 1 nobias", adds: 0 }], [
      { weight: floats(2) },
      { weight: floats(3) },
      { weight: floats(4) },
    ]);
    equal(await gpu.download(await two.forward(gpu.upload(floats(1), [1, 1, 1, 1]))), floats(25));

    await rejects(gpu.chain([], []), /no steps/);
    await rejects(gpu.chain(["pointwise 1x2x1x2 -> 1", "pool 1x2x1x2"], []), /step 2 is given 1x1x1x2 of f32, but its line/);
    await rejects(gpu.chain([{ problem: "pool 1x2x1x2", reads: 1 }], []), /reads of step 1 must be a tensor from 0 to 0, not 1/);
    await rejects(gpu.chain([{ problem: "pool 1x2x1x2", scales: 1 }], []), /a step has no option `scales`; there are problem/);
    await rejects(gpu.chain(steps, weights.slice(1)), /list of weights must have 4 values, but has 3/);
  },

  async "half precision"({ gpu }) {
    // 2049 lies half way between two halves, and goes to the even one.
    const x = gpu.upload(floats(2049, 3), [1, 1, 1, 2], "nchw", "f16");
    equal([x.dtype, ...(await gpu.download(x))], ["f16", 2048, 3]);
    const layer = await gpu.pointwise({ inChannels: 1, outChannels: 1, dtype: "f16" }, { weight: floats(3), bias: floats(1) });
    const y = await layer.forward(x);
    // 6145 is a tie as well.
    equal([y.dtype, ...(await gpu.download(y))], ["f16", 6144, 10]);
    await rejects(layer.forward(gpu.upload(floats(1), [1, 1, 1, 1])), /f16/);
    throws(() => gpu.upload(floats(1), [1, 1, 1, 1], "nchw", "f8"), "an element type is f32, f16, not `f8`");
    const chain = await gpu.chain("depthwise 1x2x2x2 k2 f16", [{ weight: floats(1, 1, 1, 1, 0.25, 0.25, 0.25, 0.25), bias: floats(0, 0) }]);
    const sums = await chain.forward(gpu.upload(floats(1, 2, 3, 4, 1, 2, 3, 4), [1, 2, 2, 2], "nhwc", "f16"));
    equal([sums.layout, sums.dtype, ...(await gpu.download(sums))], ["nhwc", "f16", 8, 3]);
    for (const problem of ["pointwise 1x64x14x14 -> 64 relu f16", "depthwise 1x33x7x7 k3 p1 nhwc f16"]) {
      const { rel_err } = await gpu.bench(problem, 0);
      equal([problem, rel_err > 1e-5, rel_err < 1e-3], [problem, true, true]);
    }
  },

  async "write, and a second handle"({ gpu }) {
    const x = gpu.upload(floats(1, 2), [1, 1, 1, 2]);
    const same = x.share();
    x.free();
    await gpu.write(same, floats(3, 4));
    equal(await gpu.download(same), floats(3, 4));
    same.free();
    throws(() => gpu.download(same), /null pointer/);
  },

  async "what is given may be changed after the call"({ gpu }) {
    const [options, weight] = [{ inChannels: 1, outChannels: 1 }, floats(3)];
    const making = gpu.pointwise(options, { weight });
    options.activation = [0, 1];
    weight[0] = 100;
    const y = await (await making).forward(gpu.upload(floats(2), [1, 1, 1, 1]));
    equal(await gpu.download(y), floats(6));
    const x = gpu.upload(floats(1), [1, 1, 1, 1]);
    const values = floats(5);
    const writing = gpu.write(x, values);
    values[0] = 100;
    await writing;
    equal(await gpu.download(x), floats(5));
  },

  async "tensors may be freed while a layer runs"({ gpu }) {
    const options = { inChannels: 1, outChannels: 1, kernelSize: 1, residual: "after", scaled: true };
    const layer = await gpu.conv2d(options, { weight: floats(2) });
    const handles = [[1, 2], [10, 20]].map((values) => gpu.upload(floats(...values), [1, 1, 1, 2]));
    handles.push(gpu.upload(floats(3), [1, 1, 1, 1]));
    // The first run of a size compiles meanwhile.
    const running = layer.forward(...handles);
    handles.forEach((handle) => handle.free());
    equal(await gpu.download(await running), floats(16, 32));
  },

  async "what is freed is given back"({ gpuconv }) {
    const buffers = [];
    const destroyed = [];
    const device = await (await navigator.gpu.requestAdapter()).requestDevice();
    const { createBuffer } = device;
    device.createBuffer = (descriptor) => {
      const buffer = createBuffer.call(device, descriptor);
      buffer.destroy = () => destroyed.push(buffer);
      buffers.push(buffer);
      return buffer;
    };
    const own = await gpuconv.GpuConv.fromDevice(device);
    const there = own.upload(floats(1), [1, 1, 1, 1]);
    const buffer = await there.buffer();
    const shared = there.share();
    there.free();
    equal(destroyed.length, 0);
    shared.free();
    equal([destroyed.length, destroyed[0] === buffer], [1, true]);
    // Before it is made.
    own.upload(floats(1), [1, 1, 1, 1]).free();
    await own.wait();
    equal([destroyed.length, destroyed[1] === buffers.at(-1)], [2, true]);
    // A layer's weights, once nothing runs it any more.
    const layer = await own.pointwise({ inChannels: 1, outChannels: 1 }, { weight: floats(3) });
    const x = own.upload(floats(2), [1, 1, 1, 1]);
    const running = layer.forward(x);
    layer.free();
    x.free();
    const y = await running;
    equal(await own.download(y), floats(6));
    equal(destroyed.slice(2).map(({ label }) => label).sort(), ["tensor", "weights"]);
    y.free();
    own.free();
    // A device of the package's own goes with its last handle, and not before what waits has it.
    const made = await gpuconv.GpuConv.create();
    const { lost } = made.device;
    const wait = made.wait();
    made.free();
    await wait;
    equal((await lost).reason, "destroyed");
    device.destroy();
  },

  async "an internal error of the device"({ gpuconv }) {
    // One that no call waits for.
    const own = await gpuconv.GpuConv.create();
    own.device.onuncapturederror?.({ error: new GPUInternalError("the driver gave up") });
    equal(await own.download(own.upload(floats(1), [1, 1, 1, 1])), floats(1));
    own.free();
    const device = await faultyDevice();
    const gpu = await gpuconv.GpuConv.fromDevice(device);
    await rejects(gpu.download(gpu.upload(floats(1), [1, 1, 1, 1])), /the driver gave up/);
    gpu.free();
    device.destroy();
  },

  async "errors say what was wrong"({ gpu }) {
    throws(() => gpu.upload(undefined, [1, 1, 1, 1]), "the values must be a Float32Array, but is undefined");
    await rejects(gpu.verify({ problems: "pool 1x1x2x2" }), /problems must be an array of problem lines, not "pool/);
    await rejects(gpu.verify({ progress: 3 }), "the option progress of verify must be a function, but is 3");
    await rejects(gpu.measure("pool 1x1x2x2", { signal: new AbortController() }), /signal of measure must be an AbortSignal/);
    await rejects(gpu.measure("pool 1x1x2x2", { fusion: 1 }), /auto, never/);
    throws(() => gpu.upload(floats(1), [1, 1, 1, 2]), "the tensor must have 2 values, but has 1");
    throws(() => gpu.upload(floats(1), [1, 1]), "a shape is [images, channels, rows, columns], not [1, 1]");
    throws(() => gpu.upload(floats(1), [1, 1, 1, 1], "chwn"), /a layout is nchw or nhwc/);
    throws(() => gpu.plan("pointwise 1x8x8x8"), /\^/);
    const conv = { inChannels: 1, outChannels: 1, kernelSize: 3 };
    const weights = { weight: floats(1) };
    await rejects(gpu.conv2d(conv, weights), "weight of link 0 must have 9 values, but has 1");
    await rejects(gpu.conv2d({ ...conv, pading: 1 }, weights), /no option `pading`; there are inChannels/);
    await rejects(gpu.conv2d({ ...conv, stride: 0.5 }, weights), /the option stride of conv2d must be a whole number/);
    await rejects(gpu.conv2d({ ...conv, kernelSize: undefined }, weights), /conv2d needs the option kernelSize/);
    await rejects(gpu.pointwise({ inChannels: 1, outChannels: 1 }, { weight: [1] }), /must be a Float32Array/);
    await rejects(gpu.pointwise({ inChannels: 1, outChannels: 1 }, { weight: floats(1), bais: floats(1) }), /the weights has no option `bais`; there are weight, bias/);
    await rejects(gpu.conv2d({ ...conv, stride: NaN }, weights), /but is NaN/);
    await rejects(gpu.conv2d({ ...conv, activation: [0, "6", 6] }, weights), /\[low, high\], but is \[0, "6", 6\]/);
    await rejects(gpu.pointwise({ inChannels: 1, outChannels: 1 }, { weight: new Float64Array(3e6) }), /but is Float64Array of length 3000000/);
    await rejects(gpu.mobilenetV2(new ArrayBuffer(3)), /not a safetensors file/);
    await rejects(gpu.mobilenetV2("weights"), /ArrayBuffer/);
    throws(() => gpu.plan(5), "a problem must be a string, but is 5");
    await rejects(gpu.bench({}, 0), "a problem must be a string, but is Object");
    await rejects(gpu.tune(), "a problem must be a string, but is undefined");
    throws(() => gpu.useTuning(5), "a tuning must be a string, but is 5");
    await rejects(gpu.tune("pool 1x1x2x2", { seconds: 1e300 }), /seconds must be from 0 to 1e19, not 1e300/);
    await rejects(gpu.bench("conv 1x512x2048x2048 -> 8 k3 p1", 0), /its data take \d+ bytes/);
    const gone = floats(1);
    structuredClone(gone, { transfer: [gone.buffer] });
    throws(() => gpu.upload(gone, [1, 1, 1, 1]), /the values are there no more/);
    await rejects(gpu.pointwise({ inChannels: 1, outChannels: 1 }, { weight: gone }), /the weights' weight are there no more/);
    const layer = await gpu.pointwise({ inChannels: 2, outChannels: 1 }, { weight: floats(1, 1) });
    await rejects(layer.forward(gpu.upload(floats(1), [1, 1, 1, 1])), /takes 2 channels, but is given 1/);
    await rejects(layer.forward(gpu.upload(floats(1, 1), [1, 2, 1, 1]), gpu.upload(floats(1), [1, 1, 1, 1])), /adds no residual/);
    await rejects(layer.forward(gpu.upload(floats(1, 1), [1, 2, 1, 1]), {}), /the residual must be a Tensor, but is Object/);
    // Not even asked for: the size is beyond the device's limit.
    const huge = await gpu.pointwise({ inChannels: 1, outChannels: 1000000 }, { weight: new Float32Array(1000000) });
    await rejects(huge.forward(gpu.upload(new Float32Array(65536), [1, 1, 256, 256])), /limit|memory|larger/);
    await rejects(gpu.bench("pointwise 1x8x8x8 -> 8", -1), /seconds must be from 0/);
    await rejects(gpu.verify({ problems: ["conv"] }), /conv/);
  },

  async "a plan says what runs and why not others"({ gpu }) {
    const plan = gpu.plan("separable 1x64x28x28 -> 64 k3 p1 relu6");
    equal([plan.mult_adds > 3e6, plan.steps.length > 0, plan.steps[0].predicted_ms > 0], [true, true, true]);
    equal(plan.kernel, plan.steps.map((step) => step.recipe).join("+"));
    equal(/./.test(plan.rejected.winograd ?? ""), true);
  },

  async "bench measures and checks"({ gpu, log }) {
    for (const problem of ["pointwise 1x64x14x14 -> 64 relu", "depthwise 1x32x28x28 k3 p1 nhwc", "pointwise 2x24x4x8 -> 40 residual relu"]) {
      const bench = await gpu.bench(problem, 0);
      equal([bench.rel_err < 2e-5, bench.e2e_ms.runs, bench.first_ms > 0], [true, 3, true]);
      log(`${problem}: ${bench.kernel}, ${bench.e2e_ms.median.toFixed(2)} ms`);
    }
    const { kernel } = await gpu.bench("separable 1x32x28x28 -> 64 k3 p1 relu6", 0, { fusion: "never" });
    equal(kernel.split("+").length, 2);
    await rejects(gpu.bench("pool 1x1x2x2", 0, { fusion: "some" }), /auto, never/);
    const steps = await gpu.measure("separable 1x32x28x28 -> 64 k3 p1 relu6", { fusion: "never" });
    equal([steps.length, steps.every(({ ms, bytes, flops }) => ms > 0 && bytes > 0 && flops > 0)], [2, true]);
  },

  async "tuning goes from JSON to JSON"({ gpu }) {
    let told = 0;
    const [run] = await gpu.tune("pointwise 1x16x8x8 -> 32 relu6", { seconds: 2, progress: () => told++ });
    equal([told, run.candidates.some(({ ms }) => ms > 0)], [run.candidates.length, true]);
    equal(run.candidates.filter(({ outcome }) => /wrong|failed/.test(outcome ?? "")), []);
    const { tuning } = gpu;
    equal([gpu.useTuning(tuning), gpu.tuning], [true, tuning]);
    throws(() => gpu.useTuning("{}"), /the tuning file is damaged/);
  },

  async "the caller's device and buffers"({ gpuconv }) {
    const adapter = await navigator.gpu.requestAdapter();
    const device = await adapter.requestDevice();
    const own = await gpuconv.GpuConv.fromDevice(device);
    equal(own.device, device);
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const buffer = device.createBuffer({ size: 512, usage: STORAGE | COPY_SRC | COPY_DST });
    device.queue.writeBuffer(buffer, 256, floats(1, 2));
    const x = own.tensor(buffer, [1, 1, 1, 2], { offset: 256 });
    equal(await x.buffer(), buffer);
    // Another handle of the device takes this one's tensors.
    const other = await gpuconv.GpuConv.fromDevice(device);
    equal(await other.download(x), floats(1, 2));
    other.free();
    const layer = await own.pointwise({ inChannels: 1, outChannels: 1 }, { weight: floats(3) });
    const y = await layer.forward(x);
    equal([(await y.buffer()) instanceof GPUBuffer, ...(await own.download(y))], [true, 3, 6]);
    throws(() => own.tensor(buffer, [1, 1, 1, 200]), /must have 200 values, but has 128/);
    throws(() => own.tensor({}, [1, 1, 1, 2]), /no GPUBuffer/);
    await rejects(gpuconv.GpuConv.fromDevice({}), /no device: this is no GPUDevice/);
    // The page's buffer and device stay.
    [x, y, layer, own].forEach((handle) => handle.free());
    device.queue.writeBuffer(buffer, 0, floats(1));
    await device.queue.onSubmittedWorkDone();
    equal(await Promise.race([device.lost, "there"]), "there");
    // After a loss each call says so.
    const lost = await gpuconv.GpuConv.fromDevice(device);
    const again = lost.upload(floats(1), [1, 1, 1, 1]);
    device.destroy();
    await device.lost;
    const error = await lost.download(again).catch((error) => error);
    equal([error.name, /the device is lost/.test(error.message)], ["DeviceLost", true]);
  },

  /** Browsers look rarely whether work is done, but look when something is submitted. */
  async "what is waited for is looked for"({ gpuconv }) {
    const device = await (await navigator.gpu.requestAdapter()).requestDevice();
    const own = await gpuconv.GpuConv.fromDevice(device);
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const buffer = device.createBuffer({ size: 256, usage: STORAGE | COPY_SRC | COPY_DST });
    const [queues, buffers] = [device.queue, buffer].map(Object.getPrototypeOf);
    const { submit } = queues;
    const { mapAsync } = buffers;
    const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
    let empty = 0;
    queues.submit = function (commands) {
      empty += Array.from(commands).length === 0;
      return submit.call(this, commands);
    };
    buffers.mapAsync = async function (...range) {
      await mapAsync.apply(this, range);
      await pause(30);
    };
    try {
      equal((await own.download(own.tensor(buffer, [1, 1, 1, 2]))).length, 2);
      const until = empty;
      await pause(150);
      equal([until > 0, empty], [true, until]);
    } finally {
      Object.assign(queues, { submit });
      Object.assign(buffers, { mapAsync });
      device.destroy();
    }
  },

  async "probe measures rates"({ gpu, mode }) {
    if (mode !== "all") return;
    const rates = await gpu.probe();
    equal(Object.values(rates).every((rate) => rate > 0), true);
  },

  async "a network from safetensors"({ gpu }) {
    const classes = 10;
    const bias = Float32Array.from({ length: classes }, (_, index) => index % 7);
    const file = safetensors(mobilenetV1(0.25, classes, bias));
    const network = await gpu.mobilenetV1(file, { width: 0.25, classes });
    const rgba = new Uint8ClampedArray(2 * 32 * 32 * 4).fill(100);
    const x = gpu.upload(network.pixels(rgba, 64, 32), [1, 3, 32, 64]);
    // The classifier of this file has a bias alone.
    const logits = await gpu.download(await network.layer.forward(x));
    equal([network.classes, ...logits], [classes, ...bias]);
    equal(network.top(logits, 2).map(({ index }) => index), [6, 5]);
    throws(() => network.top(logits, 1.5), "a count is a whole number, not 1.5");
    throws(() => network.top(floats(1, NaN), 1), "the logit of class 1 is not a number");
    // By name, and by its tensors.
    const options = { width: 0.25, classes };
    const found = await gpu.network(file, options);
    equal(found.task, "classification");
    equal([found.name, (await gpu.network(file, { ...options, name: "mobilenet_v1" })).classes], ["mobilenet_v1", classes]);
    await rejects(gpu.network(file), /no network of width 1 has these tensors; for mobilenet_v1, .*conv_stem/);
    await rejects(gpu.network(file, { name: "lenet" }), /no network is called lenet; there are mobilenet_v1, /);
    await rejects(gpu.network(new ArrayBuffer(3)), /not a safetensors file/);
    const given = file.slice(0);
    structuredClone(given, { transfer: [given] });
    await rejects(gpu.network(given, options), /the weights are there no more/);
    equal(found.pixels(new Uint8ClampedArray(8), 2, 1).length, 6);
    throws(() => found.pixels(new Uint8Array(8), 2), /whole numbers above 0, not 2 and/);
    throws(() => found.pixels(new Uint8Array(8), 3, 1), "pictures of 3x1 have 12 bytes each, but there are 8");
    await rejects(gpu.mobilenetV1(file), /`conv_stem.weight` must be \[32, 3, 3, 3\], but is \[8, 3, 3, 3\]/);
    await rejects(gpu.mobilenetV1(file, { width: 0 }), /a width multiplier must be above 0/);
  },

  async "a network with gates"({ gpuconv, gpu }) {
    equal([gpuconv.networks().includes("efficientnet_b0"), gpuconv.networks()[0]], [true, "mobilenet_v1"]);
    const bias = Float32Array.from({ length: 10 }, (_, index) => index % 3);
    const file = safetensors(mobilenetV3(bias));
    const network = await gpu.network(file, { classes: 10 });
    const x = gpu.upload(new Float32Array(3 * 32 * 32).fill(1), [1, 3, 32, 32]);
    equal([network.name, ...(await gpu.download(await network.layer.forward(x)))], ["mobilenet_v3_small", ...bias]);
  },

  /** Where a stride meets an even size, TensorFlow pads behind what PyTorch pads in front: that mirrors the image. */
  async "a network for images of a size"({ gpu }) {
    const file = safetensors(efficientnetLite0());
    const options = { name: "tf_efficientnet_lite0", classes: 10, imageSize: [32, 64] };
    const network = await gpu.network(file, options);
    const plain = await gpu.network(file, { classes: 10 });
    equal([network.name, plain.name], [options.name, "efficientnet_lite0"]);
    // Brighter to the right.
    const image = Float32Array.from({ length: 3 * 32 * 64 }, (_, index) => ((index % 64) / 64) ** 2);
    const logit = async (network, values) =>
      (await gpu.download(await network.layer.forward(gpu.upload(values, [1, 3, 32, 64]))))[0];
    const [tensorflow, pytorch] = [await logit(network, image), await logit(plain, image)];
    const mirrored = await logit(network, image.toReversed());
    equal([Math.abs(mirrored / pytorch - 1) < 1e-4, Math.abs(tensorflow / pytorch - 1) > 1e-3], [true, true]);
    // Where a stride meets an odd size, both pad alike.
    const odd = gpu.upload(image.subarray(0, 3 * 33 * 33).slice(), [1, 3, 33, 33]);
    const of = async (network) => (await gpu.download(await network.layer.forward(odd)))[0];
    const [even, sized] = [await of(network), await of(await gpu.network(file, { ...options, imageSize: 33 }))];
    equal([Math.abs(even / (await of(plain)) - 1) > 1e-3, Math.abs(sized / (await of(plain)) - 1) < 1e-4], [true, true]);
    await rejects(gpu.network(file, { ...options, imageSize: undefined }), /tf_efficientnet_lite0 needs the option imageSize/);
    await rejects(gpu.network(file, { ...options, imageSize: [32, 0] }), /32x0/);
    await rejects(gpu.network(file, { ...options, imageSize: "x" }), /the option imageSize of a network must be a whole number or \[rows/);
  },

  async "verify, and its progress, and its end"({ gpuconv, gpu, mode, log }) {
    const problems = gpuconv.cases().filter((_, index) => mode === "all" || index % 12 === 0);
    const steps = [];
    const told = [];
    const progress = ({ done, problem, failed }) => {
      steps.push([done, problem]);
      told.push(...failed);
    };
    const verified = await gpu.verify({ problems, progress });
    const { checks, failures, failed, seconds } = verified;
    log(`verify: ${checks} checks on ${verified.cases} cases, ${failures} failures, ${seconds.toFixed(1)} s`);
    equal([steps.length, verified.cases, failed, told], [problems.length, problems.length, [], []]);
    equal(checks > problems.length && verified.kernels.every(({ worst_share_of_bound: share }) => share <= 1), true);

    const stop = new AbortController();
    const stopped = gpu.verify({ progress: ({ done }) => done === 2 && stop.abort(), signal: stop.signal });
    await rejects(stopped, /abort/i);
  },

  /** Whoever stops `verify`, or loses the device, has what failed until then. */
  async "verify tells what failed as it goes"({ gpuconv }) {
    const device = await faultyDevice();
    const own = await gpuconv.GpuConv.fromDevice(device);
    const told = [];
    const problems = ["pointwise 1x16x8x8 -> 32 relu6", "pool 1x1x2x2"];
    const { failed } = await own.verify({ problems, progress: (at) => told.push(at) });
    const first = failed.filter(({ problem }) => problem === problems[0]);
    equal([told.length, told[0].failed, told[1].failures], [2, [], first.length]);
    equal(told[1].failed, first);
    equal([first.length > 0, first[0].complaint.includes("the driver gave up")], [true, true]);

    // In the case during which the device is lost, too.
    told.length = 0;
    const lost = own.verify({
      problems,
      progress: (at) => {
        told.push(at);
        if (at.done === 1) device.destroy();
      },
    });
    equal([(await lost.catch((error) => error)).name, told.length, told[2].failed], ["DeviceLost", 3, []]);
    own.free();
  },
};

/** A device as where a driver compiles no pipeline: what the scopes of internal errors catch. */
async function faultyDevice() {
  const device = await (await navigator.gpu.requestAdapter()).requestDevice();
  const [push, pop, filters] = [device.pushErrorScope, device.popErrorScope, []];
  device.pushErrorScope = (filter) => {
    filters.push(filter);
    push.call(device, filter);
  };
  device.popErrorScope = async () => {
    const filter = filters.pop();
    return (await pop.call(device)) ?? (filter === "internal" ? new GPUInternalError("the driver gave up") : null);
  };
  return device;
}

// All that computes, apart from the page, which so stays responsive. The page calls these functions by messages:
// {id, call, args} in, {id, result}, {id, error} or {id, progress} out; {stop: id} stops a call. {lost} and
// {uncaptured} are of the device.
import init, { GpuConv, networks, version } from "./gpuconv/gpuconv.js";
import { Frames } from "./frames.js";

let gpu, frames, network;
/** How many networks were asked for: the last one counts, whichever is there first. */
let networksAsked = 0;
const stops = new Map();

const calls = {
  /** Opens the device, and says what it is. */
  async open() {
    await init();
    gpu = await GpuConv.create();
    const { device } = gpu;
    device.lost.then(({ reason, message }) => postMessage({ lost: message || reason }));
    // What no call waits for, as of the drawing of pictures.
    device.addEventListener("uncapturederror", ({ error }) => postMessage({ uncaptured: error.message }));
    // Some browsers do not say what adapter a device is of.
    const { vendor, architecture, description } = device.adapterInfo ?? {};
    const limits = {};
    for (const name in device.limits) limits[name] = device.limits[name];
    const features = [...device.features];
    return { version: version(), networks: networks(), info: gpu.info, vendor, architecture, description, limits, features };
  },

  verify: (options, more) => gpu.verify({ ...options, ...more }),
  plan: (problem) => gpu.plan(problem),
  bench: (problem, seconds, options, { signal }) => gpu.bench(problem, seconds, { ...options, signal }),
  measure: (problem, options, { signal }) => gpu.measure(problem, { ...options, signal }),
  probe: () => gpu.probe(),

  /** Takes the canvas that filtered pictures are drawn on. */
  async canvas(canvas) {
    frames = new Frames(gpu, canvas);
  },

  /** Filters a picture, or a frame of a video, and draws it. */
  async frame(picture, filter) {
    try {
      if (!frames) throw new Error("there is no canvas to draw on");
      return await frames.draw(picture, filter);
    } finally {
      picture.close();
    }
  },

  /** Opens a network by its weights: of a name, or else the one that has the file's tensors. */
  async network(bytes, name) {
    const own = ++networksAsked;
    const opened = await gpu.network(bytes, { name, imageSize: 224 });
    if (own !== networksAsked) {
      opened.free();
      throw new Error("another file was chosen");
    }
    const { name: known, task } = opened;
    if (task !== "classification") {
      opened.free();
      throw new Error(`${known} is for ${task}, and this page shows what is in a picture`);
    }
    network?.free();
    network = opened;
    return network.name;
  },

  /** What a network sees in a picture. */
  async classify(picture) {
    const start = performance.now();
    const canvas = new OffscreenCanvas(224, 224);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    // The middle square.
    const side = Math.min(picture.width, picture.height);
    context.drawImage(picture, (picture.width - side) / 2, (picture.height - side) / 2, side, side, 0, 0, 224, 224);
    picture.close();
    const { data } = context.getImageData(0, 0, 224, 224);
    const own = network;
    const handles = [];
    const keep = (handle) => (handles.push(handle), handle);
    try {
      const x = keep(gpu.upload(own.pixels(data, 224, 224), [1, 3, 224, 224]));
      const layer = keep(own.layer);
      const y = keep(await layer.forward(x));
      const logits = await gpu.download(y);
      // Its handle is gone by then.
      if (own !== network) throw new Error("another network came");
      return { classes: own.top(logits, 5), ms: performance.now() - start };
    } finally {
      handles.forEach((handle) => handle.free());
    }
  },
};

onmessage = async ({ data: { id, call, args, stop } }) => {
  if (stop) return stops.get(stop)?.abort(new Error("stopped"));
  const controller = new AbortController();
  stops.set(id, controller);
  const more = { signal: controller.signal, progress: (progress) => postMessage({ id, progress }) };
  try {
    postMessage({ id, result: await calls[call](...args, more) });
  } catch (error) {
    postMessage({ id, error: { name: error?.name ?? "Error", message: String(error?.message ?? error) } });
  } finally {
    stops.delete(id);
  }
};

// Pictures to tensors and back to a canvas, without a trip through the host's memory unless the device is the host.

/** Pixels of a texture as three planes, with `radius` more on each side, which repeat the outermost. */
export const READ = `
struct Sizes { width: u32, height: u32, radius: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var picture: texture_2d<f32>;
@group(0) @binding(2) var<storage, read_write> planes: array<f32>;

@compute @workgroup_size(8, 8) fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    let width = sizes.width + 2u * sizes.radius;
    let height = sizes.height + 2u * sizes.radius;
    if at.x >= width || at.y >= height {
        return;
    }
    let inside = vec2<i32>(at.xy) - i32(sizes.radius);
    let colour = textureLoad(picture, clamp(inside, vec2<i32>(0), vec2<i32>(vec2(sizes.width, sizes.height)) - 1), 0);
    let pixel = at.y * width + at.x;
    planes[pixel] = colour.r;
    planes[width * height + pixel] = colour.g;
    planes[2u * width * height + pixel] = colour.b;
}`;

/** One or three planes on a canvas. */
export const DRAW = `
struct Sizes { width: u32, height: u32, channels: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> planes: array<f32>;

@vertex fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    return vec4(f32(index & 1u) * 4.0 - 1.0, f32(index >> 1u) * 4.0 - 1.0, 0.0, 1.0);
}

@fragment fn colour(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
    let pixel = u32(at.y) * sizes.width + u32(at.x);
    let plane = select(0u, sizes.width * sizes.height, sizes.channels == 3u);
    return vec4(planes[pixel], planes[plane + pixel], planes[2u * plane + pixel], 1.0);
}`;

/** A Gaussian at whole numbers, with a sum of 1. */
function gaussian(radius, deviation) {
  const values = Array.from({ length: 2 * radius + 1 }, (_, x) => Math.exp(-0.5 * ((x - radius) / deviation) ** 2));
  const sum = values.reduce((a, b) => a + b);
  return values.map((value) => value / sum);
}

const thrice = (values) => new Float32Array([...values, ...values, ...values]);

/** The layers of each filter, and how many pixels an output depends on, on each side: those of the example `filter`. */
const FILTERS = {
  none: { radius: 0, layers: async () => [] },
  blur: {
    radius: 6,
    // Along rows, then along columns: 26 multiply-adds for each value instead of 169.
    layers: async (gpu) => [
      await gpu.depthwise({ channels: 3, kernelSize: [1, 13] }, { weight: thrice(gaussian(6, 2.5)) }),
      await gpu.depthwise({ channels: 3, kernelSize: [13, 1] }, { weight: thrice(gaussian(6, 2.5)) }),
    ],
  },
  sharpen: {
    radius: 2,
    layers: async (gpu) => {
      // Adds what a blur would remove: 2 x the picture - its blur.
      const bell = gaussian(2, 1);
      const mask = bell.flatMap((y) => bell.map((x) => -x * y));
      mask[12] += 2;
      return [await gpu.depthwise({ channels: 3, kernelSize: 5, activation: [0, 1] }, { weight: thrice(mask) })];
    },
  },
  edges: {
    radius: 1,
    layers: async (gpu) => {
      // Sobel's two filters and their negatives; ReLU turns these into |x| and |y|, whose sum is weighted by brightness.
      const sobel = [[-1, 0, 1, -2, 0, 2, -1, 0, 1], [-1, -2, -1, 0, 0, 0, 1, 2, 1]];
      const both = sobel.flatMap((filter) => [...filter, ...filter.map((weight) => -weight)]);
      const shares = new Float32Array([0.2126, 0.7152, 0.0722].flatMap((share) => [share, share, share, share]));
      return [
        await gpu.depthwise({ channels: 3, outChannels: 12, kernelSize: 3, activation: "relu" }, { weight: thrice(both) }),
        await gpu.pointwise({ inChannels: 12, outChannels: 1, activation: [0, 1] }, { weight: shares }),
      ];
    },
  },
};

export class Frames {
  #gpu;
  #device;
  #canvas;
  #context;
  #read;
  #draw;
  #sizes;
  #filters = new Map();
  #kept = {};
  /** The picture before: they share what is kept, so each waits for the one before. */
  #last = Promise.resolve();
  /** The canvas of a software device. */
  #plain;

  constructor(gpu, canvas) {
    const device = gpu.device;
    const format = navigator.gpu.getPreferredCanvasFormat();
    [this.#gpu, this.#device, this.#canvas] = [gpu, device, canvas];
    // Chromium loses a software device that draws on a canvas, unless it draws its own windows with one. Its memory is the
    // host's anyway.
    if (gpu.info.is_software) {
      this.#plain = canvas.getContext("2d", { willReadFrequently: true });
      return;
    }
    this.#context = canvas.getContext("webgpu");
    if (!this.#context) throw new Error("its workers draw on no canvas with WebGPU");
    this.#context.configure({ device, format, alphaMode: "opaque" });
    const module = (code) => device.createShaderModule({ code });
    this.#read = device.createComputePipeline({ layout: "auto", compute: { module: module(READ) } });
    const draw = module(DRAW);
    const fragment = { module: draw, targets: [{ format }] };
    this.#draw = device.createRenderPipeline({ layout: "auto", vertex: { module: draw }, fragment });
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    this.#sizes = [0, 1].map(() => device.createBuffer({ size: 16, usage }));
  }

  /** Filters a picture and draws it. Gives the milliseconds from the picture to the canvas. */
  draw(picture, name) {
    const drawn = this.#last.then(() => this.#filterAndDraw(picture, name));
    this.#last = drawn.catch(() => {});
    return drawn;
  }

  async #filterAndDraw(picture, name) {
    const start = performance.now();
    const { radius } = FILTERS[name];
    const layers = await this.#layers(name);
    // A VideoFrame has other names for its size than an ImageBitmap.
    const [width, height] = [picture.displayWidth ?? picture.width, picture.displayHeight ?? picture.height];
    if (this.#plain) {
      await this.#drawPlain(picture, layers, radius, width, height);
      return performance.now() - start;
    }
    const { texture, input } = this.#memory(width, height, radius);
    const [device, queue] = [this.#device, this.#device.queue];
    queue.copyExternalImageToTexture({ source: picture }, { texture }, [width, height]);
    const [columns, rows] = [width + 2 * radius, height + 2 * radius];
    queue.writeBuffer(this.#sizes[0], 0, new Uint32Array([width, height, radius]));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(this.#read);
    pass.setBindGroup(0, this.#bind(this.#read, [{ buffer: this.#sizes[0] }, texture.createView(), { buffer: input }]));
    pass.dispatchWorkgroups(Math.ceil(columns / 8), Math.ceil(rows / 8));
    pass.end();
    queue.submit([encoder.finish()]);

    const tensor = await this.#filter(layers, this.#gpu.tensor(input, [1, 3, rows, columns]));
    try {
      const [, channels] = tensor.shape;
      this.#show(await tensor.buffer(), width, height, channels);
    } finally {
      tensor.free();
    }
    // A browser asked by its own call looks rarely whether work is done.
    await this.#gpu.wait();
    return performance.now() - start;
  }

  /** A filter's layers, which are made once. */
  #layers(name) {
    if (!this.#filters.has(name)) {
      const layers = FILTERS[name].layers(this.#gpu);
      this.#filters.set(name, layers);
      // What failed may go well another time.
      layers.catch(() => this.#filters.delete(name));
    }
    return this.#filters.get(name);
  }

  /** Runs a filter's layers, and frees what goes into each. */
  async #filter(layers, tensor) {
    for (const layer of layers) {
      const input = tensor;
      try {
        tensor = await layer.forward(input);
      } finally {
        input.free();
      }
    }
    return tensor;
  }

  /** The same by the host's memory. */
  async #drawPlain(picture, layers, radius, width, height) {
    // On a canvas of its own: what is drawn on the page's is shown while the filter runs.
    const plain = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    plain.drawImage(picture, 0, 0, width, height);
    const { data } = plain.getImageData(0, 0, width, height);
    const [columns, rows] = [width + 2 * radius, height + 2 * radius];
    const planes = new Float32Array(3 * columns * rows);
    const inside = (at, extent) => Math.min(Math.max(at - radius, 0), extent - 1);
    for (let y = 0, at = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++, at++) {
        const pixel = 4 * (inside(y, height) * width + inside(x, width));
        for (let channel = 0; channel < 3; channel++) planes[channel * columns * rows + at] = data[pixel + channel] / 255;
      }
    }
    const tensor = await this.#filter(layers, this.#gpu.upload(planes, [1, 3, rows, columns]));
    let values, plane;
    try {
      values = await this.#gpu.download(tensor);
      plane = tensor.shape[1] === 3 ? width * height : 0;
    } finally {
      tensor.free();
    }
    for (let pixel = 0; pixel < width * height; pixel++) {
      for (let channel = 0; channel < 3; channel++) data[4 * pixel + channel] = 255 * values[channel * plane + pixel];
    }
    [this.#canvas.width, this.#canvas.height] = [width, height];
    this.#plain.putImageData(new ImageData(data, width, height), 0, 0);
  }

  /** The texture and the buffer of pictures of a size. */
  #memory(width, height, radius) {
    const key = `${width} ${height} ${radius}`;
    if (this.#kept.key !== key) {
      this.#kept.texture?.destroy();
      this.#kept.input?.destroy();
      const { COPY_DST, TEXTURE_BINDING, RENDER_ATTACHMENT } = GPUTextureUsage;
      const usage = COPY_DST | TEXTURE_BINDING | RENDER_ATTACHMENT;
      const texture = this.#device.createTexture({ size: [width, height], format: "rgba8unorm", usage });
      const size = 12 * (width + 2 * radius) * (height + 2 * radius);
      this.#kept = { key, texture, input: this.#device.createBuffer({ size, usage: GPUBufferUsage.STORAGE }) };
      [this.#canvas.width, this.#canvas.height] = [width, height];
    }
    return this.#kept;
  }

  #show(buffer, width, height, channels) {
    this.#device.queue.writeBuffer(this.#sizes[1], 0, new Uint32Array([width, height, channels]));
    const encoder = this.#device.createCommandEncoder();
    const view = this.#context.getCurrentTexture().createView();
    const pass = encoder.beginRenderPass({ colorAttachments: [{ view, loadOp: "clear", storeOp: "store" }] });
    pass.setPipeline(this.#draw);
    pass.setBindGroup(0, this.#bind(this.#draw, [{ buffer: this.#sizes[1] }, { buffer }]));
    pass.draw(3);
    pass.end();
    this.#device.queue.submit([encoder.finish()]);
  }

  #bind(pipeline, resources) {
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    return this.#device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  }
}

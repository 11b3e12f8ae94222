// Tests the shaders of the page's pictures in a browser. The page's own test runs on a software device, for which the
// host draws them.
import { DRAW, READ } from "../page/frames.js";

/** A picture of 3x2 pixels: its red. Green is more by 100, blue by 150. */
const RED = [10, 20, 30, 40, 50, 60];
const [WIDTH, HEIGHT] = [3, 2];
/** With a pixel more on each side. */
const RED_WITH_RIM = [10, 10, 20, 30, 30, 10, 10, 20, 30, 30, 40, 40, 50, 60, 60, 40, 40, 50, 60, 60];
const planes = (red) => [0, 100, 150].flatMap((more) => red.map((value) => value + more));

/** Gives a list of what is wrong. */
export async function testShaders() {
  const device = await (await navigator.gpu.requestAdapter()).requestDevice();
  device.pushErrorScope("validation");
  const complaints = [];
  const compile = async (code) => {
    const module = device.createShaderModule({ code });
    const { messages } = await module.getCompilationInfo();
    complaints.push(...messages.map(({ lineNum, message }) => `a shader of the page, line ${lineNum}: ${message}`));
    return module;
  };
  const expect = (what, actual, expected) => {
    if (`${actual}` !== `${expected}`) complaints.push(`${what}: ${actual}, not ${expected}`);
  };

  const read = { module: await compile(READ) };
  expect("READ", await readPicture(device, read), [...planes(RED_WITH_RIM), 0, 0, 0, 0]);

  const draw = { module: await compile(DRAW) };
  const colours = RED.flatMap((red) => [red, red + 100, red + 150, 255]);
  expect("DRAW of three planes", await drawPlanes(device, draw, planes(RED)), colours);
  const greys = RED.flatMap((grey) => [grey, grey, grey, 255]);
  expect("DRAW of one plane", await drawPlanes(device, draw, RED), greys);

  const error = await device.popErrorScope();
  if (error) complaints.push(`the page's shaders: ${error.message}`);
  device.destroy();
  return complaints;
}

/** What READ makes of the picture, in steps of colour, and four values behind it. */
async function readPicture(device, compute) {
  const { COPY_DST, TEXTURE_BINDING, RENDER_ATTACHMENT } = GPUTextureUsage;
  const usage = COPY_DST | TEXTURE_BINDING | RENDER_ATTACHMENT;
  const texture = device.createTexture({ size: [WIDTH, HEIGHT], format: "rgba8unorm", usage });
  const pixels = new Uint8ClampedArray(RED.flatMap((red) => [red, red + 100, red + 150, 255]));
  const source = await createImageBitmap(new ImageData(pixels, WIDTH, HEIGHT));
  device.queue.copyExternalImageToTexture({ source }, { texture }, [WIDTH, HEIGHT]);
  const size = 4 * (3 * RED_WITH_RIM.length + 4);
  const output = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const pipeline = device.createComputePipeline({ layout: "auto", compute });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bind(device, pipeline, [sizes(device, 1), texture.createView(), { buffer: output }]));
  pass.dispatchWorkgroups(1, 1);
  pass.end();
  const values = new Float32Array(await download(device, encoder, size, (buffer) => {
    encoder.copyBufferToBuffer(output, 0, buffer, 0, size);
  }));
  return [...values].map((value) => Math.round(255 * value));
}

/** What DRAW makes of one or three planes, which are in steps of colour. */
async function drawPlanes(device, shader, values) {
  const planes = Float32Array.from(values, (value) => value / 255);
  const { STORAGE, COPY_DST } = GPUBufferUsage;
  const buffer = device.createBuffer({ size: planes.byteLength, usage: STORAGE | COPY_DST });
  device.queue.writeBuffer(buffer, 0, planes);
  const format = "rgba8unorm";
  const usage = GPUTextureUsage.RENDER_ATTACHMENT | GPUTextureUsage.COPY_SRC;
  const texture = device.createTexture({ size: [WIDTH, HEIGHT], format, usage });
  const fragment = { ...shader, targets: [{ format }] };
  const pipeline = device.createRenderPipeline({ layout: "auto", vertex: shader, fragment });
  const encoder = device.createCommandEncoder();
  const view = texture.createView();
  const pass = encoder.beginRenderPass({ colorAttachments: [{ view, loadOp: "clear", storeOp: "store" }] });
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bind(device, pipeline, [sizes(device, values.length / RED.length), { buffer }]));
  pass.draw(3);
  pass.end();
  const bytesPerRow = 256;
  const bytes = new Uint8Array(await download(device, encoder, HEIGHT * bytesPerRow, (buffer) => {
    encoder.copyTextureToBuffer({ texture }, { buffer, bytesPerRow }, [WIDTH, HEIGHT]);
  }));
  return [0, bytesPerRow].flatMap((row) => [...bytes.subarray(row, row + 4 * WIDTH)]);
}

/** The sizes that both shaders take: the last is READ's radius, or DRAW's channels. */
function sizes(device, last) {
  const buffer = device.createBuffer({ size: 16, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  device.queue.writeBuffer(buffer, 0, new Uint32Array([WIDTH, HEIGHT, last]));
  return { buffer };
}

function bind(device, pipeline, resources) {
  const entries = resources.map((resource, binding) => ({ binding, resource }));
  return device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
}

/** Submits what is recorded, with a copy of so many bytes behind it, and gives these. */
async function download(device, encoder, size, copy) {
  const buffer = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  copy(buffer);
  device.queue.submit([encoder.finish()]);
  await buffer.mapAsync(GPUMapMode.READ);
  return buffer.getMappedRange().slice(0);
}

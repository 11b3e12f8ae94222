// Compiled by web/check, not run: the types of the package.
import init, { GpuConv, Layer, Tensor, cases, networks, softmax, version, type Plan, type Verified } from "../package/dist/gpuconv.js";

const host = (): Float32Array => new Float32Array(1);

export async function example(device: GPUDevice, buffer: GPUBuffer, file: ArrayBuffer): Promise<void> {
    await init();
    const gpu: GpuConv = await GpuConv.fromDevice(device);
    const weights = { depthwise: new Float32Array(72), pointwise: new Float32Array(128) };
    const layer: Layer = await gpu.separable(
        { inChannels: 8, outChannels: 16, kernelSize: [3, 3], padding: [1, 1, 1, 1], activation: [0, 6] },
        weights,
    );
    const x: Tensor = gpu.tensor(buffer, [1, 8, 32, 32], { layout: "nhwc" });
    // As in the README: what is optional may be left out.
    const picture = new ImageData(224, 224);
    const classifier = await gpu.network(file);
    const pixels: Tensor = gpu.upload(classifier.pixels(picture.data, picture.width, picture.height), [1, 3, 224, 224]);
    await classifier.layer.warmUp(pixels.shape);
    await classifier.layer.forward(pixels);
    gpu.upload(host(), [1, 1, 1, 1], "nchw", "f16");
    gpu.tensor(buffer, [1, 8, 32, 32]).free();
    await gpu.tune("pool 1x3x8x8");
    await gpu.measure("pool 1x3x8x8");
    await gpu.bench("pool 1x3x8x8", 1);
    await gpu.bench("pool 1x3x8x8", 1, { fusion: "never" });
    await gpu.verify();
    await gpu.mobilenetV1(file);
    const y: Tensor = await layer.forward(x);
    const values: Float32Array = await gpu.download(y);
    const plan: Plan = gpu.plan("pool 1x3x8x8");
    const verified: Verified = await gpu.verify({ problems: cases().slice(2), progress: ({ done }) => done });
    const network = await gpu.mobilenetV2(file, { width: 0.5 });
    const found = await gpu.network(file, { name: "efficientnet_b0", dtype: "f16" });
    const block = await gpu.chain(["gate 1x8x4x4 -> 2", { problem: "pointwise 1x8x4x4 -> 8", reads: 0, scaledBy: 1 }], []);
    await block.forward(x, undefined, y);
    console.log(found.name, networks()[0]);
    const [{ index }] = network.top(softmax(values), 1);
    console.log(version(), plan.kernel, verified.failed[0].complaint, index, y.shape[0], (await y.buffer()).size);
    // @ts-expect-error: no such option
    await gpu.pointwise({ inChannels: 1, outChannels: 1, kernelSize: 1 }, { weight: values });
    y.free();
}

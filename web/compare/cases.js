// What is compared: problem lines for gpuconv, and the same as layers for the others.

const layer = (cin, cout, kernel, stride, groups, relu6) => ({ cin, cout, kernel, stride, groups, relu6 });
const conv = (cin, cout, kernel, stride) => layer(cin, cout, kernel, stride, 1, true);
const depthwise = (channels, kernel, stride) => layer(channels, channels, kernel, stride, channels, true);
const pointwise = (cin, cout, relu6 = true) => layer(cin, cout, 1, 1, 1, relu6);

/** Stages of MobileNetV1 (arXiv 1704.04861, table 1): channels, blocks, the first block's stride. */
const V1 = [[64, 1, 1], [128, 2, 2], [256, 2, 2], [512, 6, 2], [1024, 2, 2]];
/** Stages of MobileNetV2 (arXiv 1801.04381, table 2): expansion, channels, blocks, the first block's stride. */
const V2 = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]];

function mobilenetV1() {
  const layers = [conv(3, 32, 3, 2)];
  for (const [channels, blocks, stride] of V1) {
    for (let block = 0; block < blocks; block++) {
      const { cout } = layers.at(-1);
      layers.push(depthwise(cout, 3, block ? 1 : stride), pointwise(cout, channels));
    }
  }
  return [...layers, { ...pointwise(1024, 1000, false), pooled: true }];
}

function mobilenetV2() {
  const layers = [conv(3, 32, 3, 2)];
  for (const [expansion, channels, blocks, first] of V2) {
    for (let block = 0; block < blocks; block++) {
      const [{ cout }, stride] = [layers.at(-1), block ? 1 : first];
      if (expansion > 1) layers.push(pointwise(cout, cout * expansion));
      // The residual is what the block began with, three layers before.
      const residual = stride === 1 && cout === channels;
      layers.push(depthwise(cout * expansion, 3, stride), { ...pointwise(cout * expansion, channels, false), residual });
    }
  }
  return [...layers, pointwise(320, 1280), { ...pointwise(1280, 1000, false), pooled: true }];
}

export const CASES = [
  ["conv 1x3x224x224 -> 32 k3 s2 p1 relu6", [conv(3, 32, 3, 2)]],
  ["depthwise 1x32x112x112 k3 p1 relu6", [depthwise(32, 3, 1)]],
  ["depthwise 1x512x14x14 k3 p1 relu6", [depthwise(512, 3, 1)]],
  ["pointwise 1x32x112x112 -> 64 relu6", [pointwise(32, 64)]],
  ["pointwise 1x512x14x14 -> 512 relu6", [pointwise(512, 512)]],
  ["separable 1x128x56x56 -> 128 k3 p1 relu6", [depthwise(128, 3, 1), pointwise(128, 128)]],
  ["separable 1x512x128x128 -> 1024 k3 s2 p1 relu6", [depthwise(512, 3, 2), pointwise(512, 1024)]],
  ["mobilenet_v1 1", mobilenetV1(), [1, 3, 224, 224]],
  ["mobilenet_v2 1", mobilenetV2(), [1, 3, 224, 224]],
].map(([problem, layers, shape]) => ({ problem, layers, shape: shape ?? problem.match(/\d+x\d+x\d+x\d+/)[0].split("x").map(Number) }));

/** Numbers from -1 to 1, the same in each browser: Marsaglia's xorshift. */
function random(state) {
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  };
}

/** The input, NCHW, and each layer's weights in PyTorch's order, scaled so that no layer's output grows or fades. */
export function data({ layers, shape }) {
  const next = random(2463534242 | 0);
  const draw = (length, scale) => Float32Array.from({ length }, () => scale * next());
  const weights = layers.map(({ cin, cout, kernel, groups }) => {
    const fanIn = (cin / groups) * kernel ** 2;
    return { weight: draw(cout * fanIn, Math.sqrt(6 / fanIn)), bias: draw(cout, 0.1) };
  });
  return { input: draw(shape.reduce((a, b) => a * b), 1), weights };
}

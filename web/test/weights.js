// Weights files of small networks, made here.

/** MobileNetV1's tensors under timm's names, all ones, but for the classifier. */
export function mobilenetV1(width, classes, bias) {
  const tensors = [];
  const add = (name, shape, value = 1) => {
    const length = shape.reduce((a, b) => a * b, 1);
    tensors.push([name, shape, new Float32Array(length).fill(value)]);
  };
  const conv = (prefix, name, norm, shape) => {
    add(`${prefix}${name}.weight`, shape);
    for (const part of ["weight", "bias", "running_mean", "running_var"]) add(`${prefix}${norm}.${part}`, [shape[0]]);
  };
  let channels = 32 * width;
  conv("", "conv_stem", "bn1", [channels, 3, 3, 3]);
  for (const [stage, [base, blocks]] of [[64, 1], [128, 2], [256, 2], [512, 6], [1024, 2]].entries()) {
    for (let block = 0; block < blocks; block++) {
      conv(`blocks.${stage}.${block}.`, "conv_dw", "bn1", [channels, 1, 3, 3]);
      conv(`blocks.${stage}.${block}.`, "conv_pw", "bn2", [base * width, channels, 1, 1]);
      channels = base * width;
    }
  }
  add("classifier.weight", [classes, channels], 0);
  tensors.push(["classifier.bias", [classes], bias]);
  return tensors;
}

/** MobileNetV3-small's tensors under torchvision's names, small ones, but for the last layer. */
export function mobilenetV3(bias) {
  const tensors = [];
  const add = (name, shape, value = 0.01) => {
    tensors.push([name, shape, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value)]);
  };
  const conv = (name, shape) => {
    add(`${name}.0.weight`, shape);
    for (const part of ["weight", "bias", "running_mean", "running_var"]) add(`${name}.1.${part}`, [shape[0]], 1);
  };
  conv("features.0", [16, 3, 3, 3]);
  let channels = 16;
  // Kernel, expanded channels, output channels, channels of the squeeze.
  const blocks = [[3, 16, 16, 8], [3, 72, 24], [3, 88, 24], [5, 96, 40, 24], [5, 240, 40, 64], [5, 240, 40, 64],
    [5, 120, 48, 32], [5, 144, 48, 40], [5, 288, 96, 72], [5, 576, 96, 144], [5, 576, 96, 144]];
  for (const [index, [kernel, expanded, out, squeezed]] of blocks.entries()) {
    let part = 0;
    const next = () => `features.${index + 1}.block.${part++}`;
    if (expanded !== channels) conv(next(), [expanded, channels, 1, 1]);
    conv(next(), [expanded, 1, kernel, kernel]);
    if (squeezed) {
      const gate = next();
      for (const [name, shape] of [["fc1", [squeezed, expanded, 1, 1]], ["fc2", [expanded, squeezed, 1, 1]]]) {
        add(`${gate}.${name}.weight`, shape);
        add(`${gate}.${name}.bias`, [shape[0]]);
      }
    }
    conv(next(), [out, expanded, 1, 1]);
    channels = out;
  }
  conv("features.12", [576, 96, 1, 1]);
  add("classifier.0.weight", [1024, 576]);
  add("classifier.0.bias", [1024]);
  add("classifier.3.weight", [10, 1024], 0);
  tensors.push(["classifier.3.bias", [10], bias]);
  return tensors;
}

/** EfficientNet-Lite0's tensors under timm's names: means of all that a convolution reads, the same for each channel. */
export function efficientnetLite0() {
  const tensors = [];
  const add = (name, shape, value) => {
    tensors.push([name, shape, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value)]);
  };
  const conv = (name, norm, shape) => {
    add(`${name}.weight`, shape, 1 / (shape[1] * shape[2] * shape[3]));
    // So large a variance that what is added to it, which is not the same for all networks, makes no difference.
    const parts = { weight: 100, bias: 0, running_mean: 0, running_var: 1e4 };
    for (const [part, value] of Object.entries(parts)) add(`${norm}.${part}`, [shape[0]], value);
  };
  conv("conv_stem", "bn1", [32, 3, 3, 3]);
  let channels = 32;
  // Kernel, output channels, blocks of each stage.
  const stages = [[3, 16, 1], [3, 24, 2], [5, 40, 2], [3, 80, 3], [5, 112, 3], [5, 192, 4], [3, 320, 1]];
  for (const [stage, [kernel, out, blocks]] of stages.entries()) {
    for (let block = 0; block < blocks; block++) {
      const at = `blocks.${stage}.${block}.`;
      const expanded = stage ? 6 * channels : channels;
      if (stage) conv(`${at}conv_pw`, `${at}bn1`, [expanded, channels, 1, 1]);
      conv(`${at}conv_dw`, `${at}bn${stage ? 2 : 1}`, [expanded, 1, kernel, kernel]);
      conv(`${at}${stage ? "conv_pwl" : "conv_pw"}`, `${at}bn${stage ? 3 : 2}`, [out, expanded, 1, 1]);
      channels = out;
    }
  }
  conv("conv_head", "bn2", [1280, 320, 1, 1]);
  add("classifier.weight", [10, 1280], 1 / 1280);
  add("classifier.bias", [10], 0);
  return tensors;
}

/** A safetensors file of f32 tensors: names, shapes, values. */
export function safetensors(tensors) {
  const header = {};
  let at = 0;
  for (const [name, shape, values] of tensors) {
    header[name] = { dtype: "F32", shape, data_offsets: [at, (at += values.byteLength)] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + at);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let end = 8 + text.length;
  for (const [, , values] of tensors) {
    file.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), end);
    end += values.byteLength;
  }
  return file.buffer;
}

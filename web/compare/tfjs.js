// TensorFlow.js on its WebGPU backend: its fused layers, in its own layout, NHWC.
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-webgpu";

export const version = tf.version_core;

export async function open({ layers, shape: [n, c, h, w] }, { input, weights }) {
  if (!(await tf.setBackend("webgpu"))) throw new Error("it has no WebGPU backend here");
  const filters = layers.map(({ cin, cout, kernel, groups }, index) => {
    const oihw = tf.tensor(weights[index].weight, [cout, cin / groups, kernel, kernel]);
    // Rows, columns, input channels, output channels; of a depthwise convolution one output for each input.
    return [tf.transpose(oihw, groups > 1 ? [2, 3, 0, 1] : [2, 3, 1, 0]), tf.tensor1d(weights[index].bias)];
  });
  // The caller has its numbers in the library's layout.
  const pixels = await tf.transpose(tf.tensor4d(input, [n, c, h, w]), [0, 2, 3, 1]).data();
  const forward = () => {
    const outputs = [tf.tensor4d(pixels, [n, h, w, c])];
    layers.forEach(({ kernel, stride, groups, relu6, residual, pooled }, index) => {
      let x = outputs.at(-1);
      if (pooled) x = tf.mean(x, [1, 2], true);
      const [filter, bias] = filters[index];
      const fused = groups > 1 ? tf.fused.depthwiseConv2d : tf.fused.conv2d;
      const activation = relu6 ? "relu6" : "linear";
      let y = fused({ x, filter, bias, strides: stride, pad: (kernel - 1) / 2, activation });
      if (residual) y = tf.add(y, outputs[index - 2]);
      outputs.push(y);
    });
    return outputs.at(-1);
  };
  let shape;
  return {
    run: async () => {
      const y = tf.tidy(forward);
      shape = y.shape;
      const values = await y.data();
      y.dispose();
      return values;
    },
    /** Its values in NCHW. */
    nchw: async (values) => {
      const y = tf.tidy(() => tf.transpose(tf.tensor(values, shape), [0, 3, 1, 2]));
      const transposed = await y.data();
      y.dispose();
      return transposed;
    },
    close: () => filters.flat().forEach((tensor) => tensor.dispose()),
  };
}

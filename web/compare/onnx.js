// Writes ONNX models: the messages of onnx.proto that a chain of convolutions needs.

const text = new TextEncoder();

function varint(number) {
  const bytes = [];
  for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) | 128);
  return [...bytes, number];
}

/** A message: fields as [number, value]. A value is a whole number, text, bytes, or a message. */
function message(...fields) {
  const parts = fields.flatMap(([field, value]) => {
    if (typeof value === "number") return [Uint8Array.from([...varint(field << 3), ...varint(value)])];
    const bytes = typeof value === "string" ? text.encode(value) : value;
    return [Uint8Array.from([...varint((field << 3) | 2), ...varint(bytes.length)]), bytes];
  });
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

const each = (field, values) => values.map((value) => [field, value]);
const [FLOAT, INT, INTS] = [1, 2, 7];

function tensor(name, dims, values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return message(...each(1, dims), [2, FLOAT], [8, name], [9, bytes]);
}

function node(type, inputs, output, attributes = {}) {
  const list = Object.entries(attributes).map(([name, value]) =>
    Array.isArray(value) ? message([1, name], ...each(8, value), [20, INTS]) : message([1, name], [3, value], [20, INT]));
  return message(...each(1, inputs), [2, output], [4, type], ...each(5, list));
}

function info(name, dims) {
  const shape = message(...each(1, dims.map((dim) => message([1, dim]))));
  return message([1, name], [2, message([1, message([1, FLOAT], [2, shape])])]);
}

/** The model of a case, from `x` to `y`. */
export function model({ layers, shape }, weights) {
  const [nodes, initializers] = [[], [tensor("low", [], new Float32Array([0])), tensor("high", [], new Float32Array([6]))]];
  const outputs = ["x"];
  const add = (type, inputs, attributes) => {
    nodes.push([type, inputs, attributes]);
    return `t${nodes.length}`;
  };
  layers.forEach(({ cin, cout, kernel, stride, groups, relu6, residual, pooled }, index) => {
    let input = outputs.at(-1);
    if (pooled) input = add("GlobalAveragePool", [input]);
    const { weight, bias } = weights[index];
    initializers.push(tensor(`w${index}`, [cout, cin / groups, kernel, kernel], weight), tensor(`b${index}`, [cout], bias));
    const pad = (kernel - 1) / 2;
    const attributes = { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: [pad, pad, pad, pad], group: groups };
    let output = add("Conv", [input, `w${index}`, `b${index}`], attributes);
    if (relu6) output = add("Clip", [output, "low", "high"]);
    if (residual) output = add("Add", [output, outputs[index - 2]]);
    outputs.push(output);
  });
  const named = nodes.map(([type, inputs, attributes], index) =>
    node(type, inputs, index === nodes.length - 1 ? "y" : `t${index + 1}`, attributes));
  const { cout } = layers.at(-1);
  const graph = message(...each(1, named), [2, "case"], ...each(5, initializers), [11, info("x", shape)],
    [12, message([1, "y"], [2, message([1, message([1, FLOAT])])])]);
  return message([1, 8], [7, graph], [8, message([2, 17])]);
}

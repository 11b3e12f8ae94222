// The roofline: each step's speed over its operations for each byte, under the peaks of the device.

const WIDTH = 760;
const HEIGHT = 420;
const [LEFT, RIGHT, TOP, BELOW] = [56, 16, 16, 46];

/** An SVG of steps with `ms`, `mult_adds` and `bytes`, under a device's rates. */
export function roofline(steps, rates) {
  const roof = { flops: 2 * rates.mult_adds, bytes: rates.bytes };
  const points = steps
    .filter(({ mult_adds, ms }) => mult_adds > 0 && ms > 0)
    .map(({ layer, recipe, ms, mult_adds, bytes }) => ({
      label: `${layer}: ${recipe}, ${ms.toPrecision(3)} ms`,
      intensity: (2 * mult_adds) / bytes,
      speed: (2 * mult_adds) / (ms * 1e-3),
    }));
  const ridge = roof.flops / roof.bytes;
  const x = axis([...points.map((point) => point.intensity), ridge], [LEFT, WIDTH - RIGHT]);
  const y = axis([...points.map((point) => point.speed), roof.flops], [HEIGHT - BELOW, TOP]);
  const start = Math.max(10 ** x.low, 10 ** y.low / roof.bytes);
  const line = [[start, start * roof.bytes], [ridge, roof.flops], [10 ** x.high, roof.flops]];
  const below = points.filter((point) => point.intensity < ridge).length;
  const words =
    `${below} of ${points.length} steps do fewer than ${ridge.toPrecision(3)} operations for each byte that they move, so ` +
    "that memory is their ceiling and not arithmetic.";
  const path = line.map(([at, speed]) => `${x.place(at).toFixed(1)},${y.place(speed).toFixed(1)}`).join(" ");
  const svg = `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Roofline. ${words}">
    ${x.ticks.map((tick) => `<line class="grid" x1="${x.place(tick)}" x2="${x.place(tick)}" y1="${TOP}" y2="${HEIGHT - BELOW}"/>
      <text x="${x.place(tick)}" y="${HEIGHT - BELOW + 18}" text-anchor="middle">${plain(tick)}</text>`).join("")}
    ${y.ticks.map((tick) => `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y.place(tick)}" y2="${y.place(tick)}"/>
      <text x="${LEFT - 8}" y="${y.place(tick) + 4}" text-anchor="end">${plain(tick / 1e9)}</text>`).join("")}
    <text x="${WIDTH - RIGHT}" y="${HEIGHT - 8}" text-anchor="end">operations for each byte</text>
    <text x="8" y="${TOP - 2}">GFLOP/s</text>
    <polyline class="roof" points="${path}"/>
    ${points.map((point) => `<circle class="point" r="5" cx="${x.place(point.intensity).toFixed(1)}"
      cy="${y.place(point.speed).toFixed(1)}"><title>${escaped(point.label)}</title></circle>`).join("")}
  </svg>`;
  return { svg, words };
}

/** A logarithmic axis over whole powers of ten. */
function axis(values, [from, to]) {
  const logs = values.map(Math.log10);
  const [low, high] = [Math.floor(Math.min(...logs)), Math.ceil(Math.max(...logs) + 0.05)];
  const place = (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from);
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  return { low, high, place, ticks };
}

const plain = (number) => String(Number(number.toPrecision(3)));

export function escaped(text) {
  return text.replace(/[&<>"]/g, (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[char]);
}

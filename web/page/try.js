// Try it: filters on pictures and on the camera, and a network. Of several things that are asked for at once the last one
// counts, whichever is ready first: each takes a number, and whoever has no longer the last one ends.
import { $, ask } from "./page.js";
import { failed, figure, say } from "./words.js";

let picture;
let video;
const filter = () => $("filter").elements.filter.value;

/** Filters the picture that there is, and says how long that took. */
let shown = 0;
async function show() {
  if (!picture || video) return;
  const own = ++shown;
  const isLast = () => own === shown && !video;
  try {
    const bitmap = await createImageBitmap(picture);
    if (!isLast()) return bitmap.close();
    const { width, height } = bitmap;
    const ms = await ask("frame", [bitmap, filter()], { transfer: [bitmap] });
    if (isLast()) say("frame-state", `${width}x${height} in ${figure(ms)} ms.`);
  } catch (error) {
    if (isLast()) say("frame-state", failed("It failed", error.message));
  }
}

/** The number of what was chosen last to be shown: a file, the drawn picture, or the camera. */
let chosen = 0;

/** Shows a picture in the camera's place, and what the network sees in it. */
async function showInstead(bitmap) {
  picture = bitmap;
  stopCamera();
  await show();
  await classify();
}

export async function take(file) {
  const own = ++chosen;
  let small;
  try {
    const bitmap = await createImageBitmap(file);
    // A large photograph is made smaller: this is a look, not a workshop.
    const scale = Math.min(1, 1600 / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((extent) => Math.max(1, Math.round(extent * scale)));
    small = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height });
  } catch {
    if (own === chosen) say("frame-state", `${file.name} is no picture that this browser can read.`);
    return;
  }
  if (own === chosen) await showInstead(small);
}

/** Calls a function with each file that is chosen. */
function onFile(input, use) {
  input.addEventListener("change", () => {
    const [file] = input.files;
    // The same file can be chosen again.
    input.value = "";
    if (file) use(file);
  });
}

$("filter").addEventListener("change", (event) => event.target.name === "filter" && show());
$("filter").addEventListener("submit", (event) => event.preventDefault());
onFile($("filter").elements.picture, take);

$("sample").addEventListener("click", async () => {
  const own = ++chosen;
  const canvas = new OffscreenCanvas(640, 360);
  const context = canvas.getContext("2d");
  const sky = context.createLinearGradient(0, 0, 0, 360);
  sky.addColorStop(0, "#2b5fa8");
  sky.addColorStop(1, "#f2c28b");
  context.fillStyle = sky;
  context.fillRect(0, 0, 640, 360);
  context.fillStyle = "#fbe7a1";
  context.beginPath();
  context.arc(480, 110, 48, 0, 7);
  context.fill();
  for (const [colour, height, step] of [["#5d6d7e", 210, 90], ["#34495e", 260, 70], ["#1b2631", 310, 45]]) {
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(0, 360);
    for (let x = 0; x <= 640 + step; x += step) context.lineTo(x, height - 60 * Math.abs(Math.sin(x / 1.7)));
    context.lineTo(640, 360);
    context.fill();
  }
  const bitmap = await createImageBitmap(canvas);
  if (own === chosen) await showInstead(bitmap);
});

function stopCamera() {
  video?.srcObject.getTracks().forEach((track) => track.stop());
  video = undefined;
  $("frame-rate").textContent = "";
  $("camera").setAttribute("aria-pressed", "false");
}

/** Whether something is measured or checked. */
let isQuiet = false;
let isOpening = false;

/** Keeps the camera off while something is measured or checked: it would disturb the times. */
export function setQuiet(quiet) {
  isQuiet = quiet;
  if (!quiet || !(video || isOpening)) return;
  // One that is only being opened is not to be used.
  if (isOpening) chosen++;
  stopCamera();
  say("frame-state", "The camera is off: it would disturb what is measured.");
}

/** Opens the camera. None if there is no picture, or something else was chosen before there was one. */
async function openCamera() {
  const own = ++chosen;
  const sayWhy = (words) => own === chosen && say("frame-state", words);
  const noPicture = ({ message }) => failed("There is no picture from the camera", message);
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  } catch (error) {
    const words = { NotAllowedError: "The camera was refused.", NotFoundError: "There is no camera." };
    return void sayWhy(words[error.name] ?? noPicture(error));
  }
  const opened = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
  // A browser that lets nothing play by itself calls its error as that of a camera that was refused.
  const plays = await opened.play().then(() => true, (error) => void sayWhy(noPicture(error)));
  if (plays && own === chosen) return opened;
  stream.getTracks().forEach((track) => track.stop());
}

/** Whether frames of a video go to the worker as they are: one may be on the GPU, and stay there. */
let takesFrames = "VideoFrame" in self;

/** Filters and draws a frame, if the camera is still on. Gives the milliseconds that took. */
async function drawFrame(own) {
  const frame = takesFrames ? new VideoFrame(own) : await createImageBitmap(own);
  if (video === own) return ask("frame", [frame, filter()], { transfer: [frame] });
  frame.close();
}

/** Draws a camera's frames until it is stopped. */
async function play(own) {
  const ended = new Promise((done) => own.srcObject.getVideoTracks()[0].addEventListener("ended", done));
  let [frames, since] = [0, performance.now()];
  while (video === own) {
    const next = new Promise(own.requestVideoFrameCallback ? (done) => own.requestVideoFrameCallback(done) : requestAnimationFrame);
    const event = await Promise.race([next, ended]);
    if (video !== own) return;
    if (event?.type === "ended") {
      stopCamera();
      return say("frame-state", "The camera is gone.");
    }
    try {
      const ms = await drawFrame(own);
      frames++;
      const seconds = (performance.now() - since) / 1e3;
      if (seconds > 1 && video === own) {
        // Not in what is spoken: each second would be too often.
        $("frame-rate").textContent = `${(frames / seconds).toFixed(1)} frames a second, each in ${figure(ms)} ms.`;
        [frames, since] = [0, performance.now()];
      }
    } catch (error) {
      if (video !== own) return;
      // Not every browser that has them copies them to a texture.
      if (takesFrames) {
        takesFrames = false;
        continue;
      }
      stopCamera();
      say("frame-state", failed("It failed", error.message));
    }
  }
}

$("camera").addEventListener("click", async () => {
  if (video) {
    stopCamera();
    return say("frame-state", "The camera is off.");
  }
  if (isQuiet) return say("frame-state", "The camera stays off until what is measured is there: it would disturb it.");
  // A second click must not ask for a second camera.
  $("camera").disabled = isOpening = true;
  const own = await openCamera();
  $("camera").disabled = isOpening = false;
  if (!own) return;
  video = own;
  $("camera").setAttribute("aria-pressed", "true");
  say("frame-state", "The camera plays.");
  await play(own);
});

let network;
/** The number of the weights that were chosen last. */
let weights = 0;

export async function openNetwork(file) {
  const own = ++weights;
  const sayLast = (words) => own === weights && say("classify-state", words);
  sayLast(`Reading ${file.name}…`);
  try {
    const bytes = await file.arrayBuffer();
    if (own !== weights) return;
    const name = $("classify").elements.name.value || undefined;
    const opened = await ask("network", [bytes, name], { transfer: [bytes] });
    if (own !== weights) return;
    network = opened;
    sayLast(picture ? `${network} is there.` : `${network} is there. Choose a picture above.`);
    await classify();
  } catch (error) {
    sayLast(failed(`${file.name} was not taken`, error.message));
  }
}

let classified = 0;
async function classify() {
  if (!network || !picture) return;
  const own = ++classified;
  const isLast = () => own === classified;
  try {
    const bitmap = await createImageBitmap(picture);
    if (!isLast()) return bitmap.close();
    const { classes, ms } = await ask("classify", [bitmap], { transfer: [bitmap] });
    if (!isLast()) return;
    $("classes").innerHTML = classes
      .map(({ index, probability }) => `<li>class ${index}: ${(100 * probability).toFixed(1)} %</li>`)
      .join("");
    say("classify-state", `${network} took ${figure(ms)} ms.`);
  } catch (error) {
    if (isLast()) say("classify-state", failed("It failed", error.message));
  }
}

$("classify").addEventListener("submit", (event) => event.preventDefault());
onFile($("classify").elements.weights, openNetwork);

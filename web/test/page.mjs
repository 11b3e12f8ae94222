// Tests the page by clicking through its four parts: light on a desktop, dark on a phone. Then what visitors meet when
// something is amiss.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { mobilenetV1, safetensors } from "./weights.js";

const CASES = ["pointwise 1x16x8x8 -> 32 relu6", "depthwise 1x8x9x9 k3 p1 nhwc"];
const VIEWS = {
  light: { viewport: { width: 1100, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 390, height: 844 }, colorScheme: "dark", deviceScaleFactor: 2, hasTouch: true },
};
const FORMS = ["standard", "separable, two dispatches", "separable, as planned"];
const PERMISSIONS = ["clipboard-read", "clipboard-write"];
/** The share of class 7 in percent where its logit is 10, and those of the 999 others are 0. */
const SHARE = "95\\.7";

/** Runs in the page: the pixels of the canvas as a number, 0 if all are the same, and one near its corner. */
const pixels = () => {
  const canvas = document.getElementById("canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const values = new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  const isFlat = values.every((value) => value === values[0]);
  const hash = isFlat ? 0 : values.reduce((hash, value) => (31 * hash + value) | 0, 7);
  return { hash, corner: [...copy.getImageData(2, 2, 1, 1).data] };
};

/** Has the page's worker end with these lines. */
const append = (lines) => (page) =>
  page.route("**/worker.js", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `${await response.text()}\n${lines}` });
  });

/** What a test does with a page that is called something in messages. */
function on(page, name, fail) {
  const wait = (seen, argument) => page.waitForFunction(seen, argument, { timeout: 300e3 });
  /** Waits for words of an element. */
  const says = async (id, words) => {
    const seen = ([id, words]) => new RegExp(words).test(document.getElementById(id).textContent);
    await wait(seen, [id, words]).catch(async () => {
      fail(`page, ${name}: #${id} says "${await page.textContent(`#${id}`)}", not ${words}`);
    });
  };
  return {
    says,
    /** Waits for a picture that is none of those seen before, and of more than one colour. */
    async shows(what, seen) {
      const end = performance.now() + 60e3;
      let shown;
      do shown = await page.evaluate(pixels);
      while ((!shown.hash || seen.has(shown.hash)) && performance.now() < end);
      if (!shown.hash || seen.has(shown.hash)) {
        fail(`page, ${name}: ${what} is ${shown.hash ? "a picture shown before" : "of one colour"}`);
      }
      seen.add(shown.hash);
      return shown;
    },
    /** Goes to an element by the keyboard alone. */
    async tabTo(selector) {
      const is = (selector) => document.activeElement.matches(selector);
      for (let presses = 0; presses < 60; presses++) {
        await page.keyboard.press("Tab");
        if (await page.evaluate(is, selector)) return;
      }
      fail(`page, ${name}: the keyboard does not reach ${selector}`);
    },
    async isFocused(selector) {
      const is = await page.evaluate((selector) => document.activeElement.matches(selector), selector);
      if (!is) fail(`page, ${name}: the focus is not on ${selector}`);
    },
    /** What the buttons copy, as text or as JSON. */
    async copied(form) {
      await page.evaluate(() => navigator.clipboard.writeText("nothing"));
      await page.click(`#copy-${form.toLowerCase()}`);
      await says("verify-state", `Copied as ${form}`);
      return page.evaluate(() => navigator.clipboard.readText());
    },
  };
}

export async function testPage({ open, fail, mode, screenshots }) {
  for (const [name, view] of Object.entries(VIEWS)) {
    const query = CASES.map((line) => `case=${encodeURIComponent(line)}`).join("&");
    // A browser may have VideoFrame and refuse it for a texture.
    const refuses = `const { frame } = calls;
      calls.frame = (picture, ...others) => {
        if (!(picture instanceof VideoFrame)) return frame(picture, ...others);
        picture.close();
        throw new TypeError("no VideoFrame");
      };`;
    const prepare = append(name === "dark" ? refuses : "");
    const { browser, page } = await open(`page/index.html?${query}`, { ...view, prepare, permissions: PERMISSIONS });
    const shot = async (part) => {
      if (screenshots) await page.screenshot({ path: join(screenshots, `${name}-${part}.png`), fullPage: true });
    };
    const { says, shows, ...its } = on(page, name, fail);
    const start = performance.now();
    await says("facts", "google swiftshader|SwiftShader");
    if (!(await page.isVisible("#software"))) fail(`page, ${name}: a software device is not called one`);
    await shot("gpu");

    for (const [field, value] of [["in", "16"], ["out", "32"], ["size", "32"]]) await page.fill(`#pair [name=${field}]`, value);
    await page.click("#pair button");
    await says("measure-state", "times as fast as the standard");
    const cells = (rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText));
    const rows = await page.$$eval("#measured tbody tr", cells);
    // The form, the least on the device, the warm-up and the median.
    const isRight = rows.map(([form, least, warmUp, median], index) =>
      form === FORMS[index] && [least, warmUp, median].every((time) => parseFloat(time) > 0) && /of \d+ runs/.test(median));
    if (`${isRight}` !== "true,true,true") fail(`page, ${name}: the table of times is ${JSON.stringify(rows)}`);
    await shot("pair");

    const begin = "#verify button:not([type=button])";
    if (name === "light") {
      await its.tabTo(begin);
      await page.keyboard.press("Enter");
    } else {
      await page.click(begin);
    }
    await says("verify-state", "All \\d+ checks passed");
    await its.isFocused(begin);
    const text = await page.inputValue("#verified textarea");
    if (!/checks on 2 cases, 0 failed/.test(text)) fail(`page, ${name}: the result is ${text}`);
    if (FORMS.some((form) => !text.includes(`${form}: `))) fail(`page, ${name}: the result has no times: ${text}`);
    const copied = await its.copied("text");
    if (copied !== text) fail(`page, ${name}: what is copied as text is ${copied}`);
    const json = await its.copied("JSON");
    const { cases, failures, browser: agent, times } = /^{/.test(json) ? JSON.parse(json) : {};
    const has = [cases, failures, /Chrome/.test(agent), Object.keys(times ?? {}).length];
    if (`${has}` !== "2,0,true,3") fail(`page, ${name}: what is copied as JSON is ${json}`);
    await shot("right");

    const seen = new Set();
    await page.click("#sample");
    await shows("the outlined picture", seen);
    await says("frame-state", "640x360 in");
    for (const filter of ["blur", "sharpen", "none"]) {
      await page.selectOption("#filter [name=filter]", filter);
      const { corner } = await shows(`the picture with the filter ${filter}`, seen);
      // The sky there is #2b5fa8.
      const far = Math.max(...[0x2b, 0x5f, 0xa8, 255].map((value, channel) => Math.abs(value - corner[channel])));
      if (far > 3) fail(`page, ${name}: the corner of the picture with the filter ${filter} is ${corner}`);
    }
    await page.setInputFiles("#filter [name=picture]", { name: "a.png", mimeType: "image/png", buffer: Buffer.from("no") });
    await says("frame-state", "a.png is no picture");
    await page.setInputFiles("#classify [name=weights]", { name: "a.safetensors", mimeType: "", buffer: Buffer.from("no") });
    await says("classify-state", "a.safetensors was not taken: not a safetensors file");
    if (name === "light") {
      await page.evaluate(async () => {
        const { mobilenetV1, safetensors } = await import("/test/weights.js");
        const bias = Float32Array.from({ length: 1000 }, (_, index) => (index === 7 ? 10 : 0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([safetensors(mobilenetV1(1, 1000, bias))], "b.safetensors"));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
      });
    } else {
      const bias = Float32Array.from({ length: 1000 }, (_, index) => (index === 7 ? 10 : 0));
      const buffer = Buffer.from(safetensors(mobilenetV1(1, 1000, bias)));
      await page.setInputFiles("#classify [name=weights]", { name: "b.safetensors", mimeType: "", buffer });
    }
    await says("classify-state", "mobilenet_v1 took");
    await says("classes", `^class 7: ${SHARE} %`);
    await page.click("#camera");
    await says("frame-rate", "frames a second");
    await shows("the camera's picture", seen);
    await page.click("#camera");
    await says("frame-state", "The camera is off");
    await shot("try");

    // Wider than the screen is only what scrolls by itself.
    for (const width of [view.viewport.width, 320]) {
      await page.setViewportSize({ ...view.viewport, width });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) fail(`page, ${name}: ${wide} pixels wider than a screen of ${width}`);
    }
    await page.setViewportSize(view.viewport);
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, input, select, textarea, canvas, svg, progress")]
        .filter((element) => !element.labels?.length && !element.ariaLabel && !element.textContent.trim())
        .map((element) => element.outerHTML.slice(0, 80)));
    if (nameless.length) fail(`page, ${name}: without a name: ${nameless}`);
    const unreached = await page.evaluate(() =>
      [...document.querySelectorAll(".table")]
        .filter((element) => element.tabIndex !== 0 || element.role !== "region" || !element.ariaLabel)
        .map((element) => element.textContent.slice(0, 80)));
    if (unreached.length) fail(`page, ${name}: the keyboard does not scroll ${unreached}`);

    if (mode === "all" || name === "light") {
      await page.click("#network button");
      await says("measure-state", "steps, .* ms in all");
      const chart = await page.textContent("#measured svg");
      if (!/GFLOP\/s.*operations for each byte moved/s.test(chart)) fail(`page, ${name}: the roofline is ${chart}`);
      await shot("network");
    }
    if (await page.isVisible("#trouble")) fail(`page, ${name}: ${await page.textContent("#trouble")}`);
    console.log(`ok: the page, ${name}, ${(performance.now() - start).toFixed()} ms`);
    await browser.close();
  }
  await testTrouble({ open, fail, screenshots });
}

/** What the page says where something is amiss, and that a check that ends early leaves its result. */
async function testTrouble({ open, fail, screenshots }) {
  const start = performance.now();
  {
    const hooks = append(`self.lose = () => gpu.device.destroy();
      self.complain = () => {
        gpu.device.createBuffer({ size: 4, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.MAP_WRITE });
        gpu.device.queue.submit([]);
      };`);
    const prepare = async (page) => {
      await hooks(page);
      await page.addInitScript(() => {
        navigator.mediaDevices.getUserMedia = async () => {
          throw new DOMException("Permission denied", "NotAllowedError");
        };
      });
    };
    const { browser, page } = await open("page/index.html", { prepare });
    const { says, ...its } = on(page, "in trouble", fail);
    const result = async (...expected) => {
      const text = await page.inputValue("#verified textarea").catch(() => "none");
      const missing = expected.filter((words) => !words.test(text));
      if (missing.length) fail(`page: the result of a check that ended early lacks ${missing}: ${text}`);
    };
    const begin = "#verify button:not([type=button])";
    await says("facts", "SwiftShader|swiftshader");
    await page.click("#camera");
    await says("frame-state", "^The camera was refused\\.$");

    await page.click(begin);
    await says("verify-place", "^[1-9]\\d* of \\d\\d+ cases, [1-9]\\d* checks, 0 failed\\. In work: \\S+ ");
    await page.click("#verify [name=stop]");
    await says("verify-state", "^Stopped\\.$");
    await result(/^gpuconv \S+ on \S.*Chrome/, /[1-9]\d* checks on [1-9]\d* of \d\d+ cases, 0 failed, /,
      /^ended early: stopped by the visitor$/m, /^in work: \S+ \d+x/m);
    await its.isFocused(begin);
    if (await page.isVisible("#trouble")) fail(`page, stopped: ${await page.textContent("#trouble")}`);

    const [worker] = page.workers();
    await page.click(begin);
    await says("verify-place", "^[1-9]\\d* of");
    await worker.evaluate(() => self.complain());
    await says("trouble", "^The device reports an error[^]*MapWrite");
    await worker.evaluate(() => self.lose());
    await says("trouble", "^The device is lost");
    await says("verify-state", "^It failed: the device is lost");
    await result(/^ended early: the device is lost/m, /^in work: \S+ \d+x/m);
    await browser.close();
  }

  await testMeasuring({ open, fail });

  // Where there is no WebGPU the page says so, and where nothing was built.
  const without = (page) => page.addInitScript(() => Object.defineProperty(navigator, "gpu", { value: undefined }));
  const unbuilt = (page) => page.route(/\/(gpuconv|charts)\//, (route) => route.fulfill({ status: 404 }));
  for (const [prepare, words] of [[without, "no WebGPU"], [unbuilt, "run web/build"]]) {
    const { browser, page } = await open("page/index.html", { prepare, expected: /404/ });
    await on(page, "without a device", fail).says("trouble", words);
    if (!(await page.isVisible("#trouble"))) fail(`page: what is said of ${words} is not shown`);
    if (screenshots && prepare === without) {
      await writeFile(join(screenshots, "none.txt"), await page.textContent("#trouble"));
    }
    await browser.close();
  }
  console.log(`ok: the page in trouble, ${(performance.now() - start).toFixed()} ms`);
}

/** What measuring leaves: when it is stopped, when the page is hidden, when there is no chart. And what a file's page says. */
async function testMeasuring({ open, fail }) {
  let loads = 0;
  const hooks = append(`for (const name of ["probe", "measure"]) {
    const [call, kept] = [calls[name], {}];
    calls[name] = (...args) => (kept[JSON.stringify(args[0])] ??= call(...args));
  }`);
  const prepare = async (page) => {
    await hooks(page);
    await page.route(/charts\.js/, (route) => (loads++ ? route.continue() : route.fulfill({ status: 404 })));
  };
  const query = new URLSearchParams({ case: "pointwise 1x16 -> 8" });
  const { browser, page } = await open(`page/index.html?${query}`, { prepare, expected: /404/ });
  const { says, ...its } = on(page, "measuring", fail);
  const rows = () => page.$$eval("#measured tbody tr", (rows) => rows.length);
  await says("facts", "SwiftShader|swiftshader");
  await page.click("#camera");
  await says("frame-state", "^The camera plays\\.$");

  await page.evaluate(() => Object.defineProperty(document, "hidden", { value: true, configurable: true }));
  for (const [field, value] of [["in", "1e1"], ["out", "16"], ["size", "16"]]) await page.fill(`#pair [name=${field}]`, value);
  await page.click("#pair button");
  await says("measure-state", "separable, two dispatches");
  await says("frame-state", "^The camera is off: it would disturb");
  await page.click("#pair [name=stop]");
  await says("measure-state", "^Stopped\\.$");
  await says("measured", "1x10x16x16 -> 16[^]*The page was hidden meanwhile");
  if ((await rows()) !== 1) fail(`page: a comparison that was stopped leaves ${await rows()} rows`);
  await its.isFocused("#pair button:not([type=button])");
  await page.evaluate(() => delete document.hidden);

  // What a line's parser says points at it, on lines of its own.
  await page.click("#verify button");
  await says("verify-state", "^It failed:\n[^]*\n *\\^");
  const space = await page.$eval("#verify-state", (element) => getComputedStyle(element).whiteSpace);
  if (space !== "pre-wrap") fail(`page: the lines of a message have white-space: ${space}`);
  const text = await page.inputValue("#verified textarea");
  if (!/^standard: conv 1x10x.*; the page was hidden meanwhile$/m.test(text)) fail(`page: of hidden times it says ${text}`);
  const sentences = await page.evaluate(async () => {
    const { failed } = await import("/page/words.js");
    return [failed("a", "b"), failed("a", "b."), failed("a", "b\nc\n")];
  });
  if (`${sentences}` !== "a: b.,a: b.,a:\nb\nc") fail(`page: failures are told as ${JSON.stringify(sentences)}`);

  for (const words of ["The chart cannot be drawn: ", "GFLOP/s.*operations for each byte moved"]) {
    await page.click("#network button");
    await says("measure-state", "steps, .* ms in all");
    await says("measured", words);
    if (!(await rows())) fail(`page: no times with ${words}`);
  }
  if (loads !== 2) fail(`page: the charts were loaded ${loads} times`);

  await page.selectOption("#network [name=dtype]", "f16");
  await page.click("#network button");
  await page.click("#network [name=stop]");
  await says("measure-state", "^Stopped\\.$");
  if (!(await rows())) fail("page: what was measured before is gone with what was stopped");
  if (await page.isVisible("#trouble")) fail(`page, measuring: ${await page.textContent("#trouble")}`);

  // Browsers load no modules from files.
  const file = await browser.newPage();
  await file.goto(`${new URL("../page/index.html", import.meta.url)}`);
  await on(file, "from a file", fail).says("trouble", "only from a server");
  await browser.close();
}

// Tests the page by clicking through its four parts: light on a desktop, dark on a phone.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

const CASES = ["pointwise 1x16x8x8 -> 32 relu6", "depthwise 1x8x9x9 k3 p1 nhwc"];
const VIEWS = {
  light: { viewport: { width: 1100, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 390, height: 844 }, colorScheme: "dark", deviceScaleFactor: 2, hasTouch: true },
};

export async function testPage({ open, fail, mode, screenshots }) {
  for (const [name, view] of Object.entries(VIEWS)) {
    const query = CASES.map((line) => `case=${encodeURIComponent(line)}`).join("&");
    const { browser, page } = await open(`page/index.html?${query}`, view);
    const shot = async (part) => {
      if (screenshots) await page.screenshot({ path: join(screenshots, `${name}-${part}.png`), fullPage: true });
    };
    /** Waits for words of an element. */
    const says = async (id, words) => {
      const seen = ([id, words]) => new RegExp(words).test(document.getElementById(id).textContent);
      await page.waitForFunction(seen, [id, words], { timeout: 300e3 }).catch(async () => {
        fail(`page, ${name}: #${id} says "${await page.textContent(`#${id}`)}", not ${words}`);
      });
    };
    const start = performance.now();
    await says("facts", "google swiftshader|SwiftShader");
    if (!(await page.isVisible("#software"))) fail(`page, ${name}: a software device is not called one`);
    await shot("gpu");

    for (const [field, value] of [["in", "16"], ["out", "32"], ["size", "32"]]) await page.fill(`#pair [name=${field}]`, value);
    await page.click("#pair button");
    await says("measure-state", "times as fast as the standard");
    await shot("pair");

    await page.click("#verify button:not([type=button])");
    await says("verify-state", "All \\d+ checks passed");
    const text = await page.inputValue("#verified textarea");
    if (!/checks on 2 cases, 0 failed/.test(text)) fail(`page, ${name}: the result is ${text}`);
    await shot("right");

    await page.click("#sample");
    await says("frame-state", "640x360 in");
    await page.selectOption("#filter [name=filter]", "blur");
    await says("frame-state", "640x360 in");
    await page.setInputFiles("#filter [name=picture]", { name: "a.png", mimeType: "image/png", buffer: Buffer.from("no") });
    await says("frame-state", "a.png is no picture");
    await page.setInputFiles("#classify [name=weights]", { name: "a.safetensors", mimeType: "", buffer: Buffer.from("no") });
    await says("classify-state", "a.safetensors was not taken: not a safetensors file");
    await page.click("#camera");
    await says("frame-rate", "frames a second");
    await page.click("#camera");
    await shot("try");

    // Wider than the screen is only what scrolls by itself.
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (wide > 0) fail(`page, ${name}: ${wide} pixels wider than the screen`);
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, input, select, textarea, canvas, svg, progress")]
        .filter((element) => !element.labels?.length && !element.ariaLabel && !element.textContent.trim())
        .map((element) => element.outerHTML.slice(0, 80)));
    if (nameless.length) fail(`page, ${name}: without a name: ${nameless}`);

    if (mode === "all" || name === "light") {
      await page.click("#network button");
      await says("measure-state", "steps, .* ms in all");
      const chart = await page.textContent("#measured svg");
      if (!/GFLOP\/s.*operations for each byte moved/s.test(chart)) fail(`page, ${name}: the roofline is ${chart}`);
      await shot("network");
    }
    console.log(`ok: the page, ${name}, ${(performance.now() - start).toFixed()} ms`);
    await browser.close();
  }

  // Where there is no WebGPU the page says so.
  const { browser, page } = await open("page/index.html", { without: true });
  await page.waitForFunction(() => !document.getElementById("trouble").hidden);
  const words = await page.textContent("#trouble");
  if (!/no WebGPU/.test(words)) fail(`page without WebGPU: ${words}`);
  if (screenshots) await writeFile(join(screenshots, "none.txt"), words);
  await browser.close();
}

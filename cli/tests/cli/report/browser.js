// Finds out what a reader sees: whether the page fits, and which texts overlap or are cut.
const found = { scrolls: document.documentElement.scrollWidth - window.innerWidth, charts: [] };
found.background = getComputedStyle(document.body).backgroundColor;
found.color = getComputedStyle(document.body).color;
for (const svg of document.querySelectorAll("svg")) {
  const frame = svg.getBoundingClientRect();
  if (frame.width === 0) continue;
  const texts = [...svg.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
  const chart = { texts: texts.length, width: frame.width, least: 1e9, overlaps: [], cut: [], colors: [] };
  texts.forEach(([text, box], index) => {
    const name = text.textContent;
    // The font size on the screen, after the chart was scaled to the page.
    const scale = frame.width / svg.viewBox.baseVal.width;
    chart.least = Math.min(chart.least, parseFloat(getComputedStyle(text).fontSize) * scale);
    const fill = getComputedStyle(text).fill;
    if (!chart.colors.includes(fill)) chart.colors.push(fill);
    const out = box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
    if (out || box.top < frame.top - 1) chart.cut.push(name);
    for (const [other, b] of texts.slice(0, index)) {
      const wide = Math.min(box.right, b.right) - Math.max(box.left, b.left);
      const high = Math.min(box.bottom, b.bottom) - Math.max(box.top, b.top);
      if (wide > 1 && high > 2) chart.overlaps.push(name + " / " + other.textContent);
    }
  });
  found.charts.push(chart);
}
document.body.setAttribute("data-found", JSON.stringify(found));

// Words, numbers and tables as text.

/** What failed and why, as a sentence. A message of several lines stands on lines of its own. */
export function failed(what, message) {
  const why = message.trim();
  if (why.includes("\n")) return `${what}:\n${why}`;
  return `${what}: ${why}${/[.!?…]$/.test(why) ? "" : "."}`;
}

/** Shows words in an element of this id, several lines as they are: carets point at what is above them. */
export function say(id, words) {
  const element = document.getElementById(id);
  element.textContent = words;
  element.classList.toggle("lines", words.includes("\n"));
}

export const escaped = (text) => text.replace(/[&<>"]/g, (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[char]);

export function table(caption, header, rows) {
  const heads = header.map((cell) => `<th scope="col">${escaped(cell)}</th>`).join("");
  const cell = (words, index) => (index ? `<td>${words}</td>` : `<th scope="row">${words}</th>`);
  const cells = (row) => row.map((value, index) => cell(escaped(String(value)), index)).join("");
  const name = escaped(caption);
  // What scrolls must be reached by the keyboard, and have a name.
  return `<div class="table" tabindex="0" role="region" aria-label="${name}"><table><caption>${name}</caption>
    <thead><tr>${heads}</tr></thead>
    <tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join("")}</tbody></table></div>`;
}

export const figure = (number) => (number >= 100 ? number.toFixed(0) : number.toPrecision(3));

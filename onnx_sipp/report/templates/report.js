"use strict";
const number = (cell) => (cell.dataset.v === undefined || cell.dataset.v === "" ? NaN : Number(cell.dataset.v));

// Numbers by their value, what has none last, other cells by their text.
function compare(one, other, sign) {
  if (one.dataset.v === undefined) {
    return sign * one.textContent.localeCompare(other.textContent, undefined, { numeric: true });
  }
  const [a, b] = [number(one), number(other)];
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return a === b ? 0 : sign * (a < b ? -1 : 1);
}

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => compare(one.cells[column], other.cells[column], down ? -1 : 1));
  table.tBodies[0].append(...rows);
}

function filter(table, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  return shown;
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) =>
    head.querySelector("button").addEventListener("click", () => sort(table, column)));
}
for (const field of document.querySelectorAll("input[data-table]")) {
  const table = document.getElementById(field.dataset.table);
  const count = document.getElementById(field.dataset.table + "-count");
  field.hidden = false;
  field.addEventListener("input", () => {
    count.textContent = filter(table, field.value) + " of " + table.tBodies[0].rows.length;
  });
}
addEventListener("beforeprint", () =>
  document.querySelectorAll("details").forEach((part) => { part.open = true; }));

"use strict";
(() => {
  const compare = {
    number: (a, b) => Number(a) - Number(b),
    text: (a, b) => a.localeCompare(b, "en", { numeric: true, sensitivity: "base" }),
  };
  const key = (cell) => ("value" in cell.dataset ? cell.dataset.value : cell.textContent.trim());

  // Cells without a value stay at the end, whichever way the others are sorted.
  const sort = (table, header) => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    const column = header.cellIndex;
    const rows = Array.from(table.tBodies[0].rows, (row) => [key(row.cells[column]), row]);
    const order = compare[header.dataset.sort];
    const present = rows.filter(([value]) => value !== "");
    present.sort(([a], [b]) => (ascending ? order(a, b) : order(b, a)));
    const absent = rows.filter(([value]) => value === "");
    table.tBodies[0].append(...[...present, ...absent].map(([, row]) => row));
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };

  // Buttons are made here, so that a page without scripts has none that do nothing.
  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length < 2) continue;
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      button.title = "Sort by this column";
      header.replaceChildren(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, header));
    }
  }

  if (matchMedia("(max-width: 68rem)").matches) document.querySelector(".contents details").open = false;

  // What a link leads to may be folded away.
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
})();

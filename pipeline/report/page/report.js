// The table of cases: sorted by any column, filtered by name, class and fault. Without this it is a plain table.
"use strict";
(() => {
  const outlines = document.getElementById("outlines");
  if (outlines) {
    outlines.closest("form").hidden = false;
    outlines.addEventListener("change", () => document.body.classList.toggle("plain", !outlines.checked));
  }
  const table = document.getElementById("all-cases");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const byName = document.getElementById("by-name");
  const byClass = document.getElementById("by-class");
  const byFault = document.getElementById("by-fault");
  const counted = document.getElementById("counted");

  function sort(column) {
    const ascending = heads[column].getAttribute("aria-sort") !== "ascending";
    const numbers = heads[column].querySelector("button").dataset.kind === "number";
    const value = (row) => row.cells[column].dataset.v;
    rows.sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      // What has no value stays below, whichever way the others go.
      if (left === "" || right === "") return (left === "") - (right === "");
      const order = numbers ? left - right : left.localeCompare(right, undefined, { numeric: true });
      return ascending ? order : -order;
    });
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...rows);
  }

  function filter() {
    const name = byName.value.trim().toLowerCase();
    for (const row of rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(name)
        || (byClass && byClass.value !== "" && row.cells[1].textContent !== byClass.value)
        || (byFault.checked && !["missed", "false_alarm"].includes(row.dataset.status));
    }
    counted.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  }

  // A point of a chart, or a heading, leads to the rows of its case, hidden or not.
  function find() {
    const place = location.hash.slice(1);
    const found = rows.filter((row) => row.dataset.case === place);
    rows.forEach((row) => row.classList.toggle("found", found.includes(row)));
    if (!found.length) return;
    if (found.some((row) => row.hidden)) {
      byName.value = "";
      byFault.checked = false;
      if (byClass) byClass.value = "";
      filter();
    }
    found[0].scrollIntoView({ block: "center" });
  }

  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));
  document.getElementById("filters").hidden = false;
  document.getElementById("filters").addEventListener("input", filter);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", find);
  filter();
  find();
})();

// The tables of claims, sorted by any column: one press of a heading sorts upwards, the next downwards, the third brings back the
// order of the book. Sorted, the claims of all parts stand in one table.
(function () {
  const RANK = ["smoke", "laptop", "hours", "gpu"];
  const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const ORDERS = ["none", "ascending", "descending"];
  const STATE = { none: "in the order of the book", ascending: "ascending", descending: "descending" };

  function number(text) {  // "−1.5 × 10⁻⁵ nats" is -0.000015; no number is after all numbers
    const found = text.replace(/−/g, "-").replace(/,/g, "").match(/-?\d+(\.\d+)?(\s*×\s*10(⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+))?/);
    if (!found) return Infinity;
    const power = found[3] ? Number([...found[3]].map((c) => (c === "⁻" ? "-" : SUPERSCRIPT.indexOf(c))).join("")) : 0;
    return parseFloat(found[0]) * 10 ** power;
  }

  function key(row, column) {
    const cell = row.cells[column];
    const value = cell.querySelector(".value");
    if (value) return number(value.textContent);
    const text = (cell.querySelector(".verdict") || cell).textContent.replace(/^[^\p{L}]+/u, "").trim().toLowerCase();
    const rank = RANK.indexOf(text);
    return rank < 0 ? text : rank;
  }

  function compare(a, b) {
    return typeof a === "string" ? a.localeCompare(b) : a === b ? 0 : a < b ? -1 : 1;
  }

  function start() {
    const groups = [];  // a live table stands apart from the committed ones
    document.querySelectorAll("table.claims").forEach((table) => {
      const section = table.closest("section");
      const group = groups.find((one) => one.section === section) || groups[groups.push({ section, tables: [] }) - 1];
      group.tables.push({ table, rows: [...table.tBodies[0].rows], title: title(table) });
    });
    groups.forEach(sortable);
  }

  function title(table) {
    const before = (table.closest(".pst-scrollable-table-container") || table).previousElementSibling;
    return before && before.matches(".claims-part") ? before : null;
  }

  function sortable({ tables }) {
    const said = document.createElement("p");
    said.className = "claims-said";
    said.setAttribute("role", "status");
    const [first, ...others] = tables;
    const box = first.table.closest(".pst-scrollable-table-container") || first.table;
    (first.title || box).before(said);
    const state = { column: -1, order: "none" };

    function show() {
      const sorted = state.order !== "none";
      if (sorted) {
        const sign = state.order === "ascending" ? 1 : -1;
        const last = (value) => value === Infinity;
        const rows = tables.flatMap((one) => one.rows).map((row) => ({ row, value: key(row, state.column) }));
        rows.sort((a, b) => (last(a.value) !== last(b.value) ? last(a.value) - last(b.value) : sign * compare(a.value, b.value)));
        first.table.tBodies[0].append(...rows.map((one) => one.row));
      } else {
        tables.forEach((one) => one.table.tBodies[0].append(...one.rows));
      }
      tables.forEach(({ table, title }) => {
        if (title) title.hidden = sorted;
        [...table.tHead.rows[0].cells].forEach((cell, i) => cell.setAttribute("aria-sort", i === state.column ? state.order : "none"));
      });
      others.forEach(({ table }) => { (table.closest(".pst-scrollable-table-container") || table).hidden = sorted; });
      const name = state.column < 0 ? "" : first.table.tHead.rows[0].cells[state.column].textContent.trim();
      said.textContent = sorted ? `All parts, by ${name}, ${STATE[state.order]}` : state.column < 0 ? "" : `All parts, ${STATE.none}`;
    }

    tables.forEach(({ table }) => [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      button.append(...(cell.querySelector("p") || cell).childNodes);
      cell.replaceChildren(button);
      cell.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const order = state.column === column ? ORDERS[(ORDERS.indexOf(state.order) + 1) % 3] : "ascending";
        Object.assign(state, { column, order });
        show();
        if (order !== "none" && table !== first.table) first.table.tHead.rows[0].cells[column].firstChild.focus();
      });
    }));
    tables.forEach(({ table }) => table.classList.add(table === first.table ? "sortable" : "sorted-with-first"));
  }

  document.addEventListener("DOMContentLoaded", start);
})();

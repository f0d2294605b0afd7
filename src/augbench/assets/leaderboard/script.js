"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    if (name) element.className = name;
    return element;
  };

  // Theme: follows the system until the reader chooses.
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  system.addEventListener("change", nameTheme);
  theme.hidden = false;
  nameTheme();

  // Sorting: numbers start descending, text ascending; a third click restores the order of the grid.
  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).sort((a, b) => a.dataset.order - b.dataset.order);
    const value = (row) => row.cells[column].dataset.v;
    const isNumber = table.tHead.rows[0].cells[column].classList.contains("number") || column === 1;
    const compare = (a, b) => (isNumber ? Number(a) - Number(b) : a.localeCompare(b, "en"));
    if (direction !== "none") {
      const sign = direction === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const [left, right] = [value(a), value(b)];
        if (left === undefined || right === undefined) return (left === undefined) - (right === undefined);
        return sign * compare(left, right);
      });
    }
    body.append(...rows);
    table.classList.toggle("sorted", direction !== "none");
    Array.from(table.tHead.rows[0].cells).forEach((cell, i) => {
      cell.setAttribute("aria-sort", i === column ? direction : "none");
    });
  };
  for (const table of all("table.board")) {
    Array.from(table.tBodies[0].rows).forEach((row, i) => { row.dataset.order = i; });
    Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
      cell.firstElementChild.addEventListener("click", () => {
        const order = cell.classList.contains("number") ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
        const next = order[(order.indexOf(cell.getAttribute("aria-sort")) + 1) % 3];
        sort(table, column, next);
      });
    });
  }

  // Filters.
  const filters = document.getElementById("filters");
  const apply = () => {
    const wanted = all("select", filters).filter((one) => one.value);
    const names = new Set(all("input:checked", filters).map((one) => one.value));
    let rows = 0;
    for (const section of all("section.setting")) {
      const fits = wanted.every((one) => section.dataset[one.dataset.filter] === one.value);
      let left = 0;
      for (const row of all("table.board tbody tr", section)) {
        row.hidden = !names.has(row.dataset.augmenter);
        left += !row.hidden;
      }
      section.hidden = !fits || !left;
      rows += section.hidden ? 0 : left;
    }
    for (const part of all("[data-of]")) part.hidden = !names.has(part.dataset.of);
    for (const row of all("table.overview tbody tr")) row.hidden = !names.has(row.dataset.augmenter);
    for (const cell of all("table.overview [data-table]")) {
      cell.hidden = document.getElementById(cell.dataset.table).hidden;
    }
    document.getElementById("shown").textContent = `${rows} of ${all("table.board tbody tr").length} rows`;
    document.getElementById("nothing").hidden = rows > 0;
  };
  filters.addEventListener("input", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(apply));
  filters.hidden = false;
  apply();

  // The records behind a number.
  const panel = document.getElementById("sources");
  let opener = null;
  const close = () => {
    panel.hidden = true;
    if (opener) { opener.setAttribute("aria-expanded", "false"); opener.focus(); }
    opener = null;
  };
  const number = (value) => {
    const text = Math.abs(value).toFixed(4).replace(/^0/, "");
    return value < 0 ? `\u2212${text}` : text;
  };
  const keyOf = (url) => decodeURIComponent(url.replace(/^records\//, "").replace(/\.json$/, ""));
  const runsOf = (row, metric, prefix) => data.rows[row].runs.map((index) => {
    const run = data.runs[index];
    const value = run.values[metric];
    return { name: prefix + run.label, note: keyOf(run.file), value: value === undefined ? "" : metric === "training" ? `${value.toFixed(1)} s` : number(value), url: run.file };
  });
  const compared = new Set(["interval", "gain", "gain_interval", "verdict"]);
  const entries = (id, column) => {
    const row = data.rows[id];
    if (row.files[column]) return row.files[column].map(([name, value, url]) => ({ name, note: "", value, url }));
    if (!compared.has(column)) return runsOf(id, column, "");
    const base = row.partner && column !== "interval" ? runsOf(row.partner, row.headline, `${data.rows[row.partner].augmenter}: `) : [];
    return [...runsOf(id, row.headline, base.length ? `${row.augmenter}: ` : ""), ...base];
  };
  const open = (button) => {
    const row = button.closest("tr");
    const list = panel.querySelector("ul");
    list.replaceChildren();
    const augmenter = data.rows[row.id].augmenter;
    document.getElementById("sources-title").textContent = `${augmenter}, ${data.titles[button.dataset.k]}: ${button.textContent}`;
    for (const entry of entries(row.id, button.dataset.k)) {
      const item = make("li");
      const link = make("a", entry.name);
      link.href = entry.url;
      const source = make("div");
      source.append(link);
      if (entry.note) source.append(make("small", entry.note));
      item.append(source, make("span", entry.value, "amount"));
      list.append(item);
    }
    panel.hidden = false;
    const box = button.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - panel.offsetWidth - 12);
    const below = box.bottom + 6 + panel.offsetHeight < document.documentElement.clientHeight;
    const top = below ? box.bottom + 6 : Math.max(box.top - panel.offsetHeight - 6, 6);
    panel.style.left = `${Math.max(left, 12) + scrollX}px`;
    panel.style.top = `${top + scrollY}px`;
    opener = button;
    button.setAttribute("aria-expanded", "true");
    panel.focus({ preventScroll: true });
  };
  for (const button of all("button.n")) {
    button.setAttribute("aria-haspopup", "dialog");
    button.setAttribute("aria-expanded", "false");
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.n");
    if (button) {
      const same = button === opener;
      close();
      if (!same) open(button);
    } else if (!panel.hidden && !panel.contains(event.target)) {
      close();
    }
  });
  document.getElementById("sources-close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !panel.hidden) close(); });
})();

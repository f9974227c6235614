(() => {
  "use strict";
  const LIMIT = 40;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const bar = document.querySelector(".bar");
  const filter = bar.querySelector("input[type=search]");
  const together = bar.querySelector("[data-together]");
  const gains = bar.querySelector("[data-gains]");
  const status = bar.querySelector("[role=status]");
  const rules = new CSSStyleSheet();
  document.adoptedStyleSheets = [rules];

  const tables = all("table[id]").map((node) => {
    const heads = all("thead th", node);
    const rows = all("tbody tr", node);
    rows.forEach((row, k) => { row.text = row.querySelector("th").textContent.toLowerCase(); row.place = k; });
    // columns that some row has a difference to its base in
    const against = new Set(all("tbody td > b", node).map((b) => b.parentNode.cellIndex));
    return { node, heads, rows, against, body: node.tBodies[0], keys: heads.map((h) => h.dataset.k), open: false,
      more: null };
  });
  const byId = new Map(tables.map((t) => [t.node.id, t]));
  const keys = new Map();
  for (const t of tables) for (const h of t.heads) if (h.dataset.k !== "model") keys.set(h.dataset.k, h.dataset.l);
  const fresh = () => ({ at: "", q: "", sort: new Map(), hide: new Set(), together: true, gains: false });
  let state = fresh();

  function read(hash) {
    const text = hash.replace(/^#/, "");
    if (text && !text.includes("=")) { state.at = text; return; }
    const given = new URLSearchParams(text);
    state = fresh();
    state.at = given.get("at") ?? "";
    state.q = given.get("q") ?? "";
    state.together = given.get("together") !== "0";
    state.gains = given.get("by") === "base";
    for (const item of given.getAll("sort")) {
      const [id, key, way] = item.split(":");
      if (byId.get(id)?.keys.includes(key) && (way === "up" || way === "down")) state.sort.set(id, [key, way]);
    }
    for (const key of (given.get("hide") ?? "").split(",")) if (keys.has(key)) state.hide.add(key);
  }

  function write() {
    const out = new URLSearchParams();
    if (state.at) out.set("at", state.at);
    if (state.q) out.set("q", state.q);
    for (const [id, [key, way]] of state.sort) out.append("sort", `${id}:${key}:${way}`);
    if (state.hide.size) out.set("hide", [...state.hide].join(","));
    if (!state.together) out.set("together", "0");
    if (state.gains) out.set("by", "base");
    const text = out.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  }

  // The first text of a cell is its value; a rank "1-3" orders by both its ends.
  function value(row, column) {
    const cell = row.cells[column];
    const text = (cell.firstChild?.nodeValue ?? cell.textContent).trim();
    const numbers = text.match(/^(<?)([\d.]+(?:e-?\d+)?)(?:-(\d+))?$/);
    if (numbers) return Number(numbers[2]) - (numbers[1] ? 1e-9 : 0) + (numbers[3] ? Number(numbers[3]) / 1e6 : 0);
    return text === "-" || text === "" ? null : cell.textContent.trim().toLowerCase();
  }

  // Minus the base's value; null for a row that has no base.
  function gain(row, column) {
    const found = (row.cells[column].querySelector("b")?.firstChild.nodeValue ?? "").match(/^Δ ([+\u2212]?)([\d.]+)/);
    return found && (found[1] === "\u2212" ? -1 : 1) * Number(found[2]);
  }

  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === typeof b) return sign * (a < b ? -1 : a > b ? 1 : 0);
    return typeof a === "number" ? -1 : 1;
  }

  function order(table) {
    const chosen = state.sort.get(table.node.id);
    for (const head of table.heads) {
      const on = chosen && head.dataset.k === chosen[0];
      head.setAttribute("aria-sort", !on ? "none" : chosen[1] === "up" ? "ascending" : "descending");
    }
    let rows = [...table.rows];
    if (chosen) {
      const column = table.keys.indexOf(chosen[0]);
      const sign = chosen[1] === "up" ? 1 : -1;
      const read = state.gains && table.against.has(column) ? gain : value;
      const blocks = new Map();
      for (const row of rows) {
        const name = state.together && row.dataset.f ? "f" + row.dataset.f : "r" + row.place;
        if (!blocks.has(name)) blocks.set(name, { rows: [], key: null });
        const block = blocks.get(name);
        const key = read(row, column);
        if (!block.rows.length || compare(key, block.key, sign) < 0) block.key = key;
        block.rows.push(row);
      }
      rows = [...blocks.values()].sort((a, b) => compare(a.key, b.key, sign) || a.rows[0].place - b.rows[0].place)
        .flatMap((block) => block.rows);
    }
    const before = all(":scope > tr", table.body);
    if (rows.some((row, k) => row !== before[k])) table.body.append(...rows);
    table.shown = rows;
  }

  function sift(table) {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const row of table.shown) {
      const fits = words.every((word) => row.text.includes(word));
      row.hidden = !fits;
      row.classList.toggle("over", fits && found >= LIMIT && !table.open);
      found += fits;
    }
    table.more.hidden = found <= LIMIT;
    table.more.textContent = table.open ? `Show the first ${LIMIT} rows` : `Show all ${found} rows`;
    table.more.setAttribute("aria-expanded", String(table.open));
    table.node.closest("[data-part]").hidden = words.length > 0 && found === 0;
    return found;
  }

  function columns() {
    const text = [];
    for (const t of tables) {
      t.keys.forEach((key, k) => {
        if (state.hide.has(key)) text.push(`#${CSS.escape(t.node.id)} tr > :nth-child(${k + 1}) { display: none }`);
      });
    }
    rules.replaceSync(text.join("\n"));
    for (const box of all(".menu input")) box.checked = !state.hide.has(box.value);
  }

  function apply() {
    filter.value = state.q;
    together.checked = state.together;
    gains.checked = state.gains;
    tables.forEach(order);
    const found = tables.map(sift).reduce((a, b) => a + b, 0);
    const total = tables.reduce((a, t) => a + t.rows.length, 0);
    status.textContent = state.q ? `${found} of ${total} rows` : "";
    for (const section of all("section")) {
      const parts = all("[data-part]", section);
      section.hidden = parts.length > 0 && parts.every((part) => part.hidden);
    }
    columns();
  }

  function change(at) {
    if (at) state.at = at;
    apply();
    write();
  }

  function go() {
    const target = state.at && document.getElementById(state.at);
    if (target) (target.closest("[data-part]") ?? target).scrollIntoView();
  }

  for (const t of tables) {
    for (const head of t.heads) {
      const button = document.createElement("button");
      button.append(head.firstChild);
      head.prepend(button);
      button.addEventListener("click", () => {
        const [key, way] = state.sort.get(t.node.id) ?? [];
        const first = "up" in head.dataset ? "down" : "up";
        const second = first === "up" ? "down" : "up";
        if (key !== head.dataset.k) state.sort.set(t.node.id, [head.dataset.k, first]);
        else if (way === first) state.sort.set(t.node.id, [key, second]);
        else state.sort.delete(t.node.id);
        change(t.node.id);
      });
    }
    t.more = document.createElement("button");
    t.more.className = "more";
    t.more.addEventListener("click", () => { t.open = !t.open; sift(t); });
    t.node.closest(".scroll").after(t.more);
  }
  const list = bar.querySelector(".menu > div");
  for (const [key, label] of keys) {
    const line = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.value = key;
    line.append(box, " " + label);
    list.append(line);
    box.addEventListener("change", () => { box.checked ? state.hide.delete(key) : state.hide.add(key); change(); });
  }
  filter.addEventListener("input", () => { state.q = filter.value.trim(); change(); });
  gains.addEventListener("change", () => { state.gains = gains.checked; change(); });
  together.addEventListener("change", () => { state.together = together.checked; change(); });

  const themes = ["system", "light", "dark"];
  const theme = bar.querySelector("[data-theme-button]");
  function paint(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.textContent = `Colours: ${name}`;
  }
  let stored = "system";
  // a page opened from a file may have no storage
  try { stored = localStorage.getItem("reasonx-theme") ?? stored; } catch { stored = "system"; }
  let now = themes.includes(stored) ? stored : "system";
  paint(now);
  theme.addEventListener("click", () => {
    now = themes[(themes.indexOf(now) + 1) % themes.length];
    paint(now);
    try { localStorage.setItem("reasonx-theme", now); } catch { /* the choice lasts as long as the page */ }
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement && event.target.type === "search";
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      filter.focus();
    } else if (event.key === "Escape") {
      const menu = bar.querySelector(".menu[open]");
      if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
      else if (typing && state.q) { state.q = ""; change(); }
    }
  });
  document.addEventListener("click", (event) => {
    const menu = bar.querySelector(".menu[open]");
    if (menu && !menu.contains(event.target)) menu.open = false;
  });
  window.addEventListener("beforeprint", () => all("details:not(.menu)").forEach((d) => { d.open = true; }));
  window.addEventListener("hashchange", () => { read(location.hash); apply(); write(); go(); });

  gains.parentNode.hidden = tables.every((t) => !t.against.size);
  bar.hidden = false;
  read(location.hash);
  apply();
  go();
})();

"use strict";
// Draws the report's charts from the data in the page: SVG, redrawn when a chart's width changes.
// Colours are CSS variables, so a change of the colour scheme needs no redrawing.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SERIES = 8;      // more lines than this can't be told apart by hue: they are coloured by sparsity
const NARROW = 620;    // below this width labels go above their rows, and axes lie on their side
const DASHES = ["", "7 4", "2 3"];
const tip = document.getElementById("tip");
let stay = null;       // puts the tip of a mark that was reached by keys back to its place

// ---------------------------------------------------------------- small helpers

function node(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function html(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

const known = (value) => value !== null && value !== undefined;
const extent = (values) => [Math.min(...values), Math.max(...values)];
const ramp = (share, least = 0) =>
  `color-mix(in oklab, var(--high) ${Math.round(100 * (least + (1 - least) * share))}%, var(--low))`;

function number(value) {
  if (!known(value)) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace("e+", "e");
  const digits = size >= 1000 ? 0 : size >= 10 ? 1 : 4;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}
const percent = (value) => (known(value) ? `${(100 * value).toFixed(1)} %` : "–");
const steps = (value) =>
  value >= 1e6 ? `${+(value / 1e6).toFixed(2)} M` : value >= 1e3 ? `${+(value / 1e3).toFixed(2)} k` : `${value}`;
function interval(block) {
  if (!block) return "–";
  return block.ci95 ? `${number(block.iqm)} [${block.ci95.map(number).join(", ")}]` : number(block.iqm);
}

function scale(domain, range) {
  const [low, high] = domain[0] === domain[1] ? [domain[0] - 0.5, domain[1] + 0.5] : domain;
  return (value) => range[0] + ((value - low) / (high - low)) * (range[1] - range[0]);
}

function ticks([low, high], most) {
  if (low === high) return [low];
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((one) => one * power >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) {
    found.push(+(n * step).toPrecision(12));
  }
  return found;
}

function padded([low, high], share = 0.05) {
  // Not closer than a tenth of the values' size: nearly equal returns should look equal.
  const span = Math.max(high - low, 0.1 * Math.max(Math.abs(low), Math.abs(high))) || 1;
  const pad = Math.max(span * share, (span * (1 + 2 * share) - (high - low)) / 2);
  return [low - pad, high + pad];
}

function shorten(text, room) {
  const most = Math.max(4, Math.floor(room / 6.7));
  return text.length <= most ? text : `…${text.slice(text.length - most + 1)}`;
}

// ---------------------------------------------------------------- a frame with two axes

function frame(width, { x, y, height = 320 }) {
  const rows = ticks(y.domain, 6);
  const left = 40 + 6.9 * Math.max(...rows.map((tick) => y.format(tick).length));
  const box = { left, right: width - 14, top: 10, bottom: height - 46 };
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  const sx = scale(x.domain, [box.left, box.right]);
  const sy = scale(y.domain, [box.bottom, box.top]);
  for (const tick of ticks(x.domain, Math.max(2, (box.right - box.left) / 80))) {
    svg.append(
      node("line", { class: "grid", x1: sx(tick), x2: sx(tick), y1: box.top, y2: box.bottom }),
      node("text", { x: sx(tick), y: box.bottom + 17, "text-anchor": "middle" }, x.format(tick)),
    );
  }
  for (const tick of rows) {
    svg.append(
      node("line", { class: "grid", x1: box.left, x2: box.right, y1: sy(tick), y2: sy(tick) }),
      node("text", { x: box.left - 8, y: sy(tick) + 4, "text-anchor": "end" }, y.format(tick)),
    );
  }
  const middle = (box.top + box.bottom) / 2;
  svg.append(
    node("text", { class: "title", x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, x.title),
    node("text", { class: "title", x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, y.title),
  );
  return { svg, sx, sy, box };
}

// ---------------------------------------------------------------- marks: hover, touch and keys

function show(lines, x, y) {
  tip.replaceChildren(html("b", lines.title));
  const table = html("table", null);
  for (const [name, value] of lines.rows) {
    table.append(html("tr", null, html("th", name), html("td", value)));
  }
  tip.append(table);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
  tip.style.left = `${Math.min(Math.max(8, left), Math.max(8, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.min(Math.max(8, y - height - 12 < 8 ? y + 18 : y - height - 12), innerHeight - height - 8)}px`;
}

function interact(plot, svg, marks, reach = 40) {
  // Each mark: {at: [[x, y], ...], nodes: [...], tip: (index) => lines}; several `at` make a line,
  // and a `whole` one says the same all along it.
  let current = null;
  const spots = marks.flatMap((mark) => mark.at.map((at, index) => ({ mark, at, index })));
  function select(spot, pointer) {
    for (const one of current ? current.mark.nodes : []) one.classList.remove("on");
    current = spot;
    stay = spot && !pointer ? () => select(spot) : null;
    svg.classList.toggle("dim", spot !== null && spot.mark.at.length > 1);
    if (!spot) { tip.hidden = true; return; }
    for (const one of spot.mark.nodes) one.classList.add("on");
    const bounds = svg.getBoundingClientRect();
    const [x, y] = pointer || [bounds.left + spot.at[0], bounds.top + spot.at[1]];
    show(spot.mark.tip(spot.index), x, y);
  }
  function nearest(event) {
    const bounds = svg.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    let best = null, least = reach * reach;
    for (const spot of spots) {
      const far = (spot.at[0] - x) ** 2 + (spot.at[1] - y) ** 2;
      if (far < least) [best, least] = [spot, far];
    }
    return best;
  }
  plot.onpointermove = plot.onpointerdown = (event) => {
    const spot = nearest(event);
    select(spot, spot && [event.clientX, event.clientY]);
  };
  plot.onpointerleave = plot.onblur = () => select(null);
  plot.onkeydown = (event) => {
    if (event.key === "Escape") select(null);
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move || marks.length === 0) return;
    event.preventDefault();
    if (!current) return select(spots[0]);
    // Left and right go along a line, up and down from one line to the next.
    const along = event.key === "ArrowRight" || event.key === "ArrowLeft";
    const own = spots.filter((spot) => spot.mark === current.mark);
    const inside = along && !current.mark.whole ? own[own.indexOf(current) + move] : undefined;
    if (inside) return select(inside);
    const other = marks[(marks.indexOf(current.mark) + move + marks.length) % marks.length];
    const theirs = spots.filter((spot) => spot.mark === other);
    select(along ? theirs.at(move > 0 ? 0 : -1) : theirs[Math.min(current.index, theirs.length - 1)]);
  };
}

// ---------------------------------------------------------------- legends and line colours

function legend(figure, entries) {
  figure.querySelector(".legend").replaceChildren(
    ...entries.map(([text, sample]) => {
      const item = html("span", null);
      item.append(sample, text);
      return item;
    }),
  );
}
const swatch = (...children) => node("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" }, ...children);
const lineSwatch = (color, dash) =>
  swatch(node("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: color, "stroke-width": 2, "stroke-dasharray": dash || null }));

function sparsityLegend(low, high) {
  return [[` ${percent(low)} to ${percent(high)} sparsity`, html("i", null)]];
}

function styles(runs) {
  if (runs.length <= SERIES) {
    return { of: (run, n) => ({ color: `var(--c${n})`, dash: DASHES[n % 3] }), entries: (made) =>
      runs.map((run, n) => [run.label, lineSwatch(made(run, n).color, made(run, n).dash)]) };
  }
  const [low, high] = extent(runs.map((run) => run.sparsity || 0));
  const of = (run) => ({ color: ramp(((run.sparsity || 0) - low) / (high - low || 1), 0.3), dash: "" });
  return { of, entries: () => sparsityLegend(low, high) };
}

// ---------------------------------------------------------------- the charts

const CHARTS = {
  front(figure, plot, width, env) {
    const fronts = DATA.fronts.filter((front) => front.env === env);
    const points = fronts.flatMap((front) => front.points);
    const x = padded(extent(points.map((point) => point.sparsity)), 0.06);
    const shown = points.flatMap((point) => [point.return, point.test_return].filter(known));
    const dense = DATA.sweeps.filter((sweep) => known(sweep.dense_return) && fronts.some((f) => f.source === sweep.name));
    shown.push(...dense.map((sweep) => sweep.dense_return));
    const { svg, sx, sy, box } = frame(width, {
      x: { domain: [Math.max(x[0], -0.02), Math.min(x[1], 1.005)], format: (v) => `${+(100 * v).toFixed(1)}`, title: "Sparsity of prunable weights (%)" },
      y: { domain: padded(extent(shown)), format: number, title: "Return per episode" },
      height: 360,
    });
    const marks = [];
    const entries = [];
    for (const sweep of dense) {
      const y = sy(sweep.dense_return);
      svg.append(node("line", { class: "reference", x1: box.left, x2: box.right, y1: y, y2: y, "stroke-dasharray": "2 4" }));
    }
    if (dense.length) entries.push(["dense return", lineSwatch("var(--faint)", "2 4")]);
    fronts.forEach((front, n) => {
      const color = `var(--c${n % SERIES})`;
      const best = front.points.filter((point) => point.on_front);
      const path = best.map((point) => `${sx(point.sparsity)},${sy(point.return)}`).join(" ");
      svg.append(node("polyline", { class: "line", points: path, stroke: color }));
      entries.push([`${front.source}, front`, swatch(node("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: color, "stroke-width": 2 }), node("circle", { cx: 13, cy: 6, r: 4.5, fill: color }))]);
      if (best.length < front.points.length) {
        entries.push([`${front.source}, dominated`, swatch(node("circle", { cx: 13, cy: 6, r: 4, fill: "var(--ground)", stroke: color, "stroke-width": 1.5 }))]);
      }
      // A point of the front lies above dominated ones at the same place, and is the one hovered.
      for (const point of [...front.points.filter((one) => !one.on_front), ...best]) {
        const [cx, cy] = [sx(point.sparsity), sy(point.return)];
        const nodes = [];
        if (point.on_front && known(point.test_return)) {
          const ty = sy(point.test_return);
          nodes.push(node("path", { class: "mark point", d: `M${cx} ${ty - 5}l5 5l-5 5l-5 -5z`, fill: "var(--ground)", stroke: color, "stroke-width": 1.5 }));
        }
        nodes.push(node("circle", { class: "mark point", cx, cy, r: point.on_front ? 5.5 : 4, fill: point.on_front ? color : "var(--ground)", stroke: color, "stroke-width": 1.5 }));
        svg.append(...nodes);
        marks.push({ best: point.on_front, at: [[cx, cy]], nodes, tip: () => ({
          title: `${point.label}${point.on_front ? ", on the front" : ""}`,
          rows: [["sparsity", percent(point.sparsity)], ["validation return", number(point.return)], ["test return", number(point.test_return)],
            ...Object.entries(point.config).map(([key, value]) => [key, number(value)])],
        }) });
      }
    });
    if (points.some((point) => point.on_front && known(point.test_return))) {
      entries.push(["test return", swatch(node("path", { d: "M13 1l5 5l-5 5l-5 -5z", fill: "none", stroke: "var(--faint)", "stroke-width": 1.5 }))]);
    }
    legend(figure, entries);
    interact(plot, svg, marks.sort((a, b) => b.best - a.best));
    return svg;
  },

  return: (figure, plot, width, env) => curves(figure, plot, width, env, "return", number, "Return per episode"),
  sparsity: (figure, plot, width, env) =>
    curves(figure, plot, width, env, "sparsity", (v) => `${+(100 * v).toFixed(1)}`, "Sparsity of prunable weights (%)"),
  kl: (figure, plot, width, env) => curves(figure, plot, width, env, "kl", number, "KL of a mask update (nats)"),
  value_change: (figure, plot, width, env) =>
    curves(figure, plot, width, env, "value_change", number, "Change of values (share of their deviation)"),
  greedy_changed: (figure, plot, width, env) =>
    curves(figure, plot, width, env, "greedy_changed", (v) => `${+(100 * v).toFixed(1)}`, "Other greedy actions (%)"),

  compare(figure, plot, width, env) {
    const rows = DATA.comparison.filter((row) => row.env === env);
    const blocks = rows.flatMap((row) => [row.pruned, row.dense]).filter(known);
    const domain = padded(extent(blocks.flatMap((block) => [block.iqm, ...(block.ci95 || [])])), 0.06);
    const narrow = width < NARROW;
    const left = narrow ? 8 : Math.min(260, 24 + 6.7 * Math.max(...rows.map((row) => row.label.length)));
    const step = narrow ? 48 : 32;
    const height = rows.length * step + 56;
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    const [begin, end, bottom] = [left, width - 14, height - 46];
    const sx = scale(domain, [begin, end]);
    for (const tick of ticks(domain, Math.max(2, (end - begin) / 90))) {
      svg.append(node("line", { class: "grid", x1: sx(tick), x2: sx(tick), y1: 4, y2: bottom }),
        node("text", { x: sx(tick), y: bottom + 17, "text-anchor": "middle" }, number(tick)));
    }
    svg.append(node("text", { class: "title", x: (begin + end) / 2, y: height - 8, "text-anchor": "middle" }, "Test return per episode"));
    const marks = [];
    rows.forEach((row, n) => {
      const y = n * step + (narrow ? 32 : 18);
      svg.append(narrow
        ? node("text", { class: "name", x: begin, y: y - 15 }, shorten(row.label, width - 20))
        : node("text", { class: "name", x: begin - 12, y: y + 4, "text-anchor": "end" }, shorten(row.label, left - 20)));
      const nodes = [["dense", -6], ["pruned", row.dense ? 6 : 0]].filter(([key]) => row[key]).flatMap(([key, shift]) => {
        const block = row[key];
        const color = key === "dense" ? "var(--c1)" : "var(--c0)";
        return [
          block.ci95 ? node("line", { class: "mark", x1: sx(block.ci95[0]), x2: sx(block.ci95[1]), y1: y + shift, y2: y + shift, stroke: color, "stroke-width": 2 }) : null,
          node("circle", { class: "mark", cx: sx(block.iqm), cy: y + shift, r: 4.5, fill: key === "dense" ? "var(--ground)" : color, stroke: color, "stroke-width": 2 }),
        ].filter(known);
      });
      svg.append(...nodes);
      const over = (block) => (block && block.ci95_over ? ` over ${block[block.ci95_over]} ${block.ci95_over}` : "");
      const lines = [["sparsity", percent(row.sparsity)], ["pruned, IQM [95 %]", interval(row.pruned) + over(row.pruned)]];
      if (row.dense) lines.push(["dense, IQM [95 %]", interval(row.dense) + over(row.dense)]);
      marks.push({ at: [[sx(row.pruned.iqm), y]], nodes, tip: () => ({ title: row.label, rows: lines }) });
    });
    const entries = [["pruned", swatch(node("circle", { cx: 13, cy: 6, r: 4.5, fill: "var(--c0)" }))]];
    if (rows.some((row) => row.dense)) entries.push(["dense", swatch(node("circle", { cx: 13, cy: 6, r: 4.5, fill: "none", stroke: "var(--c1)", "stroke-width": 2 }))]);
    legend(figure, entries);
    interact(plot, svg, marks, 60);
    return svg;
  },

  heat(figure, plot, width, _of, index) {
    const map = DATA.heat[index];
    const narrow = width < NARROW;
    const left = narrow ? 0 : Math.min(300, 16 + 6.7 * Math.max(...map.layers.map((name) => name.length)));
    const cell = Math.min(narrow ? width : 150, (width - left) / map.columns.length);
    const [rowHeight, gap] = [26, narrow ? 20 : 3];
    const top = 2;
    const labelled = cell >= 54;
    const bottom = top + map.layers.length * (rowHeight + gap);
    const height = bottom + (labelled ? 44 : 26);
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    const marks = [];
    map.layers.forEach((name, n) => {
      const y = top + n * (rowHeight + gap) + (narrow ? gap - 4 : 0);
      svg.append(narrow
        ? node("text", { class: "name", x: 0, y: y - 5 }, shorten(name, width))
        : node("text", { class: "name", x: left - 10, y: y + 17, "text-anchor": "end" }, shorten(name, left - 14)));
      map.columns.forEach((column, k) => {
        const value = column.layers[name];
        if (!known(value)) return;
        const isProtected = column.protected.includes(name);
        const x = left + k * cell;
        const rect = node("rect", { class: "mark", x: x + 0.5, y, width: Math.max(1, cell - 1), height: rowHeight, fill: ramp(value) });
        svg.append(rect);
        if (cell >= 34) {
          const text = isProtected && value === 0 ? (cell >= 64 ? "protected" : "–") : `${(100 * value).toFixed(cell >= 44 ? 1 : 0)}`;
          svg.append(node("text", { x: x + cell / 2, y: y + 17, "text-anchor": "middle", style: `fill: var(--on-${value > 0.5 ? "high" : "low"}); pointer-events: none` }, text));
        }
        marks.push({ at: [[x + cell / 2, y + rowHeight / 2]], nodes: [rect], tip: () => ({
          title: column.label, rows: [["layer", name], ["sparsity", percent(value)], ...(isProtected ? [["", "protected"]] : [])],
        }) });
      });
    });
    if (labelled) {
      map.columns.forEach((column, k) => svg.append(node("text", { x: left + (k + 0.5) * cell, y: bottom + 15, "text-anchor": "middle" }, shorten(column.label, cell - 18))));  // ids have wide digits
    }
    const title = map.over === "runs" ? (map.columns.length > 1 ? "Runs, the densest first" : "Run") : "Env steps";
    svg.append(node("text", { class: "title", x: left + (cell * map.columns.length) / 2, y: height - 8, "text-anchor": "middle" }, title));
    legend(figure, [["0 to 100 % of the layer's weights; numbers are %", html("i", null)]]);
    interact(plot, svg, marks, Math.max(cell, rowHeight));
    return svg;
  },

  lineage(figure, plot, width, name) {
    const sweep = DATA.sweeps.find((one) => one.name === name);
    const runs = DATA.runs.filter((run) => run.sweep === name);
    const ids = [...new Set([...sweep.trials, ...sweep.lineage.flatMap((event) => [event.donor, event.trial])])];
    const lengths = Object.fromEntries(runs.map((run) => [run.trial, run.env_steps || 0]));
    const most = Math.max(...Object.values(lengths), ...sweep.lineage.map((event) => event.env_steps), 1);
    const left = Math.min(width / 3, 22 + 6.7 * Math.max(...ids.map((id) => id.length)));
    const lane = 24;
    const height = ids.length * lane + 56;
    const bottom = height - 46;
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    const sx = scale([0, most], [left, width - 16]);
    const sy = (id) => ids.indexOf(id) * lane + lane / 2 + 2;
    for (const tick of ticks([0, most], Math.max(2, (width - left) / 90))) {
      svg.append(node("line", { class: "grid", x1: sx(tick), x2: sx(tick), y1: 2, y2: bottom }),
        node("text", { x: sx(tick), y: bottom + 17, "text-anchor": "middle" }, steps(tick)));
    }
    svg.append(node("text", { class: "title", x: (left + width) / 2, y: height - 8, "text-anchor": "middle" }, "Env steps of the trial"));
    const marks = [];
    for (const id of ids) {
      const run = runs.find((one) => one.trial === id);
      const failed = run && run.status === "failed";
      const on = sweep.front.some((point) => point.trial === id);
      svg.append(
        node("text", { class: "name", x: left - 10, y: sy(id) + 4, "text-anchor": "end", "font-weight": on ? 700 : null }, shorten(id, left - 12)),
        node("line", { class: "lane", x1: sx(0), x2: sx(lengths[id] || 0), y1: sy(id), y2: sy(id), style: failed ? "stroke: var(--bad)" : null }),
      );
      if (run) marks.push({ at: [[sx(lengths[id]), sy(id)]], nodes: [], tip: () => ({ title: id, rows: [["status", run.status], ["return", number(run.return)], ["sparsity", percent(run.sparsity)]] }) });
    }
    for (const event of sweep.lineage) {
      const [x, from, to] = [sx(event.env_steps), sy(event.donor), sy(event.trial)];
      const side = to > from ? -1 : 1;
      const bend = Math.min(18, Math.abs(to - from) / 2);
      const nodes = [
        node("path", { class: "arrow mark", d: `M${x} ${from}C${x - bend} ${from},${x - bend} ${to},${x - 2} ${to + side * 3}` }),
        node("circle", { class: "mark", cx: x, cy: from, r: 3, fill: "var(--accent)" }),
        node("path", { class: "mark point", d: `M${x} ${to}l-7 ${side * 2}l4 ${side * 6}z`, fill: "var(--accent)" }),
      ];
      svg.append(...nodes);
      marks.unshift({ at: [[x, to]], nodes, tip: () => ({
        title: `${event.trial} copied ${event.donor}`,
        rows: [["env steps", steps(event.env_steps)], ...Object.entries(event.changed || {}).map(([key, [old, now]]) => [key, `${number(old)} → ${number(now)}`])],
      }) });
    }
    legend(figure, [["lane of a trial; bold: on the front", lineSwatch("var(--rule)")], ["exploit", lineSwatch("var(--accent)")],
      ...(runs.some((run) => run.status === "failed") ? [["failed", lineSwatch("var(--bad)")]] : [])]);
    interact(plot, svg, marks);
    return svg;
  },

  choices(figure, plot, width, _of, index) {
    const { axes, lines, left_out: leftOut } = DATA.choices[index];
    const narrow = width < NARROW;
    // Upright axes side by side; on a phone they lie below each other.
    const height = narrow ? axes.length * 62 + 10 : 330;
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    const [begin, end] = narrow ? [14, width - 14] : [height - 24, 44];
    const along = (n) => (narrow ? n * 62 + 28 : 60 + (n * (width - 120)) / Math.max(1, axes.length - 1));
    const at = (n, place) => (narrow ? [place, along(n)] : [along(n), place]);
    const scales = axes.map((axis) => {
      if (axis.kind === "category") {
        const share = scale([-0.5, axis.names.length - 0.5], [begin, end]);
        return (value) => share(axis.names.indexOf(String(value)));
      }
      const log = axis.kind === "log" ? Math.log10 : (value) => value;
      const share = scale([log(axis.low), log(axis.high)], [begin, end]);
      return (value) => share(log(value));
    });
    const reached = axes.length - 2;
    const [low, high] = extent(lines.map((line) => line.values[reached]));
    const marks = lines.map((line) => {
      const places = line.values.map((value, n) => (known(value) ? at(n, scales[n](value)) : null));
      const path = places.filter(known).map((place) => place.join(",")).join(" ");
      const color = ramp((line.values[reached] - low) / (high - low || 1), 0.3);
      const drawn = node("polyline", { class: "line mark", points: path, style: `stroke: ${color}; ${line.on_front ? "stroke-width: 3" : ""}` });
      svg.append(drawn);
      return { whole: true, at: places.filter(known), nodes: [drawn], tip: () => ({
        title: `${line.label}${line.on_front ? ", on the front" : ""}`,
        rows: axes.map((axis, n) => [axis.key, axis.key.startsWith("sparsity") ? percent(line.values[n]) : number(line.values[n])]),
      }) };
    });
    axes.forEach((axis, n) => {
      const [[x1, y1], [x2, y2]] = [at(n, begin), at(n, end)];
      svg.append(node("line", { x1, x2, y1, y2, stroke: "var(--faint)", "stroke-width": 1.5 }));
      const room = narrow ? width - 20 : (width - 120) / Math.max(1, axes.length - 1) - 10;
      const name = axis.key.replace(/^(pruning|rllib)\./, "");
      svg.append(narrow
        ? node("text", { class: "halo", x: 0, y: along(n) - 12 }, shorten(name, room))
        : node("text", { class: "title", x: along(n), y: n % 2 && room < name.length * 6.7 ? 30 : 16, "text-anchor": "middle" }, shorten(name, room * 1.7)));
      const values = axis.kind === "category" ? axis.names : [axis.low, axis.high];
      for (const value of [...new Set(values)]) {
        const place = scales[n](value);
        const text = typeof value === "number" ? (axis.key.includes("sparsity") ? `${+(100 * value).toFixed(1)} %` : number(value)) : shorten(value, 110);
        const edge = axis.kind === "category" ? "middle" : value === axis.low ? "start" : "end";
        svg.append(narrow
          ? node("text", { class: "halo", x: place, y: along(n) + 15, "text-anchor": edge }, text)
          : axis.kind === "category"
            ? node("text", { x: along(n) + 6, y: place + 4, class: "halo" }, text)
            : node("text", { x: along(n), y: value === axis.low ? begin + 16 : end - 6, "text-anchor": "middle" }, text));
      }
    });
    const rest = leftOut.length > 4 ? ` and ${leftOut.length - 4} more` : "";
    const more = leftOut.length ? [[`not shown, but differing too: ${leftOut.slice(0, 4).join(", ")}${rest}`, ""]] : [];
    legend(figure, [...sparsityLegend(low, high), ...more]);
    interact(plot, svg, marks, 30);
    return svg;
  },
};

// A dot per mask update: how far the return fell before the next one.
CHARTS.dips = (figure, plot, width, env) => {
  const runs = DATA.runs.filter((run) => run.env === env && run.dips.length);
  const points = runs.flatMap((run) => run.dips);
  const most = Math.max(...points.map((dip) => dip[0]));
  const { svg, sx, sy } = frame(width, {
    x: { domain: [0, most || 1], format: steps, title: "Env steps" },
    y: { domain: [0, Math.max(...points.map((dip) => dip[1]), 1e-9) * 1.06], format: number, title: "Depth of the dip" },
    height: 260,
  });
  const style = styles(runs);
  const marks = runs.map((run, n) => {
    const { color } = style.of(run, n);
    const at = run.dips.map(([step, depth]) => [sx(step), sy(depth)]);
    const nodes = run.dips.map(([, , recovery], i) => node("circle", { class: "mark point", cx: at[i][0], cy: at[i][1], r: 3.5, style: `fill: ${known(recovery) ? color : "var(--ground)"}; stroke: ${color}; stroke-width: 1.5` }));
    svg.append(...nodes);
    return { at, nodes, tip: (index) => {
      const [step, depth, recovery] = run.dips[index];
      return { title: run.label, rows: [["mask update at", number(step)], ["depth", number(depth)],
        ["back after", known(recovery) ? `${steps(recovery)} steps` : "not before the next update"]] };
    } };
  });
  legend(figure, style.entries(style.of));
  interact(plot, svg, marks, 30);
  return svg;
};

// A line per layer over the sparsity at which it alone was pruned: its return, or its critic's error.
CHARTS.ladder = (figure, plot, width, of) => {
  const layers = DATA.layers.filter((layer) => layer.measured_by === of);
  const byReturn = of === "return";
  const value = (rung) => (byReturn ? rung.iqm : rung.value_unexplained);
  const lines = layers.map((layer) => ({ layer, rungs: layer.ladder.filter((rung) => known(value(rung))) }));
  const limit = byReturn ? DATA.floor : DATA.settings.tolerance;
  const base = byReturn ? DATA.unpruned.iqm : 0;
  const shown = lines.flatMap(({ rungs }) => rungs.flatMap((rung) => [value(rung), ...(byReturn ? rung.ci95 : [])]));
  const form = byReturn ? number : (v) => `${+(100 * v).toFixed(1)}`;
  // A critic that is far off is off: how far would only flatten the rest.
  const cap = byReturn ? Infinity : 1;
  const top = padded(extent([...shown.map((v) => Math.min(v, cap)), base, limit]));
  const { svg, sx, sy, box } = frame(width, {
    x: { domain: [0, 1], format: (v) => `${+(100 * v).toFixed(1)}`, title: "Sparsity of this layer alone (%)" },
    y: { domain: byReturn ? top : [0, top[1]], format: form, title: byReturn ? "Return per episode, IQM" : "Unexplained variance of the values (%)" },
    height: 360,
  });
  for (const [at, dash] of [[base, "2 4"], [limit, "8 5"]]) {
    svg.append(node("line", { class: "reference", x1: box.left, x2: box.right, y1: sy(at), y2: sy(at), "stroke-dasharray": dash }));
  }
  const style = styles(layers.map((layer) => ({ label: layer.name, sparsity: layer.suggested })));
  const marks = lines.map(({ layer, rungs }, n) => {
    const { color, dash } = style.of({ sparsity: layer.suggested }, n);
    const y = (v) => sy(Math.min(v, cap));
    const at = [[sx(0), sy(base)], ...rungs.map((rung) => [sx(rung.sparsity), y(value(rung))])];
    const nodes = [node("polyline", { class: "line mark", points: at.map((one) => one.join(",")).join(" "), style: `stroke: ${color}`, "stroke-dasharray": dash || null })];
    for (const rung of rungs) {
      // Layers of one sparsity stand side by side: their intervals would hide each other.
      const x = sx(rung.sparsity) + (n - (lines.length - 1) / 2) * 3;
      if (byReturn) nodes.push(node("line", { class: "mark", x1: x, x2: x, y1: y(rung.ci95[0]), y2: y(rung.ci95[1]), style: `stroke: ${color}; stroke-width: 1.25` }));
      nodes.push(node("circle", { class: "mark point", cx: sx(rung.sparsity), cy: y(value(rung)), r: 3.2, style: `fill: ${color}` }));
    }
    svg.append(...nodes);
    return { at, nodes, tip: (index) => {
      const rung = index ? rungs[index - 1] : null;
      return { title: layer.name, rows: [["sparsity", percent(rung ? rung.sparsity : 0)],
        ...(byReturn ? [["return, IQM [95 %]", interval(rung || DATA.unpruned)]] : []),
        ...(rung && rung.gap ? [["loss, paired [95 %]", interval(rung.gap)]] : []),
        ...(rung && known(rung.agreement) ? [["same actions", percent(rung.agreement)]] : []),
        ...(rung && known(rung.kl) ? [["KL to unpruned", number(rung.kl)]] : []),
        ...(rung && known(rung.value_unexplained) ? [["unexplained value", percent(rung.value_unexplained)]] : []),
        ["suggested", percent(layer.suggested)]] };
    } };
  });
  legend(figure, [...style.entries(style.of), [byReturn ? "unpruned" : "no error", lineSwatch("var(--faint)", "2 4")],
    [byReturn ? "floor" : "tolerated", lineSwatch("var(--faint)", "8 5")]]);
  interact(plot, svg, marks, 30);
  return svg;
};

// A bar per layer: what is suggested for it.
CHARTS.suggested = (figure, plot, width) => {
  const split = DATA.suggested.distribution;
  const names = DATA.layers.map((layer) => layer.name);
  const narrow = width < NARROW;
  const left = narrow ? 4 : Math.min(300, 16 + 6.7 * Math.max(...names.map((name) => name.length)));
  const step = narrow ? 44 : 28;
  const height = names.length * step + 46;
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  const [end, bottom] = [width - 62, height - 46];
  const sx = scale([0, 1], [left, end]);
  for (const tick of ticks([0, 1], Math.max(2, (end - left) / 90))) {
    svg.append(node("line", { class: "grid", x1: sx(tick), x2: sx(tick), y1: 0, y2: bottom }),
      node("text", { x: sx(tick), y: bottom + 17, "text-anchor": "middle" }, `${+(100 * tick).toFixed(1)}`));
  }
  svg.append(node("text", { class: "title", x: (left + end) / 2, y: height - 8, "text-anchor": "middle" }, "Suggested sparsity (%)"));
  const marks = DATA.layers.map((layer, n) => {
    const y = n * step + (narrow ? 20 : 5);
    const value = split[layer.name];
    const bar = node("rect", { class: "mark", x: left, y, width: Math.max(1, sx(value) - left), height: 18, rx: 2, fill: layer.measured_by === "return" ? "var(--c0)" : "var(--c1)" });
    svg.append(bar, node("text", { x: sx(value) + 8, y: y + 13 }, percent(value)), narrow
      ? node("text", { class: "name halo", x: left, y: y - 5 }, shorten(layer.name, width - 10))
      : node("text", { class: "name", x: left - 10, y: y + 13, "text-anchor": "end" }, shorten(layer.name, left - 16)));
    return { at: [[sx(value), y + 9]], nodes: [bar], tip: () => ({ title: layer.name, rows: [["suggested", percent(value)],
      ["alone", percent(layer.suggested)], ["now", percent(layer.sparsity_now)], ["weights", number(layer.total)], ["judged by", layer.measured_by.replace("_", " ")]] }) };
  });
  const kinds = new Set(DATA.layers.map((layer) => layer.measured_by));
  const box = (color) => swatch(node("rect", { x: 4, y: 0, width: 18, height: 12, rx: 2, fill: color }));
  legend(figure, [...(kinds.has("return") ? [["judged by the return", box("var(--c0)")]] : []), ...(kinds.has("value_error") ? [["judged by the value error", box("var(--c1)")]] : [])]);
  interact(plot, svg, marks, 400);
  return svg;
};

// Evidence that the loss is within the margin: a line per question, and what it has to reach.
CHARTS.evidence = (figure, plot, width) => {
  const needed = Math.log10(1 / (1 - DATA.settings.confidence));
  const lines = ["mean", "tail"].map((name) => ({ name, values: DATA.evidence[name].for.map((one) => one / Math.LN10) }));
  // What has lost nearly all says no more by losing the rest.
  const least = Math.max(-needed, Math.min(0, ...lines.flatMap((line) => line.values)));
  const most = Math.max(needed * 1.3, Math.min(3 * needed, Math.max(...lines.flatMap((line) => line.values))));
  const inside = (value) => Math.min(most, Math.max(least, value));
  const { svg, sx, sy, box } = frame(width, {
    x: { domain: [0, DATA.pairs], format: number, title: "Pairs of episodes" },
    y: { domain: [least, most], format: number, title: "Evidence (log10)" },
  });
  svg.append(node("line", { class: "reference", x1: box.left, x2: box.right, y1: sy(needed), y2: sy(needed), "stroke-dasharray": "8 5" }));
  const marks = lines.map(({ name, values }, n) => {
    const at = [[sx(0), sy(0)], ...values.map((value, i) => [sx(i + 1), sy(inside(value))])];
    const line = node("polyline", { class: "line mark", points: at.map((one) => one.join(",")).join(" "), style: `stroke: var(--c${n})`, "stroke-dasharray": DASHES[n] || null });
    svg.append(line);
    return { at, nodes: [line], tip: (index) => ({ title: name, rows: [["pairs", number(index)],
      ["evidence", number(10 ** (index ? values[index - 1] : 0))], ["needed", number(10 ** needed)]] }) };
  });
  legend(figure, [...lines.map(({ name }, n) => [name, lineSwatch(`var(--c${n})`, DASHES[n])]), ["needed", lineSwatch("var(--faint)", "8 5")]]);
  interact(plot, svg, marks, 30);
  return svg;
};

// A point per seed: on the diagonal both policies earned the same.
CHARTS.pairs = (figure, plot, width) => {
  const domain = padded(extent(DATA.played.flatMap((pair) => [pair.dense, pair.pruned])));
  const { svg, sx, sy } = frame(width, {
    x: { domain, format: number, title: "Dense return" },
    y: { domain, format: number, title: "Pruned return" },
  });
  svg.append(node("line", { class: "reference", x1: sx(domain[0]), y1: sy(domain[0]), x2: sx(domain[1]), y2: sy(domain[1]), "stroke-dasharray": "2 4" }));
  const marks = DATA.played.map((pair) => {
    const [cx, cy] = [sx(pair.dense), sy(pair.pruned)];
    const dot = node("circle", { class: "mark point", cx, cy, r: 3.6, fill: "var(--c0)", "fill-opacity": 0.55 });
    svg.append(dot);
    return { at: [[cx, cy]], nodes: [dot], tip: () => ({ title: `seed ${pair.seed}`, rows: [["dense", number(pair.dense)], ["pruned", number(pair.pruned)],
      ["steps", `${number(pair.dense_steps)} / ${number(pair.pruned_steps)}`], ["actions differ at step", number(pair.diverged_at)]] }) };
  });
  legend(figure, [["the same", lineSwatch("var(--faint)", "2 4")]]);
  interact(plot, svg, marks);
  return svg;
};

// A bar per policy and runtime, on a logarithmic axis, up to the median; a tick at the 99th percentile.
CHARTS.latency = (figure, plot, width, of, index) => {
  const places = [...new Map(DATA.rows.map((row) => [`${row.threads} ${row.batch}`, row])).values()];
  const { threads, batch } = places[index];
  const rows = DATA.rows.filter((row) => row.threads === threads && row.batch === batch);
  const several = new Set(rows.map((row) => row.target)).size > 1;
  const label = (row) => `${several ? `${row.target} ` : ""}${row.policy} ${row.runtime}`;
  const step = 44;
  const height = rows.length * step + 46;
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  const [end, bottom] = [width - 80, height - 46];
  const [low, high] = extent(rows.flatMap((row) => [row.median_us, row.p99_us]));
  const decades = [Math.floor(Math.log10(low)), Math.max(Math.ceil(Math.log10(high)), Math.floor(Math.log10(low)) + 1)];
  const position = scale(decades, [4, end]);
  const sx = (value) => position(Math.log10(value));
  for (let power = decades[0]; power <= decades[1]; power++) {
    svg.append(node("line", { class: "grid", x1: position(power), x2: position(power), y1: 0, y2: bottom }),
      node("text", { x: position(power), y: bottom + 17, "text-anchor": "middle" }, number(10 ** power)));
  }
  svg.append(node("text", { class: "title", x: end / 2, y: height - 8, "text-anchor": "middle" }, "Time of a call (µs)"));
  const colors = { dense: "var(--c1)", pruned: "var(--c0)" };
  const marks = rows.map((row, n) => {
    const y = n * step + 20;
    const bar = node("rect", { class: "mark", x: 4, y, width: Math.max(1, sx(row.median_us) - 4), height: 16, rx: 2, fill: colors[row.policy] || "var(--c2)" });
    const tick = node("line", { class: "mark", x1: sx(row.p99_us), x2: sx(row.p99_us), y1: y - 2, y2: y + 18, style: "stroke: var(--faint); stroke-width: 2" });
    svg.append(bar, tick, node("text", { class: "halo", x: sx(row.median_us) + 7, y: y + 12 }, number(row.median_us)), node("text", { class: "name halo", x: 4, y: y - 5 }, shorten(label(row), width - 10)));
    const times = (found) => (found ? `${number(found.ratio)} [${found.ci95.map(number).join(", ")}]` : "–");
    return { at: [[sx(row.median_us), y + 8]], nodes: [bar, tick], tip: () => ({ title: label(row), rows: [["median µs", number(row.median_us)], ["p99 µs", number(row.p99_us)],
      ["× same runtime", times(row.speed_up.same_runtime)], ["× forward_inference", times(row.speed_up.forward_inference)],
      ...(known(row.missed) ? [["over the deadline", percent(row.missed)]] : [])] }) };
  });
  const box = (color) => swatch(node("rect", { x: 4, y: 0, width: 18, height: 12, rx: 2, fill: color }));
  const shown = [...new Set(rows.map((row) => (row.policy in colors ? row.policy : "file")))];
  legend(figure, shown.map((name) => [name, box(colors[name] || "var(--c2)")]));
  interact(plot, svg, marks, 400);
  return svg;
};

function curves(figure, plot, width, env, key, format, title) {
  const runs = DATA.runs.filter((run) => run.env === env && run.curves[key].length);
  const few = runs.length <= SERIES;
  const dotted = key === "return" && few;
  const values = runs.flatMap((run) => [
    ...run.curves[key].map((point) => point[1]),
    ...(dotted ? run.curves.validation.flatMap((point) => point.slice(1).filter(known)) : []),
  ]);
  const most = Math.max(...runs.map((run) => run.curves[key].at(-1)[0]));
  const { svg, sx, sy } = frame(width, {
    x: { domain: [0, most || 1], format: steps, title: "Env steps" },
    y: { domain: key === "return" ? padded(extent(values)) : [0, Math.max(...values, key === "kl" ? 1e-6 : 0.01) * 1.04], format, title },
  });
  const style = styles(runs);
  const shown = key === "sparsity" || key === "greedy_changed" ? percent : number;
  const marks = runs.map((run, n) => {
    const { color, dash } = style.of(run, n);
    const at = run.curves[key].map(([step, value]) => [sx(step), sy(value)]);
    const nodes = [node("polyline", { class: "line mark", points: at.map((one) => one.join(",")).join(" "), style: `stroke: ${color}`, "stroke-dasharray": dash || null })];
    for (const [step, iqm, low, high] of dotted ? run.curves.validation : []) {
      if (known(low)) nodes.push(node("line", { class: "mark", x1: sx(step), x2: sx(step), y1: sy(low), y2: sy(high), style: `stroke: ${color}; stroke-width: 1.25` }));
      nodes.push(node("circle", { class: "mark point", cx: sx(step), cy: sy(iqm), r: 3.2, style: `fill: ${color}` }));
    }
    svg.append(...nodes);
    return { at, nodes, tip: (index) => {
      const [step, value] = run.curves[key][index];
      const before = run.curves.validation.filter((point) => point[0] <= step).at(-1);
      return { title: run.label, rows: [["env steps", number(step)], [key, shown(value)],
        ...(key === "return" && before ? [["last validation", `${number(before[1])} at ${steps(before[0])}`]] : [])] };
    } };
  });
  legend(figure, style.entries(style.of));
  interact(plot, svg, marks, 30);
  return svg;
}

for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const plot = figure.querySelector(".plot");
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(plot.clientWidth);
    if (width === drawn || width < 50) return;
    drawn = width;
    const { chart, of, index } = figure.dataset;
    plot.replaceChildren(CHARTS[chart](figure, plot, width, of, +index));
  }).observe(plot);
}
addEventListener("scroll", () => (stay ? stay() : (tip.hidden = true)), { passive: true });

// ---------------------------------------------------------------- the table

const table = document.querySelector("#runs table, #layers table, #questions table");
if (table) makeSortable();

function makeSortable() {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").onclick = () => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      for (const one of headings) one.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const numeric = heading.classList.contains("num");
      const key = (row) => row.cells[column].dataset.value;
      const compare = numeric
        ? (a, b) => key(a) - key(b)
        : (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const rows = [...table.tBodies[0].rows];
      // Rows without a value stay below, whichever way it is sorted.
      const [filled, empty] = [rows.filter((row) => key(row) !== ""), rows.filter((row) => key(row) === "")];
      filled.sort((a, b) => (rising ? compare(a, b) : compare(b, a)));
      table.tBodies[0].append(...filled, ...empty);
    };
  });

  function markdown() {
    const line = (cells) => `| ${cells.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`;
    const texts = (row) => [...row.cells].map((cell) => cell.textContent.trim());
    const ruler = headings.map((heading) => (heading.classList.contains("num") ? "---:" : "---"));
    return [line(texts(table.tHead.rows[0])), line(ruler), ...[...table.tBodies[0].rows].map((row) => line(texts(row)))].join("\n");
  }

  document.getElementById("copy").onclick = async () => {
    const status = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(markdown());
    } catch {
      // Browsers keep the clipboard from pages opened from disk, but not from a selected text.
      const area = html("textarea", markdown());
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    status.textContent = "Copied.";
  };
}

// Tables and charts.

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A table. Heads are strings, or {number: string} for a column of numbers. Rows are lists of cells. */
function table(heads, rows, caption = null) {
  const isNumber = (head) => typeof head === "object";
  const kind = heads.map((head) => (isNumber(head) ? "number" : null));
  const titles = heads.map((head, i) => make("th", { class: kind[i], scope: "col" }, head.number ?? head));
  const cells = (row) =>
    row.map((cell, i) => (i === 0 ? make("th", { scope: "row" }, cell) : make("td", { class: kind[i] }, cell)));
  return make(
    "div",
    { class: "wide" },
    make(
      "table",
      {},
      ...(caption ? [make("caption", {}, caption)] : []),
      make("thead", {}, make("tr", {}, ...titles)),
      make("tbody", {}, ...rows.map((row) => make("tr", { class: row.muted ? "muted" : null }, ...cells(row)))),
    ),
  );
}

/** A table with many columns, in smaller letters. */
function dense(element) {
  element.classList.add("dense");
  return element;
}

/** A bar for a share from 0 to 1. It repeats a number beside it, so screen readers skip it. */
function bar(share, kind = "") {
  const inner = make("i");
  inner.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return make("span", { class: `bar ${kind}`, "aria-hidden": "true" }, inner);
}

/** A score as a dot between `low` and 1, with a mark for each of its baselines. */
function dotRow(score, baselines, low, width = 110) {
  const x = (value) => 6 + ((Math.max(low, value) - low) / (1 - low)) * (width - 12);
  const shapes = { chance: "M-4,-5 L4,5 M-4,5 L4,-5", last_characters: "M0,-6 L0,6", untrained: "M-5,4 L0,-5 L5,4 Z" };
  return svg(
    "svg",
    { width, height: 20, role: "img", "aria-label": `score ${score.toFixed(3)}` },
    svg("line", { class: "grid", x1: x(low), x2: x(1), y1: 10, y2: 10 }),
    ...Object.entries(baselines).map(([name, value]) =>
      svg(
        "path",
        { d: shapes[name], class: "axis", "stroke-width": 1.5, transform: `translate(${x(value)},10)` },
        svg("title", {}, `${name.replace("last_characters", "last two")} ${value.toFixed(3)}`),
      ),
    ),
    svg("circle", { cx: x(score), cy: 10, r: 5, fill: "var(--layer-1)" }),
  );
}

/** About four round numbers between two values. */
function ticks(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; k++) {
    found.push(Number((k * step).toPrecision(6)));
  }
  return found;
}

/** Axes in a box: the drawing, and the functions x and y from values to pixels. */
function axes(width, height, xs, ys, xLabel, yLabel) {
  const left = 46, right = 14, top = 10, bottom = 40;
  const x = (value) => left + ((value - xs[0]) / (xs[1] - xs[0])) * (width - left - right);
  const y = (value) => height - bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (height - top - bottom);
  const name = { role: "img", "aria-label": `${yLabel} by ${xLabel}` };
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, ...name });
  for (const at of ticks(...ys)) {
    drawing.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }),
      svg("text", { class: "quiet", x: left - 6, y: y(at) + 4, "text-anchor": "end" }, at.toLocaleString("en")),
    );
  }
  for (const at of ticks(...xs)) {
    const attributes = { class: "quiet", x: x(at), y: height - bottom + 16, "text-anchor": "middle" };
    drawing.append(svg("text", attributes, at.toLocaleString("en")));
  }
  const middle = (top + height - bottom) / 2;
  drawing.append(
    svg("line", { class: "axis", x1: left, x2: width - right, y1: y(ys[0]), y2: y(ys[0]) }),
    svg("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xLabel),
    svg("text", { transform: `translate(11,${middle}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
  );
  return { drawing, x, y };
}

/** A line chart of series {name, points: [[x, y], ...], colour, dash}. */
function lines(width, height, series, xLabel, yLabel) {
  const points = series.flatMap((each) => each.points);
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const spread = (Math.max(...ys) - Math.min(...ys)) * 0.06 || 0.1;
  const chart = axes(
    width, height,
    [Math.min(0, ...xs), Math.max(1, ...xs)], [Math.min(...ys) - spread, Math.max(...ys) + spread],
    xLabel, yLabel,
  );
  for (const { points, colour, dash } of series) {
    const pixels = points.map(([px, py]) => [chart.x(px).toFixed(1), chart.y(py).toFixed(1)]);
    const line = { fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash ?? "none" };
    chart.drawing.append(svg("path", { d: `M${pixels.map(String).join("L")}`, ...line }));
    if (pixels.length < 30) {
      chart.drawing.append(...pixels.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.5, fill: colour })));
    }
  }
  return chart;
}

/** A scatter chart of sets {points: [[x, y], ...], colour}, with both axes from 0 to 1. */
function scatter(size, sets, xLabel, yLabel) {
  const chart = axes(size, size, [0, 1], [0, 1], xLabel, yLabel);
  chart.drawing.append(svg("line", { class: "grid", x1: chart.x(0), y1: chart.y(1), x2: chart.x(1), y2: chart.y(0) }));
  for (const { points, colour } of sets) {
    const d = points.map(([px, py]) => `M${chart.x(px).toFixed(1)},${chart.y(py).toFixed(1)}h0`).join("");
    const dot = { stroke: colour, "stroke-width": 5, "stroke-linecap": "round", "stroke-opacity": 0.55, fill: "none" };
    chart.drawing.append(svg("path", { d, ...dot }));
  }
  return chart;
}

/** A table of groups {name, count, bits, share} with bars. */
function groupTable(caption, head, groups) {
  const most = Math.max(...groups.map((group) => group.bits), 1e-9);
  const rows = groups.map(({ name, count, bits, share }) => [
    name, count.toLocaleString("en"), bits.toFixed(2), bar(bits / most), percent(share, 1),
  ]);
  const heads = [head, { number: "characters" }, { number: "bits/char" }, "", { number: "share of all bits" }];
  return table(heads, rows, caption);
}

// The page of scripts/reproduce: sections of texts, tables, samples and charts, from data.sections.

const COLOURS = ["var(--layer-0)", "var(--layer-1)", "var(--layer-2)", "var(--layer-3)"];
const DASHES = ["none", "7 4", "2 4"];
const look = (i) => ({ colour: COLOURS[i % 4], dash: DASHES[Math.floor(i / 4) % 3] });

/** The names of series or sets, each with its line. */
function legend(named) {
  const entries = named.map(({ name }, i) => {
    const { colour, dash } = look(i);
    const line = { x1: 0, x2: 26, y1: 6, y2: 6, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash };
    return make("span", { class: "together" }, svg("svg", { width: 26, height: 12, "aria-hidden": "true" },
      svg("line", line)), readable(name));
  });
  return make("p", { class: "legend" }, ...entries);
}

function figure(caption, ...children) {
  return make("figure", {}, make("figcaption", {}, readable(caption)), ...children);
}

const KINDS_OF_PARTS = {
  text: ({ text }) => paragraph(readable(text)),
  // a column whose cells are numbers is aligned to the right
  table: ({ caption, heads, rows }) => {
    const isNumber = (i) => rows.length > 0 && rows.every((row) => /^([-+]?[\d.,]+%?|–|)$/.test(row[i]));
    const titles = heads.map((head, i) => (i > 0 && isNumber(i) ? { number: head } : head));
    return figure(caption, dense(table(titles, rows.map((row) => row.map(readable)))));
  },
  sample: ({ caption, text }) => figure(caption, make("pre", { class: "sample", dir: "auto" }, readable(text))),
  lines: ({ caption, series, x, y }) => {
    const drawn = series.filter(({ points }) => points.length).map((each, i) => ({ ...each, ...look(i) }));
    if (!drawn.length) return figure(caption, paragraph("No losses."));
    const width = Math.min(640, document.getElementById("main").clientWidth);
    return figure(caption, legend(drawn), lines(width, 320, drawn, x, y).drawing);
  },
  scatter: ({ caption, sets }) => {
    const drawn = sets.map((each, i) => ({ ...each, ...look(i) }));
    return figure(caption, legend(sets), scatter(300, drawn, "right-saturated", "left-saturated").drawing);
  },
  row: ({ parts }) => make("div", { class: "charts" }, ...parts.map(draw)),
  // a text, coloured by a unit: `levels` from -7 to 7, one for each character
  shaded: ({ caption, chars, levels }) => {
    const pieces = chars.map((char, i) => {
      const level = levels[i];
      const shown = char === "\n" ? "\u21b5\n" : readable(char);
      return make("i", level ? { class: `${level > 0 ? "p" : "n"}${Math.abs(level)}` } : {}, shown);
    });
    return figure(caption, make("div", { class: "text marks", tabindex: 0 }, make("div", {}, ...pieces)));
  },
};

function draw(part) {
  return KINDS_OF_PARTS[part.kind](part);
}

document.getElementById("name").textContent = readable(data.about.name);
document.getElementById("about").textContent = readable(data.about.text);
data.sections.forEach(({ title, parts }, i) => section(`s${i}`, readable(title), ...parts.map(draw)));
document.documentElement.dataset.ready = "yes";

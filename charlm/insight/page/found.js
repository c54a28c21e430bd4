// The discovered units, their ablation, and the use of the gates.

function foundSection(colouring) {
  const row = (each) => foundRow(colouring, each);
  const some = data.search.filter((each) => each.discovery).length;
  const shown = data.search.filter((each) => each.discovery || !each.structure);
  const others = data.search.filter((each) => !each.discovery && each.structure); // folded: many, and alike
  const heads = [
    "feature", "best unit", { number: "score" }, "no relation \u2192 perfect", { number: "\u2715 chance" },
    { number: "| last two" }, { number: "\u25b3 untrained" }, "measure", "next best unit",
  ];
  const verdict = some
    ? `Discoveries: ${some} of ${count(data.search.length, "feature")}. The other features are grey.`
    : "No unit is a discovery.";
  section(
    "found", "Units that track a feature",
    paragraph(
      "Every unit was scored against features of the text. The score is the AUC, or Spearman\u2019s rank correlation " +
        "if the feature is a number. The sign comes from the first half of the text, the score from the second half. " +
        "A unit is a discovery if it closes at least a quarter of the gap between the best of three baselines and a " +
        "perfect score. The baselines are: ",
      make("b", {}, "chance"), ", the best unit after the feature was shifted along the text; ",
      make("b", {}, "last two"), ", a table of the last two characters; and ",
      make("b", {}, "untrained"), ", the best unit of untrained networks of the same size. ",
      "A minus sign marks a unit that is low where the feature is high. Besides features of prose and code, there are " +
        "features of what this text itself repeats: its key characters, columns, kinds of lines, classes and periods.",
    ),
    ...(data.search.length ? [paragraph(verdict)] : [paragraph("No feature can be scored: the text is too short or too uniform.")]),
    ...(shown.length ? [dense(table(heads, shown.map(row)))] : []),
    ...(others.length ? [make("details", {}, make("summary", {}, more(others.length)), dense(table(heads, others.map(row))))] : []),
  );
}

function more(number) {
  return `${count(number, "further feature")} of the structure of the text, without a discovery`;
}

function foundRow(colouring, each) {
  const [best, ...others] = each.units;
  const baselines = { chance: each.luck, last_characters: each.last_characters, untrained: each.untrained };
  const row = [
    each.feature, unitButton(colouring, best), best.score.toFixed(3),
    dotRow(best.score, baselines, each.measure === "AUC" ? 0.5 : 0),
    ...Object.values(baselines).map((score) => score.toFixed(3)),
    each.measure, ...others.slice(0, 1).map((unit) => unitButton(colouring, unit)),
  ];
  row.muted = !each.discovery;
  return row;
}

function ablationSection(colouring) {
  if (!data.ablations.length) return;
  const show = (which) => {
    colouring.rise(which);
    goTo("the-text");
  };
  const rows = data.ablations.map((each, i) => [
    unitButton(colouring, each.unit), each.feature,
    ...[each.rise, each.rise_where, each.rise_elsewhere].map((rise) => signed(rise, 3)),
    make("span", {}, ...each.chars.flatMap(({ char, rise }) => [boxed(char), ` ${signed(rise)} `])),
    make("button", { onclick: () => show(i) }, "show"),
  ]);
  const rises = ["rise", "where it holds", "elsewhere"].map((number) => ({ number }));
  section(
    "ablation", "Ablation",
    paragraph(
      "Each discovered unit was held at zero. The table shows the rise of the loss in bits per character: over the " +
        "whole text, where the feature holds (or is above its median) just before the character, and elsewhere. The " +
        "last column shows the characters with the largest total rise.",
    ),
    table(["unit", "feature", ...rises, "characters (mean rise)", ""], rows),
  );
}

// --- gates -------------------------------------------------------------------------------------

const GATE_CHART = 270; // pixels

function gatesSection(colouring) {
  if (!data.gates.length) return;
  const layers = data.gates[0].left.length;
  const legend = Array.from({ length: layers }, (_, i) => {
    const name = make("span", {}, `\u25cf layer ${i + 1} `);
    name.style.color = layerColour(i);
    return name;
  });
  section(
    "gates", "Gates",
    paragraph(
      "Each point is a unit. The axes show at which share of characters its gate is open (right-saturated, above 0.9) " +
        "and shut (left-saturated, below 0.1). Click a point to colour the text by its unit.",
    ),
    ...(layers > 1 ? [paragraph(...legend)] : []),
    make(
      "div", { class: "charts" },
      ...data.gates.map((gate) => gateChart(colouring, gate)),
      ...data.gates.filter((gate) => gate.memory).map(memoryTable),
    ),
  );
}

function gateChart(colouring, gate) {
  const kind = data.units.kinds.some((each) => each.kind === "c") ? "c" : "h";
  const layers = gate.left.map((left, layer) => left.map((share, i) => [gate.right[layer][i], share]));
  const sets = layers.map((points, layer) => ({ points, colour: layerColour(layer) }));
  const chart = scatter(GATE_CHART, sets, "right-saturated, share of characters", "left-saturated, share of characters");
  chart.drawing.addEventListener("click", (event) => {
    const [layer, index] = nearest(event, chart, layers);
    colouring.unit({ kind, layer, index });
    goTo("the-text");
  });
  return make("figure", {}, make("figcaption", {}, `${gate.name} gate`), chart.drawing);
}

function layerColour(layer) {
  return `var(--layer-${layer % 3})`;
}

/** The layer and index of the point nearest to a click. */
function nearest(event, { drawing, x, y }, layers) {
  const box = drawing.getBoundingClientRect(), scale = GATE_CHART / box.width;
  const [left, top] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  let best = [Infinity, 0, 0];
  layers.forEach((points, layer) =>
    points.forEach(([right, share], index) => {
      const distance = Math.hypot(x(right) - left, y(share) - top);
      if (distance < best[0]) best = [distance, layer, index];
    }),
  );
  return best.slice(1);
}

/** The number of units by the memory of their gate, in powers of two of characters. */
function memoryTable(gate) {
  const bins = new Map();
  for (const length of gate.memory.flat()) {
    const low = 2 ** Math.floor(Math.log2(Math.max(1, length)));
    bins.set(low, (bins.get(low) ?? 0) + 1);
  }
  const most = Math.max(...bins.values());
  const lows = [...bins.keys()].sort((a, b) => a - b);
  const rows = lows.map((low) => [`${low} to ${2 * low}`, bins.get(low).toLocaleString("en"), bar(bins.get(low) / most)]);
  return table(["characters", { number: "units" }, ""], rows, `Memory of the ${gate.name} gate, 1 / (1 \u2212 mean)`);
}

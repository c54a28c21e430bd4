// The units that were found, what they are for, and how gates are used.

function foundSection(colouring) {
  const rows = data.search.map((each) => foundRow(colouring, each));
  const some = data.search.filter((each) => each.discovery).length;
  const heads = [
    "what is tracked", "best unit", { number: "score" }, "chance \u2192 perfect", { number: "\u2715 luck" },
    { number: "| last two" }, { number: "\u25b3 untrained" }, "measure", "the next best",
  ];
  const verdict = some
    ? `Tracked: ${some} of ${count(rows.length, "feature")}; the others (grey) are not claimed.`
    : "No unit tracks any feature better than these do, so nothing is claimed.";
  section(
    "found", "Units worth looking at",
    say(
      "Every unit was scored against features of the text. The sign was chosen on the first half, the score is of " +
        "the second: the AUC, or Spearman\u2019s rank correlation for what is a number. A unit has to beat three " +
        "others by a quarter of what they leave to a perfect score: ",
      make("b", {}, "luck"), ", the best of all units on the text\u2019s own features shifted against it; ",
      make("b", {}, "the last two"), " characters, a table that remembers nothing else; and the best unit of ",
      make("b", {}, "untrained"),
      " networks of the same size. A minus marks a unit that is low where the feature is high.",
    ),
    ...(rows.length
      ? [say(verdict), table(heads, rows)]
      : [say("This text is too short, or too plain, for any feature to be scored.")]),
  );
}

function foundRow(colouring, each) {
  const [best, ...others] = each.units;
  const marks = { luck: each.luck, last_characters: each.last_characters, untrained: each.untrained };
  const row = [
    each.feature, unitButton(colouring, best), best.score.toFixed(3),
    dotRow(best.score, marks, each.measure === "AUC" ? 0.5 : 0),
    ...Object.values(marks).map((score) => score.toFixed(3)),
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
    make("button", { onclick: () => show(i) }, "show where"),
  ]);
  const rises = ["rise", "where it holds", "elsewhere"].map((number) => ({ number }));
  section(
    "ablation", "What they are for",
    say(
      "Each unit that was found, held at zero throughout: how much the loss rises, in bits per character, over the " +
        "whole text, on characters before which the feature holds (or is above its median) and on the others, and on " +
        "which characters most.",
    ),
    table(["unit", "tracks", ...rises, "most on (mean rise)", ""], rows),
  );
}

// --- gates -------------------------------------------------------------------------------------

const GATE_CHART = 270; // pixels

function gatesSection(colouring) {
  if (!data.gates.length) return;
  const layers = data.gates[0].left.length;
  const key = Array.from({ length: layers }, (_, i) => {
    const name = make("span", {}, `\u25cf layer ${i + 1} `);
    name.style.color = layerColour(i);
    return name;
  });
  section(
    "gates", "Gates",
    say(
      "Each point is a unit: how much of the time its gate is shut (below 0.1, left-saturated) or open (above 0.9, " +
        "right-saturated). Click one to colour the text by it.",
    ),
    ...(layers > 1 ? [say(...key)] : []),
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
  const chart = scatter(GATE_CHART, sets, "right-saturated, share of time", "left-saturated, share of time");
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

/** How long units hold what they have, in powers of two of characters. */
function memoryTable(gate) {
  const bins = new Map();
  for (const length of gate.memory.flat()) {
    const low = 2 ** Math.floor(Math.log2(Math.max(1, length)));
    bins.set(low, (bins.get(low) ?? 0) + 1);
  }
  const most = Math.max(...bins.values());
  const lows = [...bins.keys()].sort((a, b) => a - b);
  const rows = lows.map((low) => [`${low} to ${2 * low}`, bins.get(low).toLocaleString("en"), bar(bins.get(low) / most)]);
  return table(["characters", { number: "units" }, ""], rows, `Memory by the ${gate.name} gate, 1 / (1 \u2212 mean)`);
}

// What was predicted at a character, and buttons that continue with another character instead.

const ROADS = 5;

/** The details of character i of a take. `branch(id)` continues from there with another character. */
function describeRoads(take, i, valueAt, branch) {
  const record = take.records[i], char = make("bdi", { class: "big char" }, visible(charOf(take.ids[i])));
  const where = make("div", {}, char, ` take ${take.number}, character ${i + 1}`);
  if (!record) return [where, paragraph("The model has not read this character yet.")];
  const named = valueAt(record), values = named ? [make("dt", {}, named[0]), make("dd", { class: "value" }, named[1])] : [];
  if (record.bits < 0) {
    return [where, make("dl", {}, ...values), paragraph("Nothing comes before this character, so it was not predicted.")];
  }
  const others = record.guesses.map((id, k) => [id, record.probabilities[k]]).filter(([id]) => id !== record.id);
  const rows = others.slice(0, ROADS).map(([id, probability]) => {
    const label = `write ${visible(charOf(id))} here instead, probability ${percent(probability, 1)}`;
    const button = make("button", { class: "road", "aria-label": label, onclick: () => branch(id) });
    button.append(make("bdi", {}, visible(charOf(id))));
    return [button, percent(probability, 1), bar(probability)];
  });
  return [
    where,
    make("dl", {},
      make("dt", {}, "surprise"), make("dd", {}, `${record.bits.toFixed(2)} bits`),
      make("dt", {}, "probability"), make("dd", {}, percent(2 ** -record.bits, 1)), ...values),
    make("div", { class: "guesses" },
      table(["", { number: "probability" }, ""], rows, "Instead: click one, or press 1 to 5, to continue with it in a new take")),
  ];
}

// Controls that the pages share: which unit colours the text, and checkboxes.

/** Controls that choose the unit of a colouring. They always show the chosen one. */
function unitControls(colouring, suffix = "") {
  const kinds = data.units.kinds;
  const sizeOf = (kind) => kinds.find((each) => each.kind === kind);
  const choices = kinds.map((each) => make("option", { value: each.kind }, NAMES[each.kind]));
  choices.push(make("option", { value: "bits" }, "surprisal"));
  const kind = make("select", { id: `kind${suffix}`, onchange: () => pick() }, ...choices);
  const layer = make("select", { id: `layer${suffix}`, onchange: () => pick() }, ...options(kinds[0].layers));
  const index = make("input", { id: `index${suffix}`, type: "number", min: 0, value: 0, oninput: () => pick() });
  const arrow = (id, name, sign, by) =>
    make("button", { id: id + suffix, "aria-label": `${name} unit`, onclick: () => step(by) }, sign);
  const back = arrow("previous", "previous", "\u2190", -1), on = arrow("next", "next", "\u2192", 1);

  const fill = () => {
    const { layers } = sizeOf(kind.value);
    if (layer.options.length !== layers) layer.replaceChildren(...options(layers));
  };
  const pick = () => {
    if (kind.value === "bits") return colouring.bits();
    fill();
    return colouring.unit({ kind: kind.value, layer: Number(layer.value), index: Number(index.value) - firstOf(kind.value) });
  };
  const step = (by) => {
    const { size } = sizeOf(kind.value);
    const first = firstOf(kind.value);
    index.value = first + ((Number(index.value) - first + by + size) % size);
    pick();
  };
  colouring.listeners.push(({ unit, name }) => {
    if (unit) {
      kind.value = unit.kind;
      fill();
      layer.value = unit.layer;
      const first = firstOf(unit.kind);
      if (Number(index.value) !== unit.index + first) index.value = unit.index + first;
      index.min = first;
      index.max = sizeOf(unit.kind).size - 1 + first;
    } else if (name === "surprisal") kind.value = "bits";
    for (const control of [layer, index, back, on]) control.disabled = kind.value === "bits";
  });
  return [
    labelled("colour by", kind), labelled("layer", layer),
    make("label", {}, "unit", make("span", { class: "together" }, back, index, on)),
  ];
}

/** A checkbox that calls `onchange(checked)`. */
function check(id, label, onchange) {
  const box = make("input", { type: "checkbox", id });
  box.addEventListener("change", () => onchange(box.checked));
  return make("label", { class: "check" }, box, label);
}

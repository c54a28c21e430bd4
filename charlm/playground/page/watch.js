// Colours the takes: by surprise, or by a unit, a gate or a head while the model writes.

class Watch {
  constructor(desk, legend) {
    Object.assign(this, { desk, legend, unitShown: null, scale: 1 });
    this.listeners = []; // of `unitControls`
  }

  bits() {
    this.unitShown = null;
    amountLegend(this.legend, "Surprise", `${MAX_SURPRISAL} bits or more`);
    this.listeners.forEach((listener) => listener({ name: "surprisal" }));
    this.desk.paint(true);
  }

  /** Colour by a unit. The takes are read again for its values. */
  unit({ kind, layer, index }) {
    const { size, layers } = data.units.kinds.find((each) => each.kind === kind);
    const within = (value, limit) => Math.min(limit - 1, Math.max(0, Math.trunc(value) || 0));
    this.unitShown = { kind, layer: within(layer, layers), index: within(index, size) };
    this.scale = 1;
    this.showLegend();
    this.listeners.forEach((listener) => listener({ unit: this.unitShown }));
    for (const take of this.desk.takes) take.setText(take.ids, true);
  }

  /** Whether the values are from 0 to 1: those of gates and of attention. */
  isAmount() {
    return !["h", "c", "mlp", "x"].includes(this.unitShown.kind);
  }

  showLegend() {
    const name = unitName(this.unitShown);
    if (this.unitShown.kind === "attention") {
      amountLegend(this.legend, `The selected, or else the last character looks back, ${name}:`, "100 % (square-root scale)");
    } else if (this.isAmount()) amountLegend(this.legend, `Value of ${name}`, "1");
    else signedLegend(this.legend, this.scale, `Activation of ${name}`);
  }

  paint(take) {
    const { records } = take, { view } = take;
    if (!this.unitShown) return view.paint((i) => (records[i] ? amount(records[i].bits / MAX_SURPRISAL) : ""));
    if (this.unitShown.kind === "attention") return this.paintAttention(take);
    if (this.isAmount()) return view.paint((i) => (records[i] ? amount(records[i].value) : ""));
    const most = records.reduce((top, record) => Math.max(top, Math.abs(record.value) || 0), 0);
    if (most > this.scale) {
      this.scale = most;
      this.showLegend();
    }
    return view.paint((i) => (records[i] ? shade(records[i].value / this.scale) : ""));
  }

  /** The attention weights from one character to those before it. */
  paintAttention({ records, view }) {
    const { value, start } = records[view.current] ?? records.at(-1) ?? { value: [], start: 0 };
    view.paint((i) => (value[i - start] ? amount(Math.sqrt(value[i - start])) : ""));
  }

  /** The name and the value of the shown unit at a character; null for surprise and attention. */
  valueAt({ value }) {
    if (!this.unitShown || typeof value !== "number") return null;
    return [unitName(this.unitShown), signed(value)];
  }
}

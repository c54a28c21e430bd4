// The settings: their controls, and a link that carries them.

const SPEEDS = [1, 2, 5, 10, 20, 50, 100, 200, Infinity]; // characters a second

class Settings {
  constructor(onchange) {
    const { sample } = data;
    const input = (id, attributes) => make("input", { id, onchange, ...attributes });
    this.prompt = make("textarea", { id: "prompt", rows: 2, dir: "auto", spellcheck: "false", onchange });
    this.prompt.value = Array.from(sample.prompt, editable).join("");
    this.seed = input("seed", { type: "number", min: 0, max: Number.MAX_SAFE_INTEGER, value: 1 });
    this.topK = input("top-k", { type: "number", min: 1, value: sample.topK ?? "", placeholder: "all" });
    this.topP = input("top-p", { type: "number", min: 0, max: 1, step: 0.05, value: sample.topP ?? "", placeholder: "1" });
    this.minP = input("min-p", { type: "number", min: 0, max: 1, step: 0.05, value: sample.minP ?? "", placeholder: "0" });
    this.penalty = input("penalty", { type: "number", min: 0.1, step: 0.1, value: sample.penalty, placeholder: "1" });
    this.speed = input("speed", { type: "range", min: 0, max: SPEEDS.length - 1, value: 4, oninput: () => this.showSpeed() });
    this.speedShown = make("output", { for: "speed" });
    this.showSpeed();
  }

  /** Characters a second. */
  get pace() {
    return SPEEDS[this.speed.value];
  }

  showSpeed() {
    this.speedShown.textContent = this.pace === Infinity ? "as fast as it can" : `${this.pace} characters a second`;
    this.speed.setAttribute("aria-valuetext", this.speedShown.textContent);
  }

  /** How a take draws its characters. Numbers out of range become the nearest in range. */
  of(take) {
    const number = (text, low, high, instead) =>
      text === "" || !Number.isFinite(Number(text)) ? instead : Math.min(high, Math.max(low, Number(text)));
    return {
      temperature: number(take.temperature.value, 0, 10, 1),
      topK: number(this.topK.value, 1, Infinity, null),
      topP: number(this.topP.value, 1e-6, 1, null),
      minP: number(this.minP.value, 0, 1, null),
      penalty: number(this.penalty.value, 1e-6, 1e6, 1),
      seed: Math.trunc(number(this.seed.value, 0, Number.MAX_SAFE_INTEGER, 0)),
    };
  }

  /** The settings as the fragment of a link. */
  fragment(temperatures) {
    const { prompt, seed, topK, topP, minP, penalty, speed } = this;
    const values = { prompt: prompt.value, seed: seed.value, t: temperatures.join(","), speed: speed.value };
    const choice = { top_k: topK.value, top_p: topP.value, min_p: minP.value, repetition_penalty: penalty.value };
    return `#${new URLSearchParams({ ...values, ...choice })}`;
  }

  /** Set what a fragment has; returns its temperatures, or null. */
  read(fragment) {
    const found = new URLSearchParams(fragment.slice(1));
    const names = {
      prompt: "prompt", seed: "seed", top_k: "topK", top_p: "topP", min_p: "minP", repetition_penalty: "penalty", speed: "speed",
    };
    for (const [name, control] of Object.entries(names)) {
      if (!found.has(name)) continue;
      // a link may come from anybody: the prompt is shown as an editor shows it
      const text = Array.from(found.get(name), editable).join("");
      if (name === "prompt" || Number.isFinite(Number(text))) this[control].value = text;
    }
    this.showSpeed();
    const temperatures = (found.get("t") ?? "").split(",").filter((text) => text !== "" && Number.isFinite(Number(text)));
    return temperatures.length ? temperatures.slice(0, MOST_TAKES) : null;
  }

  /** The controls, each with its meaning in one line. */
  elements() {
    const explained = (label, control, meaning, ...more) =>
      make("label", {}, label, control, ...more, make("span", { class: "meaning" }, meaning));
    return [
      explained("speed", this.speed, "", this.speedShown),
      explained("seed", this.seed, "the same seed writes the same text again"),
      explained("top-k", this.topK, "choose among the k likeliest characters only"),
      explained("top-p", this.topP, "choose among the likeliest that have this probability together"),
      explained("min-p", this.minP, "choose among those that are at least this fraction as likely as the likeliest"),
      explained("repetition penalty", this.penalty, "above 1, the last 64 characters become less likely to occur again"),
    ];
  }
}

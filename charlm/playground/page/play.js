// The playground: connects the takes with the worker, and builds the page.

const MOST_TAKES = 6; // side by side
const MOST_CHARS = 20000; // of a take
const AT_ONCE = 1000; // characters that are asked for at full speed

let desk; // the takes and their controls

class Desk {
  constructor(worker) {
    Object.assign(this, { worker, takes: [], made: 0, prompt: null, selected: null, last: 0 });
    this.settings = new Settings(() => this.onSetting());
    this.legend = make("div", { class: "legend", id: "legend" });
    this.watch = new Watch(this, this.legend);
    this.detail = make("div", { class: "detail", id: "detail", role: "status" });
    this.box = make("div", { class: "takes" });
    this.status = make("p", { class: "quiet", id: "status", role: "status" });
    this.playAll = make("button", { id: "play", class: "main", onclick: () => this.onPlay() }, "\u25b6 play");
    worker.addEventListener("message", ({ data: answer }) => this.onAnswer(answer));
  }

  /** Start: with the settings of the link, or of the model. */
  open() {
    const temperatures = this.settings.read(location.hash) ?? [data.sample.temperature];
    for (const temperature of temperatures) this.add(temperature);
    this.watch.bits();
    this.begin();
    this.onSelect(null, -1);
    const tick = (now) => {
      this.tick(now);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  add(temperature, origin) {
    const take = new Take(this, ++this.made, temperature, origin);
    this.takes.push(take);
    this.box.append(take.element);
    return take;
  }

  /** Add a take of the prompt, a little warmer than the last one. */
  addAnother() {
    if (this.takes.length >= MOST_TAKES) return this.say(`There are at most ${MOST_TAKES} takes. Remove one first.`);
    const last = Number(this.takes.at(-1)?.temperature.value ?? 0.6);
    this.add(Math.round(10 * Math.min(10, last + 0.2)) / 10).setText(this.encode(this.settings.prompt.value));
    return this.onSetting();
  }

  remove(take) {
    this.takes.splice(this.takes.indexOf(take), 1);
    this.worker.postMessage({ what: "drop", take: take.number });
    take.element.remove();
    if (this.selected?.take === take) this.onSelect(null, -1);
    this.onSetting();
  }

  /** The ids of a text. Characters that the model does not know are left out, and named. */
  encode(text) {
    const { unit, limited } = data.about;
    if (unit === "byte") return Array.from(new TextEncoder().encode(text));
    const found = Array.from(text, (char) => this.ids.get(char) ?? (limited ? this.ids.get("\ufffd") : undefined));
    const unknown = [...new Set(Array.from(text).filter((_, i) => found[i] === undefined))];
    const names = unknown.slice(0, 10).map(visible).join(" ");
    this.say(unknown.length ? `Left out, as the model never saw them: ${names}${unknown.length > 10 ? " \u2026" : ""}` : "");
    return found.filter((id) => id !== undefined);
  }

  get ids() {
    const ids = new Map(data.about.vocab.map((code, id) => [String.fromCodePoint(code), id]));
    Object.defineProperty(this, "ids", { value: ids });
    return ids;
  }

  /** Begin all takes again with the prompt. */
  begin() {
    this.prompt = this.settings.prompt.value;
    const ids = this.encode(this.prompt);
    for (const take of this.takes) {
      take.setText([]);
      take.leads = !ids.length;
      take.setText(ids);
      take.view.give(ids.length);
    }
  }

  onPlay() {
    const playing = this.takes.some((take) => take.playing);
    if (!playing && this.settings.prompt.value !== this.prompt) this.begin();
    this.play(this.takes, !playing);
  }

  play(takes, playing) {
    for (const take of takes) {
      if (playing && !take.editor.hidden) take.onEdit();
      Object.assign(take, { playing: playing && take.ids.length < MOST_CHARS, credit: 0 });
    }
    this.showPlaying();
  }

  showPlaying() {
    for (const take of this.takes) take.toggle.textContent = take.playing ? "pause" : "play";
    this.playAll.textContent = this.takes.some((take) => take.playing) ? "\u23f8 pause" : "\u25b6 play";
  }

  step(takes) {
    if (this.settings.prompt.value !== this.prompt) this.begin();
    this.play(takes, false);
    for (const take of takes) take.credit = 1;
  }

  /** At each frame: ask for the characters that are due, and colour what is new. */
  tick(now) {
    const seconds = Math.min(0.25, (now - this.last) / 1000), { pace } = this.settings;
    this.last = now;
    for (const take of this.takes) {
      if (take.playing) take.credit = pace === Infinity ? AT_ONCE : Math.min(take.credit + seconds * pace, pace + 1);
      this.ask(take);
    }
    this.paint();
  }

  ask(take) {
    const count = Math.min(Math.floor(take.credit), MOST_CHARS - take.ids.length);
    if (take.asked || (!take.unread && count < 1)) return;
    take.asked = true;
    this.worker.postMessage({
      what: "go", take: take.number, count: Math.max(0, count), settings: this.settings.of(take), watch: this.watch.unitShown,
    });
  }

  onAnswer(answer) {
    const take = this.takes.find((each) => each.number === answer.take);
    if (!take) return;
    take.asked = false;
    if (answer.version !== take.version) return;
    take.receive(answer);
    if (take.ids.length >= MOST_CHARS) this.play([take], false);
    if (take.playing && this.settings.pace === Infinity) {
      take.credit = AT_ONCE;
      this.ask(take);
    }
  }

  paint(all = false) {
    for (const take of this.takes) {
      if (!take.dirty && !all) continue;
      take.dirty = false;
      this.watch.paint(take);
      const bits = take.records.reduce((sum, record) => sum + Math.max(0, record.bits), 0);
      const mean = take.records.length ? `, ${(bits / take.records.length).toFixed(2)} bits of surprise each` : "";
      take.count.textContent = count(take.ids.length, "character") + mean;
    }
    this.describe();
  }

  onSelect(take, position) {
    const others = position < 0 ? [] : this.takes.filter((other) => other !== take && other.view.current >= 0);
    for (const other of others) other.view.leave();
    this.selected = position < 0 ? null : { take, position, shown: false };
    if (take) take.dirty = true;
    this.describe();
  }

  /** Show the details of the selected character, if they changed. */
  describe() {
    const { selected } = this;
    if (!selected) {
      const how = "Point at a character, or go to one with the arrow keys, to see what else could have stood there.";
      if (this.described !== null) this.detail.replaceChildren(paragraph(how));
      this.described = null;
      return;
    }
    const { take, position } = selected, record = take.records[position];
    if (this.described === record && record && selected.shown) return;
    selected.shown = true;
    this.described = record;
    const branch = (id) => this.branch(take, position, id);
    this.detail.replaceChildren(...describeRoads(take, position, (each) => this.watch.valueAt(each), branch));
  }

  /** Continue from a character of a take with another one. With no room for a new take, this one is changed. */
  branch(take, position, id) {
    const ids = [...take.ids.slice(0, position), id], origin = `from take ${take.number}, character ${position + 1}`;
    this.play([take], false);
    const room = this.takes.length < MOST_TAKES;
    const target = room ? this.add(take.temperature.value, origin) : take;
    target.leads = take.leads;
    target.setText(ids);
    target.element.scrollIntoView({ block: "nearest" });
    target.view.select(position);
    target.view.pinned = true;
    this.play([target], true);
    this.say(`Take ${target.number} continues with ${visible(charOf(id))}.`);
    this.onSetting();
  }

  onSetting() {
    history.replaceState(null, "", this.settings.fragment(this.takes.map((take) => take.temperature.value)));
  }

  async copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      this.say(`Copied ${what}.`);
    } catch {
      this.say(`This browser does not allow to copy ${what}. Select it, and copy it by hand.`);
    }
  }

  say(text) {
    this.status.textContent = text;
  }
}

/** How the weights were rounded, and what that costs. */
function weightsLine() {
  const { format, losses, reason } = data.weights;
  if (!losses) return `The weights are in ${format}. What that costs: ${reason}.`;
  return (
    `The weights are in ${format}. On ${count(losses.chars, "character")} of the validation text the loss is ` +
    `${losses.rounded.toFixed(4)} nats per character. Rounding the weights changed it by ${signed(losses.cost, 5)}.`
  );
}

function folded(summary, content) {
  return make("details", { open: innerWidth > 800 }, make("summary", {}, summary), content);
}

function writeSection() {
  const button = (id, name, onclick) => make("button", { id, onclick }, name);
  section(
    "write", "Write with the model",
    make("label", { class: "wide-label" }, "prompt: the model continues this text", desk.settings.prompt),
    make("div", { class: "controls" },
      desk.playAll, button("step", "step", () => desk.step(desk.takes)), button("again", "start over", () => desk.begin()),
      button("add", "add a take", () => desk.addAnother()),
      button("link", "copy a link", () => desk.copy(location.href, "a link with the prompt, the seed and the settings"))),
    desk.status,
    folded("speed, seed and choice", make("div", { class: "controls explained" }, ...desk.settings.elements())),
    folded("watch it think: colour the text by a part of the network",
      make("div", { class: "controls" }, ...unitControls(desk.watch))),
    desk.legend, make("div", { class: "beside" }, desk.box, desk.detail),
    make("p", { class: "quiet" },
      "Temperature: how freely the model chooses. 0 always takes the likeliest character, 1 follows its probabilities, and " +
        "more is wilder. Surprise: how unlikely a character was to the model, in bits. 1 bit is a probability of 1/2, 3 " +
        "bits are 1/8."),
  );
}

/** Show that the model does not work, and why. What was written stays. */
function fail(reason) {
  const text = `The model does not work: ${readable(reason)}. Reload the page to start it again.`;
  document.getElementById("loading")?.remove();
  document.getElementById("main").prepend(make("p", { id: "failure", role: "alert" }, text));
}

/** The arrays of the page by name. `onprogress(share)` is called after each. */
async function unpackAll(names, onprogress) {
  const arrays = {}, sizeOf = (name) => document.getElementById(`array-${name}`).textContent.length;
  const sizes = names.map(sizeOf), total = sizes.reduce((sum, size) => sum + size, 0);
  let done = 0;
  for (const [i, name] of names.entries()) {
    arrays[name] = await unpack(name);
    onprogress((done += sizes[i]) / total);
  }
  return arrays;
}

function startWorker() {
  const code = document.getElementById("worker").textContent;
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  worker.addEventListener("error", ({ message }) => fail(message ?? "the browser has started no worker"));
  return worker;
}

/** Build the page around a model that is ready. */
function showModel(worker) {
  const kinds = data.units.kinds.map((each) => each.kind);
  document.getElementById("loading").remove();
  desk = new Desk(worker);
  writeSection();
  const gates = kinds.filter((kind) => ["input", "forget", "output", "reset", "update"].includes(kind));
  const words = [...unitWords(kinds, gates, kinds.includes("attention")), "bit", "surprisal (surprise)", "parameter"];
  section("words", "The words of this page", wordList(words));
  section("weights", "The weights", paragraph(weightsLine()));
  addEventListener("hashchange", () => location.reload()); // another link to this page
  desk.open();
  document.documentElement.dataset.ready = "yes";
  performance.mark("ready");
}

async function main() {
  const { about, config, weights } = data;
  document.getElementById("name").textContent = about.name;
  document.getElementById("about").textContent =
    `${about.model}, ${count(about.parameters, "parameter")}, step ${about.step.toLocaleString("en")}, trained on ` +
    `${about.source}. The model is in this page and computes on your device. Nothing is sent.`;
  const loading = make("p", { id: "loading", class: "quiet", role: "status" }, "Loading the model \u2026");
  document.getElementById("main").append(loading);
  const worker = startWorker(), { values: code } = await unpack("code");
  const all = await unpackAll(weights.names, (share) => (loading.textContent = `Loading the model: ${percent(share)}`));
  const names = weights.names.filter((name) => !name.endsWith(".scales"));
  const arrays = Object.fromEntries(names.map((name) => [name, { ...all[name], scales: all[`${name}.scales`]?.values }]));
  worker.addEventListener("message", () => showModel(worker), { once: true });
  worker.postMessage({ what: "open", config, size: about.vocab.length, code, arrays });
}

main().catch((error) => fail(error.message));

// The Web Worker: it has the network, and reads and continues the texts of the takes.

const MARK_EVERY = 64; // characters between two saved states of a network without a context
const GUESSES = 6; // the likeliest characters of each position: five others than the one that was taken
const PIECE_MS = 50; // after this time an answer is sent, also if it is not complete: the page is drawn that often

/** The start of the window of the last of n characters: the rule of charlm/evaluation/windows.py. */
function windowStart(n, context) {
  const stride = context - Math.floor(context / 2);
  return Math.ceil(Math.max(0, n - context) / stride) * stride;
}

/** A text that is read and continued, with its own state of the network. */
class Take {
  constructor(number, network) {
    Object.assign(this, { number, network, ids: [], read: 0, lead: 0, version: 0, start: 0, marks: [] });
  }

  /** Set the text. What it has in common with the text before is not read again, except if `again`. */
  setText({ ids, lead, version, again }) {
    let same = 0;
    while (!again && same < this.read && same < ids.length && ids[same] === this.ids[same]) same++;
    Object.assign(this, { lead, version, ids: Array.from(ids) });
    if (same < this.read) this.rewind(same);
  }

  /** Go back to the state after the first `length` characters. */
  rewind(length) {
    const { context } = this.network;
    this.read = 0;
    if (context === null) {
      // at least the last character is read again, for its logits
      this.marks.length = Math.min(this.marks.length, Math.floor(Math.max(0, length - 1) / MARK_EVERY));
      if (this.marks.length) this.network.restore(this.marks.at(-1));
      else this.network.restart();
      this.read = this.marks.length * MARK_EVERY;
    } else if (length && windowStart(length, context) === this.start) {
      // the last character is read again, for its logits
      this.network.truncate(length - 1 - this.start);
      this.read = length - 1;
    } else {
      this.network.restart();
      this.start = length ? windowStart(length, context) : 0;
      this.read = this.start;
    }
    while (this.read < length) this.next();
  }

  /** Read the next character of the text. */
  next() {
    const { context } = this.network;
    if (context !== null) {
      const start = windowStart(this.read + 1, context);
      if (start > this.start) {
        this.network.restart();
        for (let t = start; t < this.read; t++) this.network.step(this.ids[t]);
        this.start = start;
      }
    }
    this.network.step(this.ids[this.read++]);
    if (context === null && this.read % MARK_EVERY === 0) this.marks.push(this.network.save());
  }

  /** Read what is not read yet, then write up to `count` characters. Returns what is new since the last answer. */
  go({ count, settings, watch }) {
    const first = this.read - this.lead, records = [], until = performance.now() + PIECE_MS;
    const p = new Float64Array(this.network.V);
    while ((this.read < this.ids.length || count-- > 0) && performance.now() < until) {
      const record = { id: 0, bits: -1, guesses: [], probabilities: [] }, { logits } = this.network;
      if (this.read === this.ids.length) {
        this.ids.push(draw(logits, settings, uniform(settings.seed, this.number, this.read - this.lead), this.ids));
      }
      record.id = this.ids[this.read];
      if (this.read) {
        softmax(logits, p);
        record.bits = -Math.log2(p[record.id]);
        record.guesses = likeliest(logits, GUESSES);
        record.probabilities = record.guesses.map((id) => p[id]);
      }
      this.next();
      if (watch) record.value = this.network.value(watch);
      if (watch?.kind === "attention") record.start = this.start - this.lead;
      records.push(record);
    }
    if (first < 0 && records.length) records.shift(); // the line end before a text without a prompt is not shown
    const { number: take, version } = this, unread = this.ids.length - this.read;
    return { take, version, first: Math.max(0, first), records, unread };
  }
}

/** A network of the settings, from a fresh state. */
function networkOf(config, size, weights) {
  const Network = { gpt: GPT, mlp: MLP }[config.kind] ?? Recurrent;
  return new Network(config, size, weights);
}

const takes = new Map();
let makeNetwork;

const ANSWERS = {
  open({ config, size, code, arrays }) {
    const shapes = Object.values(arrays).map(({ shape }) => shape), weights = {};
    startWasm(code, shapes.filter((shape) => shape.length === 2));
    for (const [name, { values, shape, scales }] of Object.entries(arrays)) {
      weights[name] = decoded(values, scales);
      if (shape.length === 2) weights[name] = placed(weights[name]);
    }
    makeNetwork = () => networkOf(config, size, weights);
    return { ready: true };
  },
  text(message) {
    if (!takes.has(message.take)) takes.set(message.take, new Take(message.take, makeNetwork()));
    takes.get(message.take).setText(message);
  },
  go(message) {
    return takes.get(message.take).go(message);
  },
  drop({ take }) {
    takes.delete(take);
  },
};

onmessage = ({ data }) => {
  const answer = ANSWERS[data.what](data);
  if (answer) postMessage(answer);
};

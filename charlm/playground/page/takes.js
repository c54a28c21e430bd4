// A take: a text that the model continues. Its view, its buttons, and what was predicted at each character.

/** A text that grows. A click keeps a character selected until the next click, or until Escape. */
class PlayView extends TextView {
  constructor(label, onselect) {
    super([], label, onselect);
    this.pinned = false;
  }

  onPointer(event) {
    const onText = positionOf(event.target) !== undefined;
    if (event.type === "click") this.pinned = onText;
    else if (this.pinned) return;
    if (onText) super.onPointer(event);
  }

  onKey(event) {
    if (event.key === "Escape") this.leave();
    else if (event.key >= "1" && event.key <= "9") document.querySelectorAll("#detail .road")[event.key - 1]?.click();
    else super.onKey(event);
  }

  /** Select nothing. */
  leave() {
    const before = this.current;
    this.pinned = false;
    this.current = -1;
    if (before >= 0) this.setClass(before);
    this.onselect(-1);
  }

  /** Mark the first `length` characters as given, and not written by the model. */
  give(length) {
    for (let i = 0; i < length; i++) {
      this.baseClasses[i] = `${this.baseClasses[i]} given`.trim();
      this.setClass(i);
    }
  }

  /** Scroll to the end, if the end was in view before the last `added` characters. */
  follow(change) {
    const box = this.element, atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
    change();
    if (atEnd) box.scrollTop = box.scrollHeight;
  }
}

class Take {
  constructor(desk, number, temperature, origin = "") {
    Object.assign(this, { desk, number, ids: [], records: [], version: 0, credit: 0 });
    Object.assign(this, { playing: false, asked: false, unread: false, dirty: true });
    this.leads = false; // whether a line end that is not shown comes first, as charlm sample does without a prompt
    this.view = new PlayView(`Take ${number}`, (position) => desk.onSelect(this, position));
    this.temperature = make("input", {
      id: `temperature-${number}`, type: "number", min: 0, max: 10, step: 0.1, value: temperature, class: "temperature",
      onchange: () => desk.onSetting(),
    });
    this.count = make("span", { class: "quiet count" });
    this.editor = make("textarea", { class: "editor", hidden: true, "aria-label": `Text of take ${number}`, dir: "auto" });
    const button = (name, onclick) => make("button", { onclick }, name);
    this.toggle = button("play", () => desk.play([this], !this.playing));
    this.edit = button("edit", () => this.onEdit());
    this.element = make(
      "article", { class: "take", "aria-label": `Take ${number}` },
      make("div", { class: "controls" },
        make("strong", {}, `take ${number}`), labelled("temperature", this.temperature), this.toggle,
        button("step", () => desk.step([this])), this.edit, button("copy", () => desk.copy(this.text(), "the text")),
        button("download", () => this.download()), button("remove", () => desk.remove(this))),
      ...(origin ? [make("p", { class: "quiet" }, origin)] : []),
      this.view.element, this.editor, this.count,
    );
  }

  /** Set the text. What was known of the characters that stay is kept, except if `again`. */
  setText(ids, again = false) {
    let same = 0;
    while (same < this.ids.length && same < ids.length && ids[same] === this.ids[same]) same++;
    this.version++;
    this.records.length = again ? 0 : Math.min(same, this.records.length);
    this.ids = ids.slice();
    this.view.truncate(same);
    this.view.append(ids.slice(same).map(charOf));
    Object.assign(this, { unread: true, dirty: true, credit: 0 });
    if (!ids.length) this.leads = true;
    const lead = this.leads ? [data.about.beginning] : [];
    const message = { what: "text", take: this.number, ids: [...lead, ...ids], lead: lead.length, version: this.version };
    this.desk.worker.postMessage({ ...message, again });
    const { selected } = this.desk;
    if (selected?.take === this && selected.position >= ids.length) this.desk.onSelect(null, -1);
  }

  /** Take in what the worker has read and written. */
  receive({ first, records, unread }) {
    const before = this.ids.length;
    records.forEach((record, i) => {
      if (first + i === this.ids.length) this.ids.push(record.id);
      this.records[first + i] = record;
    });
    const added = this.ids.slice(before).map(charOf);
    this.credit = Math.max(0, this.credit - added.length);
    this.unread = unread > 0;
    this.dirty = true;
    if (added.length) this.view.follow(() => this.view.append(added));
  }

  text() {
    if (data.about.unit === "byte") return new TextDecoder().decode(Uint8Array.from(this.ids));
    return this.ids.map(charOf).join("");
  }

  /** Edit the text, or take over the edited one. Characters that were not touched keep their ids. */
  onEdit() {
    const editing = this.editor.hidden, shown = () => this.ids.map(editableOf);
    if (editing) {
      this.desk.play([this], false);
      this.editor.value = shown().join("");
    } else {
      const before = shown(), after = Array.from(this.editor.value);
      let head = 0, tail = 0;
      while (head < Math.min(before.length, after.length) && before[head] === after[head]) head++;
      const most = Math.min(before.length, after.length) - head;
      while (tail < most && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
      const middle = this.desk.encode(after.slice(head, after.length - tail).join(""));
      this.setText([...this.ids.slice(0, head), ...middle, ...this.ids.slice(this.ids.length - tail)]);
    }
    this.editor.hidden = !editing;
    this.view.element.hidden = editing;
    this.edit.textContent = editing ? "done" : "edit";
    if (editing) this.editor.focus();
  }

  download() {
    const href = URL.createObjectURL(new Blob([this.text()], { type: "text/plain" }));
    make("a", { href, download: `take-${this.number}.txt` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  }
}

function charOf(id) {
  return String.fromCodePoint(data.about.vocab[id]);
}

/** A character in an editor: itself, or a sign for one that is not visible and could change what is around it. */
function editable(char) {
  return char === "\n" || char === "\t" || !INVISIBLE.test(char) ? char : "\ufffd";
}

/** A character of the model in an editor; a byte that is not ASCII is no character of its own. */
function editableOf(id) {
  const char = charOf(id);
  return data.about.unit === "byte" && char > "\x7f" ? "\ufffd" : editable(char);
}

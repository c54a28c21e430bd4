// The units that are on in a selected stretch of the text, and where else they are on, as in LSTMVis (Strobelt et al.
// 2018). A unit is on where its colour is strong: at least half of the full colour, on one side of zero.

const STRONG = 0.5; // of a unit's full colour
const MAX_UNITS = 8, MAX_PLACES = 8; // in the tables
const USED = 5; // units that the other places are searched for,
const MOST_SHARE = 0.5; // if they are not on in most other stretches, too
const MOST_SHOWN = 60; // characters of the stretch
const EXAMPLE = 6; // characters that are selected at first, at most

/**
 * The units that are on at every character from `first` to `last`, best first: those that are on in the fewest other
 * windows of this length. Windows that overlap the stretch do not count.
 *
 * Returns the units {unit, sign, share}, and `expected`, the mean number of units that are on in such a window.
 */
function unitsOn(colouring, first, last) {
  const length = last - first + 1, found = [];
  let expected = 0;
  for (const [kind, layer, index] of data.units.rows) {
    const unit = { kind, layer, index };
    for (const sign of [1, -1]) {
      const on = whereOn(colouring, unit, sign);
      const share = shareOfWindows(on, first, length);
      expected += share;
      if (on.subarray(first, last + 1).every(Boolean)) found.push({ unit, sign, share });
    }
  }
  found.sort((a, b) => a.share - b.share);
  return { found, expected };
}

/** 1 at each of the N characters where a unit is on, on the side `sign` of zero. */
function whereOn(colouring, unit, sign) {
  const row = colouring.rowOf(unit), { levels, scales, shown } = data.units;
  const least = (STRONG * shown[row] * levels) / scales[row]; // in steps
  const values = colouring.values(unit), on = new Uint8Array(values.length);
  for (let i = 0; i < on.length; i++) on[i] = values[i] * sign >= least && values[i] !== 0;
  return on;
}

/** The share of the windows beside the stretch that are on throughout; 0 if there is no such window. */
function shareOfWindows(on, first, length) {
  let windows = 0, whole = 0, run = 0;
  for (let i = 0; i < on.length; i++) {
    run = on[i] ? run + 1 : 0;
    const start = i - length + 1;
    if (start < 0 || !isBeside(start, first, length)) continue;
    windows++;
    if (run >= length) whole++;
  }
  return windows ? whole / windows : 0;
}

/** Whether two windows of the same length do not overlap. */
function isBeside(start, other, length) {
  return Math.abs(start - other) >= length;
}

/** The windows in which the most of these units are on, best first; no two overlap, and none overlaps the stretch. */
function otherPlaces(colouring, units, first, last) {
  const length = last - first + 1;
  const counts = countOn(colouring, units);
  const sums = [];
  let sum = 0;
  for (let i = 0; i < counts.length; i++) {
    sum += counts[i] - (i >= length ? counts[i - length] : 0);
    if (i >= length - 1) sums.push([sum, i - length + 1]);
  }
  const places = [];
  for (const [sum, start] of sums.sort(([a, i], [b, j]) => b - a || i - j)) {
    if (places.length === MAX_PLACES || !sum) break;
    if ([first, ...places.map((place) => place.start)].every((other) => isBeside(start, other, length))) {
      places.push({ start, share: sum / (length * units.length) });
    }
  }
  return places;
}

/** How many of the units are on at each character. */
function countOn(colouring, units) {
  const counts = new Uint8Array(colouring.view.chars.length);
  for (const { unit, sign } of units) whereOn(colouring, unit, sign).forEach((on, i) => (counts[i] += on));
  return counts;
}

function stretchSection(colouring) {
  const { view } = colouring, result = make("div", { id: "stretch-result", role: "status" });
  const show = () => {
    const [first, last] = view.stretch;
    result.replaceChildren(...describeStretch(colouring, first, last));
  };
  let timer = 0;
  document.addEventListener("selectionchange", () => {
    const stretch = selectedStretch(view);
    if (!stretch) return;
    view.pick(...stretch);
    clearTimeout(timer);
    timer = setTimeout(show, 200); // milliseconds: not at every step of the pointer
  });
  section(
    "stretch", "Units that are on in a stretch of the text",
    paragraph(
      "Select a stretch of the text above: drag with the pointer, or hold Shift and press the arrow keys. Here you " +
        "then see which units are on at all of its characters, and where else the same units are on. A unit is on " +
        "where its colour is at least half of the full colour, all above or all below 0 (\u2212).",
    ),
    result,
  );
  view.pick(...exampleStretch(colouring));
  show();
}

/** A stretch at which some units are on, as an example; of EXAMPLE characters, or fewer. */
function exampleStretch(colouring) {
  const N = colouring.view.chars.length, first = Math.max(0, Math.min(40, N - EXAMPLE));
  for (let last = Math.min(N, first + EXAMPLE) - 1; last > first; last--) {
    if (unitsOn(colouring, first, last).found.length) return [first, last];
  }
  return [first, first];
}

/** The first and last position of the browser's selection in a text; null if there is none. */
function selectedStretch({ element }) {
  const selection = getSelection();
  if (selection.isCollapsed || ![selection.anchorNode, selection.focusNode].every((node) => element.contains(node))) return null;
  const { startContainer, startOffset, endContainer, endOffset } = selection.getRangeAt(0);
  const from = positionOf(startContainer), to = positionOf(endContainer);
  if (from === undefined || to === undefined) return null;
  // a point behind a character does not select it, nor does a point before one
  const first = from + (startOffset > 0 ? 1 : 0), last = to - (endOffset > 0 ? 0 : 1);
  return first <= last ? [first, last] : null;
}

function describeStretch(colouring, first, last) {
  const { chars } = colouring.view;
  const { found, expected } = unitsOn(colouring, first, last);
  const end = last - first < MOST_SHOWN ? "" : "\u2026", shown = chars.slice(first, last + 1).slice(0, MOST_SHOWN);
  const text = make("bdi", { class: "char long" }, onOneLine(shown) + end);
  const numbers =
    `: ${count(last - first + 1, "character")} from position ${first + 1}. ${count(found.length, "unit")} on throughout; ` +
    `in another stretch of this length, ${expected.toFixed(1)} on average.`;
  const heading = paragraph(text, numbers);
  if (!found.length) return [heading, paragraph("Select a shorter stretch to find units.")];
  const units = found.slice(0, MAX_UNITS).map((each) => [
    unitButton(colouring, { ...each.unit, sign: each.sign }), percent(each.share, 1), bar(each.share),
  ]);
  const heads = ["unit", { number: "on in other stretches" }, ""];
  const used = found.slice(0, USED).filter((each) => each.share < MOST_SHARE);
  return [
    heading,
    make(
      "div", { class: "charts" },
      table(heads, units, "On in the whole stretch, most specific first"),
      ...(used.length ? [placesTable(colouring, used, first, last)] : []),
    ),
  ];
}

function placesTable(colouring, used, first, last) {
  const { view } = colouring;
  const show = (start) => {
    goTo("the-text");
    view.reveal(start);
  };
  const colour = () => {
    colouring.on(used);
    goTo("the-text");
  };
  const rows = otherPlaces(colouring, used, first, last).map(({ start, share }) => [
    make("bdi", { class: "char long" }, around(view.chars, start, start + last - first)), percent(share), bar(share),
    make("button", { onclick: () => show(start) }, "show"),
  ]);
  const title = used.length === 1 ? "Where else the first of these is on" : `Where else the first ${used.length} of these are on`;
  return make(
    "div", {}, table(["place", { number: "on" }, "", ""], rows, title),
    paragraph(make("button", { onclick: colour }, "colour the text by the number of these that are on")),
  );
}

/** A window of the text with some characters around it, on one line; the window itself is underlined. */
function around(chars, first, last) {
  const part = (from, to) => onOneLine(chars.slice(Math.max(0, from), to));
  return make("span", {}, part(first - 8, first), make("mark", {}, part(first, last + 1)), part(last + 1, last + 9));
}

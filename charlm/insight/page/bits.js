// Where the bits go, and how the text grew.

function bitsSection(colouring) {
  const groups = data.bits;
  const show = (place) => {
    colouring.bits();
    goTo("the-text");
    colouring.view.go(place);
  };
  const passages = data.worst_passages.map(({ start, stop, bits }) => [
    make("bdi", { class: "char" }, onOneLine(state.chars.slice(start, stop))),
    bits.toFixed(2),
    make("button", { onclick: () => show(start) }, "show"),
  ]);
  section(
    "bits", "Where the bits go",
    say(
      `${data.bits_per_char.toFixed(4)} bits per character on this text. A character that costs 1 bit was given an ` +
        "even chance, one that costs 3 a chance of 1 in 8. ",
      make("button", { onclick: () => show(Math.max(0, colouring.view.here)) }, "colour the text by surprisal"),
    ),
    make("div", { class: "charts" },
      groupTable("By the character that comes", "class", groups.class),
      groupTable("By its place in the word", "letter", groups["position in word"]),
      groupTable("By its place in the line", "place", groups["position in line"]),
      groupTable("By how long ago it was last seen", "characters ago", groups.distance)),
    make("h3", {}, "The worst predicted passages"), table(["passage", { number: "bits/char" }, ""], passages),
    ...ngrams(),
  );
}

function onOneLine(chars) {
  return chars.map((char) => (char === " " ? char : visible(char))).join("");
}

function ngrams() {
  const title = make("h3", {}, "Beside n-gram models");
  if (!data.ngrams.length) return [title, say(`There are none here: ${data.about.ngram_text}.`)];
  const rows = data.ngrams.map((each) => [
    `${each.order}`, each.bits.toFixed(3), percent(each.avoided, 1), bar(each.avoided),
    percent(each.avoided_by_any, 1), percent(each.bits_avoided, 1),
  ]);
  const heads = [
    "characters it sees", { number: "its bits/char" }, { number: "errors avoided" }, "",
    { number: "by it or a shorter one" }, { number: "bits on those errors" },
  ];
  const caption = `n-gram models (interpolated Witten-Bell) of ${data.about.ngram_text}`;
  return [
    title,
    say(
      "A character is an error where the network gives it less than an even chance. An n-gram model would have " +
        "avoided it where that gives it more than an even chance.",
    ),
    table(heads, rows, caption),
  ];
}

function growthSection() {
  const { samples, losses } = data.growth;
  const made = section("growth", "How the text grew");
  if (!samples.length && !losses.train.length && !losses.val.length) {
    made.append(
      say("There are no samples and no losses (samples.txt, metrics.jsonl) beside this checkpoint."),
    );
    return;
  }
  const chart = make("div");
  const sample = make("pre", { class: "sample", id: "sample", dir: "auto" });
  const step = make("output", { id: "sample-step" });
  const slider = make("input", {
    id: "sample-slider", type: "range", min: 0, max: Math.max(0, samples.length - 1), value: 0,
    "aria-label": "which sample", oninput: () => draw(),
  });
  const draw = () => {
    const now = samples[slider.value];
    if (now) {
      sample.textContent = readable(now.text);
      step.textContent = `step ${now.step.toLocaleString("en")}`;
      slider.setAttribute("aria-valuetext", step.textContent);
    }
    chart.replaceChildren(...lossChart(made, losses, now));
  };
  made.append(
    say(
      samples.length
        ? "What the network wrote while it was trained; slide to go through the steps."
        : "This run wrote no samples; here are its losses.",
    ),
    chart, ...(samples.length ? [step, slider, sample] : []),
  );
  draw();
  addEventListener("resize", draw);
}

function lossChart(box, losses, now) {
  const series = [
    { name: "training", points: losses.train, colour: "var(--layer-0)" },
    { name: "validation", points: losses.val, colour: "var(--layer-1)", dash: "6 4" },
  ].filter((each) => each.points.length);
  if (!series.length) return [];
  const width = Math.min(760, box.clientWidth), height = 250;
  const { drawing, x } = lines(width, height, series, "steps of training", "loss, nats per character");
  if (now) {
    const at = x(now.step);
    drawing.append(svg("line", { class: "axis", x1: at, x2: at, y1: 10, y2: height - 40, "stroke-width": 2 }));
  }
  const key = series.map((each) => {
    const name = make("span", {}, `${each.dash ? "\u2505" : "\u2501"} ${each.name} `);
    name.style.color = each.colour;
    return name;
  });
  return [make("p", {}, ...key), drawing];
}

// Where the bits go, and the samples and losses of the run.

function bitsSection(colouring) {
  const groups = data.bits;
  const show = (position) => {
    colouring.bits();
    goTo("the-text");
    colouring.view.reveal(position);
  };
  const passages = data.worst_passages.map(({ start, stop, bits }) => [
    make("bdi", { class: "char long" }, onOneLine(state.chars.slice(start, stop))),
    bits.toFixed(2),
    make("button", { onclick: () => show(start) }, "show"),
  ]);
  section(
    "bits", "Where the bits go",
    paragraph(
      `The loss is ${data.bits_per_char.toFixed(4)} bits per character on this text. A character costs 1 bit if the ` +
        "network gave it a probability of 1/2, and 3 bits if the probability was 1/8. ",
      make("button", { onclick: () => show(Math.max(0, colouring.view.current)) }, "colour the text by surprisal"),
    ),
    make("div", { class: "charts" },
      groupTable("By class of the character", "class", groups.class),
      groupTable("By position in the word", "position", groups["position in word"]),
      groupTable("By position in the line", "position", groups["position in line"]),
      groupTable("By distance to the last occurrence", "characters back", groups.distance)),
    make("h3", {}, "Passages with the highest loss"), table(["passage", { number: "bits/char" }, ""], passages),
    ...ngrams(),
  );
}

function onOneLine(chars) {
  return chars.map((char) => (char === " " ? char : visible(char))).join("");
}

function ngrams() {
  const title = make("h3", {}, "Comparison with n-gram models");
  if (!data.ngrams.length) return [title, paragraph(`There are no n-gram models: ${data.about.ngram_text}.`)];
  const rows = data.ngrams.map((each) => [
    `${each.order}`, each.bits.toFixed(3), percent(each.avoided, 1), bar(each.avoided),
    percent(each.avoided_by_any, 1), percent(each.bits_avoided, 1),
  ]);
  const heads = [
    "order", { number: "bits/char" }, { number: "errors avoided" }, "",
    { number: "with lower orders" }, { number: "bits on these errors" },
  ];
  const caption = `n-gram models (interpolated Witten-Bell) of ${data.about.ngram_text}`;
  return [
    title,
    paragraph(
      "A character is an error if the network gives it a probability below 1/2. An n-gram model avoids the error if " +
        "it gives a probability above 1/2. A model of order n uses the last n characters.",
    ),
    table(heads, rows, caption),
  ];
}

function growthSection() {
  const { samples, losses } = data.growth;
  const element = section("growth", "Training progress");
  if (!samples.length && !losses.train.length && !losses.val.length) {
    element.append(
      paragraph("The folder of this checkpoint has no samples (samples.txt) and no losses (metrics.jsonl)."),
    );
    return;
  }
  const chart = make("div");
  const text = make("pre", { class: "sample", id: "sample", dir: "auto" });
  const step = make("output", { id: "sample-step" });
  const slider = make("input", {
    id: "sample-slider", type: "range", min: 0, max: Math.max(0, samples.length - 1), value: 0,
    "aria-label": "sample", oninput: () => draw(),
  });
  const draw = () => {
    const sample = samples[slider.value];
    if (sample) {
      text.textContent = readable(sample.text);
      step.textContent = `step ${sample.step.toLocaleString("en")}`;
      slider.setAttribute("aria-valuetext", step.textContent);
    }
    chart.replaceChildren(...lossChart(element, losses, sample));
  };
  element.append(
    paragraph(
      samples.length
        ? "Samples from the network during training. Move the slider to change the step."
        : "This run has no samples. The chart shows its losses.",
    ),
    chart, ...(samples.length ? [step, slider, text] : []),
  );
  draw();
  addEventListener("resize", draw);
}

/** The losses as lines, with the step of `sample` marked. */
function lossChart(box, losses, sample) {
  const series = [
    { name: "training", points: losses.train, colour: "var(--layer-0)" },
    { name: "validation", points: losses.val, colour: "var(--layer-1)", dash: "6 4" },
  ].filter((each) => each.points.length);
  if (!series.length) return [];
  const width = Math.min(760, box.clientWidth), height = 250;
  const { drawing, x } = lines(width, height, series, "training steps", "loss, nats per character");
  if (sample) {
    const at = x(sample.step);
    drawing.append(svg("line", { class: "axis", x1: at, x2: at, y1: 10, y2: height - 40, "stroke-width": 2 }));
  }
  const legend = series.map((each) => {
    const name = make("span", {}, `${each.dash ? "\u2505" : "\u2501"} ${each.name} `);
    name.style.color = each.colour;
    return name;
  });
  return [make("p", {}, ...legend), drawing];
}

// The most likely next characters under every character, the whole text at once. Source of this picture: Karpathy
// (2015), "The Unreasonable Effectiveness of Recurrent Neural Networks".

const BLOCK = 16; // characters whose guesses are added at once, when they come into view

class Guesses {
  constructor(arrays, view) {
    Object.assign(this, { arrays, view });
    this.legend = make("div", { class: "legend", hidden: true });
    amountLegend(this.legend, "Probability of a guess", "100 %. The character that really follows is underlined.");
    const options = { root: view.element, rootMargin: "100% 0px" };
    this.observer = new IntersectionObserver((entries) => this.onView(entries), options);
  }

  show(on) {
    document.getElementById("show-guesses").checked = on;
    this.legend.hidden = !on;
    this.view.element.classList.toggle("guessed", on);
    const { spans } = this.view;
    for (let i = 0; i < spans.length; i += BLOCK) {
      if (on) this.observer.observe(spans[i]);
      else this.clear(i);
    }
    if (!on) this.observer.disconnect();
    if (this.view.current >= 0) this.view.reveal(this.view.current);
  }

  /** Add the guesses of the blocks whose first characters have come into view, and of the blocks before them. */
  onView(entries) {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) for (const first of [target.position - BLOCK, target.position]) this.fill(Math.max(0, first));
    }
  }

  fill(first) {
    for (const span of this.view.spans.slice(first, first + BLOCK)) {
      if (!span.children.length) span.append(...this.under(span.position));
    }
  }

  clear(first) {
    for (const span of this.view.spans.slice(first, first + BLOCK)) [...span.children].forEach((guess) => guess.remove());
  }

  /** The guesses after character i, most likely first, each coloured by its probability. */
  under(i) {
    return guessesAt(this.arrays, i).map(({ char, probability }) => {
      const right = char === this.view.chars[i + 1] ? "right" : "";
      return make("b", { class: `${amount(probability)} ${right}`.trim() || null }, visible(char));
    });
  }
}

/** The most likely characters after character i of the text, with their probabilities. */
function guessesAt({ guesses, probabilities }, i) {
  const K = guesses.shape[1];
  return Array.from({ length: K }, (_, k) => ({
    char: String.fromCodePoint(data.about.vocab[guesses.values[i * K + k]]),
    probability: probabilities.values[i * K + k] / 65535,
  }));
}

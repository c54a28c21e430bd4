// Builds the page.

const state = { chars: [] }; // the characters of the text

async function main() {
  const { about } = data;
  document.getElementById("name").textContent = about.name;
  document.getElementById("about").textContent =
    `${about.model}, ${count(about.parameters, "parameter")}, step ${about.step.toLocaleString("en")}, ` +
    `${data.bits_per_char.toFixed(3)} bits per character on this text.`;
  const names = ["ids", "bits", "guesses", "probabilities", "rises", "units"];
  const arrays = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await unpack(name)])));
  const colouring = textSection(arrays);
  state.chars = colouring.view.chars;
  stretchSection(colouring);
  networkSection();
  foundSection(colouring);
  ablationSection(colouring);
  gatesSection(colouring);
  await attentionSection();
  bitsSection(colouring);
  mapSection();
  growthSection();
  const first = data.search.find((each) => each.discovery);
  const [kind, layer, index] = data.units.rows[0];
  colouring.unit(first ? first.units[0] : { kind, layer, index });
  colouring.view.select(Math.min(40, state.chars.length - 1)); // an example, so that the details are not empty
  document.documentElement.dataset.ready = "yes";
  performance.mark("ready");
}

main();

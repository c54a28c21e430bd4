// A line for each word of a page that a learner may not know.

const MEANINGS = {
  unit: "one number inside the network. It changes with every character that the network reads.",
  activation: "the value of a unit after the network read a character.",
  layer: "a group of units that are computed at once. Layer 2 reads layer 1.",
  "hidden h": "the units of a hidden layer. The next layer reads them, and in a recurrent network the next step, too.",
  "cell c": "the memory of an LSTM. Each hidden unit h is computed from its cell c.",
  gate: "a number from 0 (shut) to 1 (open) for each unit, which controls its memory.",
  "input gate": "how much of the new value a cell takes in.",
  "forget gate": "how much of its old value a cell keeps (1: all of it).",
  "output gate": "how much of the cell is shown to the rest of the network as h.",
  "reset gate": "how much of the old state goes into the new value.",
  "update gate": "how much of its old state a unit keeps (1: all of it).",
  attention: "how a GPT looks back: each character takes in a weighted mean of the characters before it.",
  head: "one attention pattern. Each layer has several heads, which look at different characters.",
  "query, key, value":
    "three vectors of a head for each character. The query of one and the keys of others give the weights of their values.",
  "MLP unit": "a unit of the MLP, the part of a block that works on each character alone.",
  "residual x": "the vector of a character that is passed from block to block. Each block adds to it.",
  embedding: "a vector of numbers that stands for a character.",
  parameter: "a number that training changed. The parameters are what the network has learned.",
  bit: "1 bit is the surprise at a character that had the probability 1/2; 2 bits: 1/4; 3 bits: 1/8.",
  "surprisal (surprise)":
    "how unexpected a character was to the network, in bits: \u2212log\u2082 of its probability. Low is good.",
  loss: "the mean surprisal over the text. Training makes it smaller.",
  feature: "something about the text that can be computed without the network, such as the position in the line.",
  AUC:
    "how well a unit tells two kinds of characters apart: 0.5 is guessing, 1 is perfect. It is the probability that the unit is higher where the feature holds than where it does not.",
  "Spearman\u2019s rank correlation":
    "how well a unit rises with a number: 0 is no relation, 1 is always in the same order.",
  baseline: "a score that needs no learned unit, for comparison. A unit has to be clearly better.",
  ablation: "holding a unit at zero to see what gets worse without it.",
};

/** The words with their meanings. */
function wordList(words) {
  const entries = words.map((word) => make("div", {}, make("dt", {}, word), make("dd", {}, MEANINGS[word])));
  return make("dl", { class: "words" }, ...entries);
}

/** The words for kinds of units and for gates, of those that this network has. */
function unitWords(kinds, gates, attention) {
  return [
    "unit", "activation", "layer", ...(kinds.includes("h") ? ["hidden h"] : []), ...(kinds.includes("c") ? ["cell c"] : []),
    ...(gates.length ? ["gate", ...gates.map((name) => `${name} gate`)] : []),
    ...(attention ? ["attention", "head", "query, key, value", "MLP unit", "residual x"] : []),
  ];
}

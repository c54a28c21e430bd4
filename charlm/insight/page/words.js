// The words of the page that a learner may not know. Only words that this network has.

function words() {
  const kinds = data.units.kinds.map((each) => each.kind), gates = data.gates.map((gate) => gate.name);
  return [
    ...unitWords(kinds, gates, data.attention), "embedding", "parameter", "bit", "surprisal (surprise)", "loss", "feature",
    "AUC", "Spearman\u2019s rank correlation", "baseline", "ablation",
  ];
}

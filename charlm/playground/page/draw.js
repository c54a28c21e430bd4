// From logits to a character, as charlm.sampling.filters:
// repetition penalty -> temperature -> top_k -> top_p -> min_p -> draw.

const PENALTY_WINDOW = 64; // the repetition penalty is for the last 64 characters

/** A number in [0, 1) that depends on the seed, the take and the position, and on nothing else. */
function uniform(seed, take, position) {
  let hash = 0x9e3779b9;
  for (const word of [seed, Math.floor(seed / 2 ** 32), take, position]) hash = mixed(hash ^ mixed(word | 0));
  return ((mixed(hash ^ 1) >>> 5) * 2 ** 26 + (mixed(hash ^ 2) >>> 6)) / 2 ** 53;
}

/** The last steps of MurmurHash3 (Appleby), which spread a change of any bit over all 32. */
function mixed(hash) {
  let h = (hash + 0x6d2b79f5) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * Draw a character after the characters `recent`. `topK`, `topP` and `minP` are null for no filter; at temperature 0,
 * the likeliest is taken.
 */
function draw(logits, { temperature, topK, topP, minP, penalty }, random, recent) {
  const scores = penalty === 1 ? logits : penalised(logits, recent.slice(-PENALTY_WINDOW), penalty);
  if (temperature === 0) return likeliest(scores, 1)[0];
  const p = softmax(scores, new Float64Array(logits.length), temperature);
  if (topK !== null || topP !== null) filter(p, topK, topP);
  if (minP !== null) {
    const least = minP * p[likeliest(p, 1)[0]];
    for (let id = 0; id < p.length; id++) if (p[id] < least) p[id] = 0;
  }
  let sum = 0, upTo = 0;
  for (const each of p) sum += each;
  for (let id = 0; id < p.length; id++) if ((upTo += p[id]) > random * sum) return id;
  return likeliest(p, 1)[0];
}

/** The logits, lower for recent characters. One that occurs several times is penalised once. */
function penalised(logits, recent, penalty) {
  const scores = logits.slice();
  for (const id of recent) scores[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  return scores;
}

/** Set to 0 what is not among the topK likeliest, or not among the likeliest that have topP of the rest together. */
function filter(p, topK, topP) {
  const order = Array.from(p.keys()).sort((a, b) => p[b] - p[a] || a - b);
  const kept = topK === null ? order.length : Math.min(topK, order.length);
  for (const id of order.slice(kept)) p[id] = 0;
  if (topP === null) return;
  let sum = 0, before = 0;
  for (const each of p) sum += each;
  for (const id of order.slice(0, kept)) {
    const each = p[id];
    if (before >= topP * sum) p[id] = 0;
    before += each;
  }
}

/** The ids of the n largest values, largest first; of equal values the lower id. */
function likeliest(values, n) {
  const best = [];
  for (let id = 0; id < values.length; id++) {
    if (best.length === n && values[id] <= values[best[n - 1]]) continue;
    let at = best.length;
    while (at && values[best[at - 1]] < values[id]) at--;
    best.splice(at, 0, id);
    if (best.length > n) best.pop();
  }
  return best;
}

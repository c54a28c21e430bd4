"""Sample text from a file of `charlm export --format onnx`, with onnxruntime and numpy alone.

python docs/sample_onnx.py model.onnx "Once " 300 0.8       # prompt, length, temperature
"""

import json
import sys

import numpy as np
import onnxruntime

path, prompt, length, temperature = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
session = onnxruntime.InferenceSession(path)
about = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
vocab, context, unit = (about[f"charlm.{key}"] for key in ("vocab", "context", "unit"))
id_of = {char: i for i, char in enumerate(vocab)}
text = prompt.encode().decode("latin-1") if unit == "byte" else prompt  # a character for a byte
ids = [id_of.get(char, id_of.get("\ufffd")) for char in text or about["charlm.beginning"]]
sizes = {"batch": 1, "past": 0}  # a new text; a GPT has no keys and values then
types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}  # an MLP's state is ids
parts = session.get_inputs()[1:]
zeros = {it.name: np.zeros([sizes.get(n, n) for n in it.shape], types[it.type]) for it in parts}
rng, state, new, start = np.random.default_rng(), zeros, ids, 0
for _ in range(length):
    while context and len(ids) - start > context:  # read the last half of the context again
        start += context - context // 2
        state, new = zeros, ids[start:]
    logits, *after = session.run(None, {"ids": np.array([new]), **state})  # (1, T, V)
    x = logits[0, -1].astype(np.float64)
    p = np.exp((x - x.max()) / temperature) if temperature else x == x.max()
    state, new = dict(zip(zeros, after, strict=True)), [int(rng.choice(len(vocab), p=p / p.sum()))]
    ids = ids + new
    text += vocab[new[0]]
text = text.encode("latin-1").decode(errors="replace") if unit == "byte" else text
print("".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text))

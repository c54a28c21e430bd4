"""From any text to batches of ids.

search, sources, detect, text: find files, and decode their bytes.
encode, documents, build, verify, cache: write ids to a file, and check it before it is used again.
vocab, corpus, amounts, batches: the vocabulary of a model, and the data of each training step.
builtin, library, download: texts that have a name.
stats, yardsticks, oddities, findings: statistics of a text, and what is unusual in it.
"""

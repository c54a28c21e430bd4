"""From any text to batches of ids.

sources, text, encode, documents, build, cache: read bytes, decode them, write ids to a file.
vocab, corpus, amounts, batches: the vocabulary of a model, and the data of each training step.
builtin, library, download: texts that have a name.
stats, yardsticks, oddities: statistics of a text.
"""

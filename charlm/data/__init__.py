"""From any text to batches of ids.

sources, text, encode, build, cache: bytes from anywhere, as characters, as ids in a file.
vocab, corpus, items, amounts, batches: what a model knows, and what a step of training reads.
builtin, library, download: texts with a name. stats, yardsticks, oddities: what is in a text.
"""

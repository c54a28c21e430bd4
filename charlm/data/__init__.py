"""From text to batches: vocab (characters and ids), library (named texts), corpus, batches."""

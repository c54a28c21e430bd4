"""From logits to text: the networks' steps in plain arrays, filters (pure functions), the loop that
streams characters, and what of them is new."""

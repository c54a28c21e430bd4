"""From logits to text: filters (pure functions) and the loop that streams characters."""

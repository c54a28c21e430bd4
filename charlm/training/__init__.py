"""From batches to a trained model: one loss, one loop, one evaluation, one checkpoint file."""

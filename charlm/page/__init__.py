"""Pages for a browser: what `charlm inspect` and `charlm export` share. parts/ has the scripts."""

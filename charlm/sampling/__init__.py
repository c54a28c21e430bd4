"""Sampling text from a model: engines, filters, the loop that draws characters, and novelty."""

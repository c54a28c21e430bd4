"""What a network learned: its units, gates and attention heads, and where its bits go.

The modules, in the order in which they use each other:

    record.record(model, ids)           all units and gates at every character, as `Activations`
    features.read_features(text)        features of a text, for example `in quotes`
    structure.read_structure(text)      features of what a text repeats, for example its columns
    search.search(units, ids, ...)      the units that track a feature better than three baselines
    ablate.ablate(model, ids, units)    how much the loss rises without a unit
    gates, attention, surprisal, growth, network
    survey.survey(model, meta, ...)     all of this for one model and one text
    report.write_report(path, ...)      the same as one HTML file

`watch.Watch` writes units, gates and attention to TensorBoard during training.
"""

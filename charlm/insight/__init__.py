"""What a network learned: its cells, gates and attention, where its bits go, how its text grew.

In the order in which one builds on the other, each in the module of its name:

    record.record(model, ids)           every unit and gate at every character, as Activations
    features.read_features(text)        what there is to keep track of in a text
    search.search(units, ids, ...)      which units do, beyond what luck and locality explain
    ablate.ablate(model, ids, units)    what is lost without them
    gates, attention, surprisal, growth
    survey.survey(model, meta, ...)     all of it, and as plain numbers
    report.write_report(path, ...)      the same as one page of HTML

`watch.Watch` shows some of it in TensorBoard during training.
"""

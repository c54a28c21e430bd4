"""What a network learned: its cells, gates and attention, where its bits go, how its text grew.

    told = record(model, ids)              every unit and gate at every character
    features = read_features(text)         what there is to keep track of
    found = search(told.units, ids, ...)   which units do, beyond what luck and locality explain
    ablate(model, ids, units)              what is lost without them
    survey(model, meta, ids, ...)          all of it, also as plain numbers
    write_report(path, survey, ...)        and as one page of HTML

`Watch` shows some of it in TensorBoard during training.
"""

"""What a network learned: its cells, gates and attention, where its bits go, how its text grew.

activations = record(model, ids)                      every unit at every character
features = read_features(text)                        what there is to keep track of
found = search(activations.units, ids, features, ...) which units do, beyond luck
survey(...)                                           all of it, as one table of numbers
write_report(...)                                     the same as one page of HTML
"""

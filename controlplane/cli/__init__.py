"""`foedus`, which is also `kubectl foedus`: what people at the coordinator type.

`program` lists the nouns and loads one when it is needed; each noun's verbs are a file of `commands/`. `client` is the
one door to the coordinator, `settings` says which coordinator, `terminal`, `tables` and `output` how things look. No
rule of the treaty is decided here: what is signed is signed by `treaty`, what is stored by the coordinator's services.
"""

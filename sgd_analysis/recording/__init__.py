"""Attach to any training loop, and read off each step its loss and its gradient.

What a loop does comes together in `attachment`: a criterion's call tells the sizes of a batch
(`criteria`), or else the graph of its loss does (`pass_sizes`), a backward pass its objective
(`backward`, `objective`), the loader where an epoch ends (`loaders`, `found_epochs`), and at the
step (`steps`) a row is added. `attribution` says which passes (`passes`) the step uses, `step_loss`
makes one loss of them, and `rows` keeps it beside the gradient. `everywhere` attaches to every
optimizer, and `programs` runs a script meanwhile.
"""

"""Attach to a framework's own trainer, by a callback of that framework.

No framework is imported unless its module is, by the full name: `sgd_analysis.frameworks.lightning`
and so on. What their callbacks do with a recorder is in `fits`; `following` is for optimizers that
are not torch's.
"""

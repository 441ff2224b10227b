"""Attach to a framework's own trainer, by a callback of that framework.

Neither is imported unless its module is, by its full name: `sgd_analysis.frameworks.lightning`,
`sgd_analysis.frameworks.transformers`. What both do with a recorder is in `fits`.
"""

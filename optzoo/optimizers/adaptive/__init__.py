"""A size for each entry: rules that scale every number by moments of its own gradients.

The members share the form of Adam and differ in which moments they keep and how these meet.
Look here first: for most models one of these replaces AdamW with nothing else to change.
"""

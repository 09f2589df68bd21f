"""Matrices as matrices: rules that see a layer's kernel as a linear map.

The members change the singular values or the basis of a step, not its entries one by one.
Look here for transformers and convolutional networks, whose numbers lie in hidden matrices.
"""

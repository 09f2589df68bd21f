"""Without a learning rate: rules that find their own step size.

The members measure how far the parameters have travelled; a learning rate only multiplies it.
Look here for first tries and fine-tuning, where nobody wants to tune.
"""

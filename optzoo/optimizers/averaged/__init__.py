"""Trained here, evaluated there: rules whose parameters to use are not the ones trained.

The members average or extrapolate iterates; `optzoo.eval_params` gives what to evaluate and save.
Look here for runs of unknown length.
"""

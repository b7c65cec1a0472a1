"""Read models over the engine's facts: status, timeline, metrics.

Everything here but the following of the log is a pure fold: the same facts give the same model, whenever they are read.
"""

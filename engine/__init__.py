"""nursling's engine: replies of LLM APIs as bounded, cancellable streams of events.

Pure but for `pipeline.py`: no I/O, no clock, no globals. Needs nothing but Trio.
"""

"""Benchmarks of nursling that anyone can rerun: `python -m bench`, from the checkout.

Loopback only, no compiler, bounded in time, and nothing is left behind. The generator's side is
always processes of their own, so that the CPU time of the gateway's process is the gateway's.
"""

"""The bug zoo: safeguards of the system that can be switched off by name, here and nowhere else.

Each must be missed by the simulation, the explorer or both; what nobody misses is untested.
"""

"""Stand-ins for the remote systems: real HTTP servers with their rules, and faults on demand.

`sync-worker dev`, tests and benchmarks drive them. Nothing in the product imports them.
"""

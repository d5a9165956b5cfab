"""What the product costs, measured from outside: `python -m benchmarks`.

Each file here is one benchmark; `harness` holds what they share, `references` the fixed scripts
that ours is measured against. Nothing here imports how the product works: it is started as its
commands are, set by its environment, sent webhooks and read by its answers, by the calls that
arrive at a simulated Fusebill, and by a few counts in Redis. Linux only: CPU time is read from
/proc.
"""

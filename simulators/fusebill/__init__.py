"""The simulated Fusebill (Stax Bill) REST API v1.

Each file is one idea, from the inside out:

- `customer`: a customer, and how the API spells one.
- `options`: what the vendor's pages leave open, and numbers worth changing in a test.
- `query`: the grammar of the customer list.
- `world`: the customers, and the rules of latching; no HTTP.
- `limits`, `faults`, `calls`: the rate limit, trouble on demand, the log of calls.
- `credentials`, `messages`, `routes`: keys, the forms of answer, the endpoints.
- `api`: all of that in its order; `desk`: what `/_simulator/` answers.
- `server`: the HTTP edge, on `simulators.http`. `control`: the client of `/_simulator/`.
- `synthetic`: customers that nobody is.

What is documented, and how surely, stands in the project's facts about Fusebill; names such
as `seed 004` or `ref/errors` below are the vendor's pages as those facts cite them.
"""

"""The simulated MyAdmin, Geotab's reseller system: log in, and list the user contacts.

- `contacts`: the contacts of one ERP account, as the API spells them; no HTTP.
- `rpc`: JSON-RPC as MyAdmin speaks it, with both shapes of its errors.
- `server`: sessions, the two methods, versions v2 and v3, over HTTP.

What is documented, and how surely, stands in the project's facts about Geotab. Where a behaviour
is unknown, the place says so.
"""

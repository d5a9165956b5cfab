"""The simulated HubSpot: the reads of contacts, companies, their associations and the portal.

- `world`: the records of one portal, and what people and apps do to them; no HTTP.
- `server`: the HTTP API over it.

>>> with SimulatedHubSpot(portal_id=24681357) as hubspot:
...     contact = hubspot.world.create("contacts", {"fusebill_id": "8714401"})
...     hubspot.control.add_fault(Fault(path="/contacts/", status=503, times=1))

What is documented, and how surely, stands in the project's facts about HubSpot.
"""

from __future__ import annotations

from simulators.http import Fault
from simulators.hubspot.server import SimulatedHubSpot, rate_limited
from simulators.hubspot.world import HubSpotWorld

__all__ = ["Fault", "HubSpotWorld", "SimulatedHubSpot", "rate_limited"]

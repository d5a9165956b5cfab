"""All that speaks to Fusebill (now Stax Bill)."""

"""The door: authentic requests become stored changes. Knows nothing of Fusebill."""

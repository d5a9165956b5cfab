"""The simulated Salesforce: its token endpoint and its queries for Accounts.

- `accounts`: Accounts, their fields, deleting and merging; no HTTP.
- `soql`: the two queries that are understood, and the errors of others.
- `server`: logins, sessions, limits, and the HTTP answers.

What is documented, and how surely, stands in the project's facts about Salesforce.
"""

"""Generated requests against the receiver: none may be answered outside the contract."""

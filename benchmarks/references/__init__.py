"""What ours is measured against. Fixed: a change here makes figures of before incomparable."""

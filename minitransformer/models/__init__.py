"""Models written as stacks: every tensor has a leading axis of K members."""

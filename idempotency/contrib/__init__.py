"""At home in other frameworks and tools; what needs another package has an extra for it."""

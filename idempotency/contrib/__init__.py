"""At home in other frameworks and tools; each module needs its own extra."""

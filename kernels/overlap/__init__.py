"""How often a task vector changes an element alone, and how often together with others."""

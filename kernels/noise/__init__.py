"""Numbers that are drawn for the elements of a tensor."""

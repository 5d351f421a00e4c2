"""A model as data: values and nodes, checked, fused, given memory, and turned into a flat list of kernel calls."""

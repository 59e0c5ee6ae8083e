"""The wire formats, by name. Each lives in a folder of its own and knows no other."""

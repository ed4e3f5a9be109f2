"""Files that appear whole, folders with one user, digests, and where a file comes from."""

"""Ways to join two sides that were trained apart, without any data."""

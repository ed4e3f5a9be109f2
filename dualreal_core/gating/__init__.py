"""The prompt gate's fitting: from words and texts alone, through the base's own text encoder, in about a minute."""

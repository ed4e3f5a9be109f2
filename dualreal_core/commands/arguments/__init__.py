"""What each command takes. Nothing is imported for it but what parsers show: torch and its kin take seconds."""

"""What the claims have in common: how they are measured, judged, drawn and shown."""

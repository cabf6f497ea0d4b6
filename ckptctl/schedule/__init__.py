"""When the next snapshot is due: pure functions of what was seen and when; no clock is read here."""

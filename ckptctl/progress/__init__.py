"""How far a training is, read from what it leaves anyway: a status file, a framework's records, its log."""

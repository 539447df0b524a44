"""Decisions, pure: bytes and reports in, plans or `JobFailed` out. No I/O, clock or randomness."""

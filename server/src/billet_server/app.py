"""Composition root: builds adapters, runs one TaskGroup, orders start and stop."""

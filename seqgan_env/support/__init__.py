"""Shared basics: errors, files, settings, random numbers, processes, precision."""

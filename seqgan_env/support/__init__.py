"""What everything else stands on: errors, files, settings, random numbers, processes, precision."""

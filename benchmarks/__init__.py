"""What the project measures of itself; each module is a command."""

"""What pytest must not take for tests."""

collect_ignore = ["stand_in_command_line.py"]

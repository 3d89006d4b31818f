"""What workers run is imported by them alone: it writes down what happens in its process."""

collect_ignore = ["apps"]

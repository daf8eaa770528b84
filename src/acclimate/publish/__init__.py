"""What learners know, for others: spaces and their snapshots, and the stores that hold what changes."""

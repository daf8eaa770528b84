"""What models get right, in worlds whose truth is known and on real data; a command each."""

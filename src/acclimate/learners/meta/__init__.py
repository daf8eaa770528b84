"""What a meta ranker is made of."""

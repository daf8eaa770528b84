"""What a user encoder is made of: histories of entities, vectors of items, grouped inputs, and the network."""

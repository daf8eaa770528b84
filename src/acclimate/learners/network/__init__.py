"""What learners that train networks share: rows as they read them, the loop that trains, the posterior, scores."""

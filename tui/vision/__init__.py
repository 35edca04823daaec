"""Pictures and clips on their way to the model: where they come from, what they cost, how they look in cells."""

"""What a broker says, as a tree: a pure model of its topics, and the terminal that shows it."""

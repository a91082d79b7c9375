"""A historian's export becomes samples: readings out of files, through the signal map, into the store."""

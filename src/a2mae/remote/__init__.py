"""Files and addresses that nobody vouches for: which may be opened, how they are read, tried again and compared."""

"""What a folder of scenes holds, as far as its files say it: products, each statement with its evidence."""

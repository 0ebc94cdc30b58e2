"""Open, fetch, sign, retry and verify files and addresses that nobody vouches for; stores at local or remote paths."""

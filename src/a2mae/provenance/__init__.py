"""What made what: the record that each node of a run leaves, and the checks that follow the records back."""

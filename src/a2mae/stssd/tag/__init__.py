"""What was built: anchors, splits, statistics, four properties; and its pruning."""

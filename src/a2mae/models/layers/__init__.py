"""What the models are made of: functions and small modules that belong to no method."""

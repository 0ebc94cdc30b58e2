"""Recognise labels: what they are, and the parameters of the task that learns them."""

"""What every output was made from, by content: records that the runs leave, and the check that follows them back.

`python -m a2mae.lineage MODEL_DIR` prints the chain from the scores back to the source scenes and verifies each hash.
"""

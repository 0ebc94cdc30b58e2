"""The thin Kedro shell: one folder per stage with `nodes.py` and `pipeline.py`."""

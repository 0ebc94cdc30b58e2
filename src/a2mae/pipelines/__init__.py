"""The thin Kedro shell: one module per stage, with its nodes and its pipeline."""

"""Configuration laid over configuration."""


def laid_over(below: dict, above: dict) -> dict:
    """Configuration as Kedro merges it: key by key."""
    both = {
        key: laid_over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return below | both

"""A terminal at which answers are typed."""

import builtins
import io


def typing(monkeypatch, *lines):
    """Type these lines; returns the prompts that were shown."""
    prompts, left = [], list(lines)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def read(prompt):
        prompts.append(prompt.strip())
        return left.pop(0)

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(builtins, "input", read)
    return prompts

"""The report: one self-contained HTML file built from the chain's tables, JSON and arrays.

Sections (`sections/`) turn `ReportInputs` into blocks (`blocks.py`); `page.py` renders blocks. A section whose inputs
are absent is left out, so the same code reports any chain of stages.
"""

"""The report: one self-contained HTML file, and cards, made from the chain's tables, JSON and arrays.

Sections (`sections/`) turn `ReportInputs` into blocks (`blocks.py`); `stage_pages.py` orders them into pages, and
`page.py` renders these. A section whose inputs are absent is left out, so the same code reports any chain of stages.
"""

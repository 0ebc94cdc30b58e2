"""The chapters of the page: each module has functions from `ReportInputs` to a `Section`, or None if absent."""

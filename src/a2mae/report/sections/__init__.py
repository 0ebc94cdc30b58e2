"""The sections of the page: functions from `ReportInputs` to a `Section`, or None where its inputs are absent."""

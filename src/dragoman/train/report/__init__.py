"""Report: the page ``report.html`` that shows a run, with its charts."""

"""A report of an evaluation: one HTML page, the same as Markdown, and figures."""

from captune.app.report.write import report as report
from captune.app.report.write import write_report as write_report

"""The web page of ``dragoman serve``: plain HTML, CSS and ES modules that load nothing from elsewhere."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Folder of the page: ``index.html``, served at ``/``, and its modules, served under ``/static``."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Value of the header ``Content-Security-Policy`` under which the page works: nothing inline, nothing foreign."""

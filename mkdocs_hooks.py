"""Hooks of the documentation's site: the README is its first page, and links lead to what the site holds.

Pages link to results of measurements and to code, as readers of the repository expect. Results are copied into the
site; what else is outside of ``docs`` is named without a link.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent
RESULTS = "benchmarks/results"
STUDIES = "src/dragoman/studies/results"
FETCHED = re.compile(r'<script src="https://unpkg\.com/iframe-worker/shim"></script>')
"""What the theme would fetch so that the search works in pages opened as files."""
WORKER = """<script>
if (location.protocol === "file:") {
  // browsers start no workers from files: run the worker's script in a hidden frame, and pass messages on
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.inside = frame.contentWindow;
      this.ready = new Promise((loaded) => {
        const script = this.inside.document.createElement("script");
        this.inside.postMessage = (data) => {
          const event = new MessageEvent("message", { data });
          this.dispatchEvent(event);
          if (this.onmessage) this.onmessage(event);
        };
        this.inside.importScripts = () => Promise.resolve();
        script.onload = loaded;
        script.src = url;
        this.inside.document.body.appendChild(script);
      });
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
  window.Worker = window.IFrameWorker;
}
</script>"""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: Any) -> Any:
    """Append pages that the navigation lacks, so that a new page is there before somebody finds its place."""
    listed = str(config["nav"])
    missing = [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in listed]
    if missing:
        config["nav"].insert(-1, {"More": missing})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the README, the results that pages name, and a page for each result that is a table of its own."""
    files.append(File.generated(config, "index.md", content=_of_readme((ROOT / "README.md").read_text())))
    for path in sorted((ROOT / RESULTS).iterdir()):
        if path.suffix in (".md", ".png", ".svg"):
            files.append(File.generated(config, f"{RESULTS}/{path.name}", content=path.read_bytes()))
    for path in sorted((ROOT / STUDIES).glob("*")):
        if path.suffix in (".html", ".json"):
            files.append(File.generated(config, f"{STUDIES}/{path.name}", content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page."""
    depth = page.file.src_uri.count("/")
    if page.file.src_uri.startswith(RESULTS):
        return LINK.sub(lambda found: _inside_results(found, page.file.src_uri), markdown)
    return LINK.sub(lambda found: _rewritten(found, depth), markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Put our own script in the place of one that the theme would fetch from elsewhere."""
    return FETCHED.sub(lambda _: WORKER, output)


def on_post_template(output_content: str, **_: Any) -> str:
    """Do the same for pages that are no documents, such as 404.html."""
    return FETCHED.sub(lambda _: WORKER, output_content)


def _of_readme(text: str) -> str:
    """Return the README with links as if it were in ``docs``."""
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\]\((?!https?:|#)((?:benchmarks|src|tests|LOG|CHANGELOG)[^)]*)\)", r"](../\1)", text)


def _rewritten(found: re.Match[str], depth: int) -> str:
    label, target = found[1], found[2]
    outside = "../" * (depth + 1)
    if not target.startswith(outside):
        return found[0]
    path = target.removeprefix(outside)
    where, _, _ = path.partition("#")
    if where.startswith(STUDIES) and (ROOT / where).is_file():
        return f"[{label}]({'../' * depth}{path})"
    if where.startswith(RESULTS) and (ROOT / where).is_file() and Path(where).suffix in (".md", ".png", ".svg"):
        return f"[{label}]({'../' * depth}{path})"
    return label


def _inside_results(found: re.Match[str], page: str) -> str:
    """Return a link between results, or its label where it leads elsewhere."""
    label, target = found[1], found[2]
    where = (ROOT / Path(page).parent / target.partition("#")[0]).resolve()
    known = where.is_file() and where.is_relative_to(ROOT / RESULTS) and where.suffix in (".md", ".png", ".svg")
    return found[0] if known or target.startswith(("#", "http")) else label

"""A form with text, boxes to tick and a file, and what arrived of it."""
# ruff: noqa: INP001  # the server loads each program by its path

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from web.wsgi import base, cgi, error

PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
EXCERPT = 200  # bytes of an uploaded file that are shown

FORM = Template("""\
<form method="post" action="$here" enctype="multipart/form-data">
<label>Name <input name="name" autocomplete="name"></label>
<label>Message <br><textarea name="message" rows="3" cols="50"></textarea></label>
<label><input type="checkbox" name="colour" value="red"> red</label>
<label><input type="checkbox" name="colour" value="green"> green</label>
<label><input type="checkbox" name="colour" value="blue"> blue</label>
<label>File <input type="file" name="upload"></label>
<p><button>Send</button> or <a href="$here?name=Ada&amp;colour=red&amp;colour=blue">send some by a link</a></p>
</form>
""")


class FormPage(base.BaseApplication):
    """Shows the form and, above it, each field that arrived."""

    def start(self) -> None:
        """Answer one request."""
        form = self.environ["web.cgi"]
        rows = []
        for name in form.keys():  # noqa: SIM118  # the documented interface of environ['web.cgi']
            field = form[name]
            fields = field if isinstance(field, list) else [field]
            rows += [f"<tr><td>{escape(name)}</td><td>{describe(one)}</td></tr>" for one in fields]
        table = "<p>Nothing was sent yet.</p>"
        if rows:
            table = "<table>\n<tr><th>Field</th><th>Value</th></tr>\n" + "\n".join(rows) + "\n</table>"
        body = f"<h2>What arrived</h2>\n{table}\n<h2>Send</h2>\n"
        self.output(
            PAGE.substitute(title="A form", body=body + FORM.substitute(here=escape(self.environ["SCRIPT_NAME"])))
        )


def describe(field: Any) -> str:
    """One value as HTML; of a file its name, its size and how it begins."""
    if field.filename == "":  # a browser sends a part for the file also where none was chosen
        return '<span class="quiet">no file</span>'
    if field.file is None:
        return escape(field.value) or '<span class="quiet">empty</span>'
    start = field.file.read(EXCERPT)
    size = field.file.seek(0, 2)
    shown = escape(start.decode("utf-8", "replace")) + ("…" if size > EXCERPT else "")
    return f"the file {escape(field.filename)}, {size} bytes, which begins:<br><code>{shown}</code>"


application = error.Error(cgi.CGI(FormPage()))
